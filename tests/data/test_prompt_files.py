"""Files that a user brings: what is wrong is named by file and line; what we write, we read back."""

import json
from pathlib import Path

import pytest

from unspoiled.data import Row, read_rows, read_test_prompts, write_rows
from unspoiled.errors import DataError


def write(directory: Path, *rows: object) -> Path:
    path = directory / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    text = 'quotes " and \\ and\nnewline\u2028 {x} 😀 <|im_end|> </script>'
    rows = [Row("0", "safety", "Self-Harm", text, text[::-1], "q", "a", "search")]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"question": "x"}, "'prompt' is None"),
        ({"prompt": " "}, "'prompt' is ' '"),
        ({"prompt": ["x"], "answer": "y"}, "'prompt' is ['x']"),
        ({"prompt": "x"}, "'answer' is None"),
        ({"prompt": "x", "answer": 7}, "'answer' is 7"),
        ({"prompt": "x", "answer": "y", "choices": "yz"}, "'choices' is 'yz'"),
        ({"prompt": "x", "answer": "y", "choices": ["a", "b"]}, "'answer' 'y' is not among 'choices'"),
        ({"prompt": "x \ud83d", "answer": "y"}, "a text holds half a character"),
        ({"prompt": "x", "answer": "y", "category": 3}, "'category' is 3"),
        ({"prompt": "x", "answer": "y", "family": ["a"]}, "'family' is ['a']"),
        ({"prompt": "x", "answer": "7", "match": "close"}, "'match' is 'close'"),
        ({"prompt": "x", "answer": "seven", "match": "number"}, "'answer' 'seven' holds no number"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_line(tmp_path: Path, row: object, complaint: str) -> None:
    path = write(tmp_path, {"prompt": "good", "answer": "yes"}, row)
    with pytest.raises(DataError) as caught:
        read_test_prompts(path, answers=True)
    assert str(caught.value).startswith(f"{path}:2: {complaint}")


def test_two_rows_of_one_id_are_refused_unless_they_are_the_same(tmp_path: Path) -> None:
    same = write(tmp_path, {"id": "a", "prompt": "x"}, {"id": "a", "prompt": "x"})
    assert len(read_test_prompts(same, answers=False)) == 2
    other = write(tmp_path, {"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}, {"id": "a", "prompt": "z"})
    with pytest.raises(DataError, match=r":3: the id 'a' is line 1's too"):
        read_test_prompts(other, answers=False)


def test_copies_of_a_prompt_are_one_family_unless_they_name_theirs(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "Say x"}, {"id": "b", "prompt": "say  X"}, {"id": "c", "prompt": "Say y"}]
    rows += [{"id": "d", "prompt": "Say z", "family": "mine", "category": "Theft"}]
    first, copy, other, named = read_test_prompts(write(tmp_path, *rows), answers=False)
    assert first.family == copy.family != other.family
    assert (named.family, named.category) == ("mine", "Theft")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file has no rows"):
        read_test_prompts(write(tmp_path), answers=False)


def test_a_limit_takes_rows_from_all_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, *({"prompt": f"p{i}"} for i in range(10)))
    assert [row.prompt for row in read_test_prompts(path, answers=False, limit=4)] == ["p0", "p2", "p5", "p7"]
    assert len(read_test_prompts(path, answers=False, limit=99)) == 10
