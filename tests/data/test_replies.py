"""What models write as JSON is read where there is something to read, whatever stands around it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.data._replies import Schema, read_questions, require_schema
from unspoiled.errors import ConfigError

ONE, LIST = {"question": "text"}, ["text"]


@pytest.mark.parametrize(
    ("prefix", "reply", "schema", "expected"),
    [
        ('{"question": "', 'Why?"}', ONE, ["Why?"]),
        ('{"question": "', 'Why?"} and more words', ONE, ["Why?"]),
        ('{"question": "', '{"question": "Begun anew?"}', ONE, ["Begun anew?"]),  # a server that can't continue
        ("", 'Sure! Here it is:\n```json\n{"question": "Fenced?"}\n```\nEnjoy.', ONE, ["Fenced?"]),
        ("", '[note] {"question": "After a bracket?"}', ONE, ["After a bracket?"]),
        ("", '{"answer": 1} {"question": "The second one?"}', ONE, ["The second one?"]),
        ('["', 'A?", "B?"]', LIST, ["A?", "B?"]),
        ('["', '["A?", "B?"]', LIST, ["A?", "B?"]),
        ('["', 'A?", "B?", "cut o', LIST, ["A?", "B?"]),
        ("", 'Here: ["A?", "B?", "cut o', LIST, ["A?", "B?"]),
        ("", '[{"q": "A?", "n": 1}, {"q": "B?"}, {"q": "cut', [{"q": "text"}], ["A?", "B?"]),
        ("", '{"questions": ["A?", 7, " ", null, "B?"]}', {"questions": ["text"]}, ["A?", "B?"]),
        ("", '{"question": 7}', ONE, []),
        ("", '["A?"]', ONE, []),  # not what was asked for
        ("", "no JSON here", LIST, []),
        ("", "", LIST, []),
        ("", "[" * 5000, LIST, []),
        ("", '{"question": ' * 3000, ONE, []),
        ("", '["\\ud83d half a character", "whole?"]', LIST, ["whole?"]),
    ],
)
def test_questions_are_found(prefix: str, reply: str, schema: Schema, expected: list[str]) -> None:
    assert read_questions(prefix, reply, schema) == expected


@given(st.lists(st.text(min_size=1).map(str.strip).filter(bool), min_size=1), st.text(alphabet="abc .,:!\n"))
def test_any_list_is_read_after_any_talk(texts: list[str], talk: str) -> None:
    assert read_questions("", talk + json.dumps(texts), LIST) == texts


@given(st.text())
def test_no_reply_breaks_the_reader(reply: str) -> None:
    for schema in (ONE, LIST):
        assert all(text == text.strip() != "" for text in read_questions('{"question": "', reply, schema))


@pytest.mark.parametrize("schema", ["number", [], ["text", "text"], {}, {"a": "text", "b": "text"}, [["number"]], None])
def test_a_schema_that_is_none_is_refused(schema: object) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: schema: .* is none"):
        require_schema(schema, "mine.yaml")
