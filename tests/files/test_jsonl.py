"""JSONL logs: what a killed process leaves behind, and what is damage."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.errors import DataError
from unspoiled.files import append_jsonl, read_jsonl

ROWS = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=10) | st.integers(), max_size=3), max_size=5)


@given(first=ROWS, second=ROWS)
def test_appended_rows_come_back(first: list[Any], second: list[Any]) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, "log.jsonl")
        append_jsonl(path, first)
        append_jsonl(path, second)
        assert read_jsonl(path) == first + second


def test_a_log_cut_at_any_byte_is_repaired_to_its_last_whole_record(tmp_path: Path) -> None:
    rows = [{"text": "grün\n{}"}, {"n": 1}, {"deep": {"a": [1, 2]}}]
    path = tmp_path / "log.jsonl"
    append_jsonl(path, rows)
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        survivors = sum(end <= cut for end in ends)
        told: list[str] = []
        assert read_jsonl(path, repaired=told.append) == rows[:survivors]
        torn = [f"{path}:{survivors + 1}: removed a torn last record"] if cut not in {0, *ends} else []
        assert [text.partition(" of ")[0] for text in told] == torn
        append_jsonl(path, rows[survivors:])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [b'{"n": 2', b'{"n": 2}'])
def test_nothing_is_glued_onto_a_torn_record(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n' + tail)
    with pytest.raises(DataError, match=r"log\.jsonl: the last record is torn .* `repaired`"):
        append_jsonl(path, [{"n": 3}])
    assert path.read_bytes() == b'{"n": 1}\n' + tail


def test_a_tail_of_zeros_as_a_power_loss_leaves_it_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"n": 1}\n' + bytes(100))
    told: list[str] = []
    assert read_jsonl(path, repaired=told.append) == [{"n": 1}]
    assert "100 bytes" in told[0]
    assert path.read_bytes() == b'{"n": 1}\n'


@pytest.mark.parametrize("bad", ["{", "[1]", "1", '{"a": 1} {"b": 2}', "[" * 100_000])
@pytest.mark.parametrize("repaired", [None, print])
def test_damage_before_the_last_line_is_never_repaired(tmp_path: Path, bad: str, repaired: Any) -> None:
    path = tmp_path / "log.jsonl"
    content = f'{{"n": 1}}\n\n{bad}\n{{"n": 2}}\n'
    path.write_text(content)
    with pytest.raises(DataError, match=r"log\.jsonl:3: not a JSON object"):
        read_jsonl(path, repaired=repaired)
    assert path.read_text() == content


def test_without_repair_a_bad_last_line_is_an_error_and_a_missing_newline_is_not(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"n": 1}\n{"n":')
    with pytest.raises(DataError, match=r"data\.jsonl:2"):
        read_jsonl(path)
    path.write_text(json.dumps({"n": 1}))
    assert read_jsonl(path) == [{"n": 1}]


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_jsonl(tmp_path / "log.jsonl", [{"loss": float("nan")}])
    assert not (tmp_path / "log.jsonl").exists()
