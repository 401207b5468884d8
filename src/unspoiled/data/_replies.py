"""Questions out of a model's JSON, which is often wrapped in talk, fenced, begun anew, or cut off."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from unspoiled.data._unicode import is_unicode
from unspoiled.errors import ConfigError

Schema = object
"""The JSON that a reply must be, with `text` for each question: `[text]`, `{question: text}`, `[{question: text}]`."""

_TEXT = "text"
_MOST_STARTS = 8  # brackets in a reply that are tried as the beginning of the JSON
_FENCE = re.compile(r"```[a-zA-Z]*\n?")


def require_schema(schema: Schema, source: str) -> None:
    """Check that a schema is one.

    Raises:
        ConfigError: It isn't.
    """
    inner = schema
    while inner != _TEXT:
        if isinstance(inner, list) and len(inner) == 1:
            inner = inner[0]
        elif isinstance(inner, dict) and len(inner) == 1:
            inner = next(iter(inner.values()))
        else:
            raise ConfigError(
                f"{source}: schema: {schema!r} is none: write the reply's JSON with `text` for each question, such as "
                "[text] or {question: text}."
            )


def read_questions(prefix: str, reply: str, schema: Schema) -> list[str]:
    """Return the questions in a reply, without blank ones and those with half a character (a lone surrogate).

    What is looked for, in this order: the JSON that the forced prefix began; JSON of its own, after other words or in a
    code fence; of a list that was cut off at the token limit, the items that are whole.

    Args:
        prefix: The forced beginning of the reply.
        reply: What the model wrote after it; a server that can't be made to continue may have begun anew.
        schema: The JSON that the whole must be.

    Returns:
        At least one question, or none if nothing could be read.
    """
    whole = (prefix + reply).strip()
    own = _FENCE.sub("", reply).strip()
    for value in [_decoded(whole, 0), *(_decoded(own, start) for start in _starts(own))]:
        if questions := _clean(_texts(value, schema)):
            return questions
    for text in (whole, own):
        if questions := _clean(_texts(_whole_items(text), schema)):
            return questions
    return []


def _starts(text: str) -> list[int]:
    """Return where JSON may begin: at the first brackets."""
    return [found.start() for _, found in zip(range(_MOST_STARTS), re.finditer(r"[\[{]", text), strict=False)]


def _decoded(text: str, start: int) -> object:
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):  # a model may well write a thousand brackets
        return None


def _whole_items(text: str) -> list[object]:
    """Return the items of a JSON list up to where it was cut off."""
    decoder, at = json.JSONDecoder(), text.find("[") + 1
    items: list[object] = []
    while 0 < at < len(text):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        items.append(item)
    return items


def _texts(value: object, schema: Schema) -> Iterator[str]:
    if schema == _TEXT and isinstance(value, str):
        yield value
    elif isinstance(schema, list) and isinstance(value, list):
        for item in value:
            yield from _texts(item, schema[0])
    elif isinstance(schema, dict) and isinstance(value, dict):
        for key, inner in schema.items():
            yield from _texts(value.get(key), inner)


def _clean(texts: Iterator[str]) -> list[str]:
    stripped = (text.strip() for text in texts)
    return [text for text in stripped if text and is_unicode(text)]
