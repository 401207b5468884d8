"""The YAML rules of FAULTS.md, and errors that a person can act on."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.config import (
    dump_yaml,
    load_yaml,
    load_yaml_documents,
    load_yaml_file,
)
from unspoiled.errors import ConfigError

BOMB = """\
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: [*b, *b, *b, *b, *b, *b, *b, *b, *b]
"""


TEXT_WORDS = (
    *("yes", "No", "on", "off", "y", "N", "nan", "inf", "0x1F", "0o17", "1_000", "1:30", "2024-01-01"),
    *("2024-01-01T00:00:00Z", "e3", ".", "<<", "="),
)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_yaml(text, source="run.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-.5", -0.5),
        ("+1.", 1.0),
        ("5e-324", 5e-324),
        ("-0", 0),
        ("010", 10),
        ("18446744073709551615", 2**64 - 1),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        *((word, word) for word in TEXT_WORDS),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        (r'"\ud83d\ude00"', "😀"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = load_yaml(f"key: {text}\n", source="run.yaml").value["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BOMB, 1, ["'&a'", "quotes"]),
        ("x: 1\nb: *a\n", 2, ["'*a'", "quotes"]),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, ["b.c", "given twice", "line 3"]),
        ("a: {b: 1, 'b': 2}", 1, ["a.b", "given twice"]),
        ("a:\n- .inf\n", 2, ["'.inf'", "finite"]),
        ("a: -.INF", 1, ["finite"]),
        ("a: .nan", 1, ["finite"]),
        ("a: 1e999", 1, ["'1e999'", "finite"]),
        ("a: " + "9" * 5000, 1, ["finite"]),
        ("a: 18446744073709551616", 1, ["64 bits", "decimal point"]),
        ("a: !!python/object/apply:os.system [ls]", 1, ["!!python/object/apply:os.system"]),
        ("a: !!str 1", 1, ["'!!str'"]),
        ("a: !mine 1", 1, ["'!mine'"]),
        ("a: 1\n2: b\n", 2, ["key must be text", "'2'", "quotes"]),
        ("true: b\n", 1, ["key must be text"]),
        ("? [a, b]\n: 1\n", 1, ["key must be text"]),
        ("a: 1\n---\nb: 1\n", 3, ["second document"]),
        ("", 1, ["empty"]),
        ("# only a comment\n\n", 1, ["empty"]),
        ("---\n", 1, ["empty"]),
        ("a: " + "[" * 10_000, 1, ["nested"]),
        ("a:\n" + "- " * 100 + "x", 2, ["nested"]),
        ("a: 1\nb: c: d\n", 2, ["not valid YAML", "quotes"]),
        ("a:\n\tb: 1\n", 2, ["not valid YAML", "tabs"]),
        ("a: [1, 2\nb: 3\n", 2, ["not valid YAML"]),
        ("a: 1\nb: \x00\n", 2, ["'\\x00'", "not allowed"]),
        ('a: "\\ud800"', 1, ["half a character"]),
        ('a: 1\nb: "\\U00110000"', 2, ["not valid YAML", "quotes"]),
        ("%YAML 1." + "1" * 5000 + "\n---\na: 1\n", 1, ["not valid YAML"]),
    ],
)
def test_refusals_name_the_line_and_what_to_do(text: str, line: int, words: list[str]) -> None:
    message = refusal(text)
    assert message.startswith(f"run.yaml:{line}: ")
    for word in words:
        assert word in message


@given(st.text() | st.text("ab:-[]{},'\"|>&*!%#?<=~ \n\t\\\\01.e").map(lambda text: "a:\n" + text))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        document = load_yaml(text, source="run.yaml")
    except ConfigError as error:
        assert re.match(r"run\.yaml:[0-9]+: ", str(error))  # noqa: PT017
    else:
        assert 1 <= document.line() <= len(text.splitlines()) + 1


def test_every_key_and_item_has_its_line() -> None:
    text = "# comment\na: 1\n\nb:\n  - c: x\n    d: |\n      text\n  - 5\n"
    document = load_yaml(text, source="run.yaml")
    assert document.lines == {
        (): 2,
        ("a",): 2,
        ("b",): 4,
        ("b", 0): 5,
        ("b", 0, "c"): 5,
        ("b", 0, "d"): 6,
        ("b", 1): 8,
    }
    assert document.line(("b", 1, "absent", 3)) == 8  # the nearest thing that is there
    assert str(document.error(("b", 0, "c"), "wrong")) == "run.yaml:5: b[0].c: wrong"


def test_several_documents_are_read_only_on_request() -> None:
    first, second = load_yaml_documents("a: 1\n---\nb: 2\n", source="x.yaml")
    assert (first.value, second.value) == ({"a": 1}, {"b": 2})
    assert second.line(("b",)) == 3


def test_files_are_read_as_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes("\ufeffname: é\n".encode())
    document = load_yaml_file(path)
    assert document.value == {"name": "é"}
    assert document.source == str(path)


def test_unreadable_files_are_refused_with_their_path(tmp_path: Path) -> None:
    latin, huge = tmp_path / "latin.yaml", tmp_path / "huge.yaml"
    latin.write_bytes(b"a: 1\nb: \xe9\n")
    with huge.open("wb") as file:
        file.truncate(2**33)  # sparse: a checkpoint given by mistake must not be read whole
    for path, word in [
        (tmp_path / "absent.yaml", "check the path"),
        (tmp_path, "can't be read"),
        (huge, "too large"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(str(path)) + f".*{word}"):
            load_yaml_file(path)
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: not UTF-8"):
        load_yaml_file(latin)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TRICKY = st.sampled_from([*TEXT_WORDS, "1e-3", "08", "null", "~", ".inf", "-", "*a", "&a", "!b", "#", "a: b", " a "])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | TRICKY
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | TRICKY, inner, max_size=4),
    max_leaves=12,
)


def same(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and repr(left) == repr(right)


@given(VALUES.filter(lambda value: value is not None))
def test_what_is_written_is_read_back_to_the_last_bit(value: object) -> None:
    text = dump_yaml(value)
    assert same(load_yaml(text, source="x").value, value)


@given(st.dictionaries(TEXT | TRICKY, VALUES, min_size=1))
def test_a_yaml_1_1_reader_reads_the_same(value: dict[str, object]) -> None:
    assert same(yaml.safe_load(dump_yaml(value)), value)


def test_lists_of_numbers_stay_on_a_line_and_long_ones_wrap() -> None:
    text = dump_yaml({"weight": [i / 32 for i in range(33)], "models": [{"model": "a"}, {"model": "b"}]})
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("weight: [0.0, 0.03125, ")
    assert text.endswith("models:\n  - model: a\n  - model: b\n")


def test_reading_configs_does_not_import_torch() -> None:
    code = "import sys, unspoiled.config; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_math_is_exact_for_the_smallest_and_largest_numbers() -> None:
    for number in (5e-324, sys.float_info.max, -sys.float_info.min, math.pi, -0.0):
        assert repr(load_yaml(dump_yaml([number]), source="x").value[0]) == repr(number)
