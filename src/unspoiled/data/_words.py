"""Texts brought to one form, so that two which differ in spelling alone compare as the same."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]")
_INDIC_AND_THAI = "\u0900-\u0fff\u1000-\u109f\u1780-\u17ff"
_MARKS = rf"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670{_INDIC_AND_THAI}"  # accents and vowel signs: not in \w
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OPERATOR = r"(?<=[\d\s)])[-+*/^=<>×÷−](?=[\d\s(])"  # between numbers, not inside words
_WORDS = re.compile(rf"[\w{_MARKS}]+")
_OPERATORS = re.compile(_OPERATOR)
_TOKENS = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[\w{_MARKS}])+|{_OPERATOR}")


class NormalForm(NamedTuple):
    """What is compared of a prompt: `numbers` (with the operators, sorted) must be the same, `text` similar."""

    numbers: tuple[str, ...]
    text: str


def normal_form(prompt: str) -> NormalForm:
    """Return a prompt's numbers and operators, and its words in lower case (all of it, if it has none).

    Letters that only look different to a computer become the same (Unicode's NFKC and case folding), and characters
    that nobody sees go: a zero-width space inside a word makes no new prompt.
    """
    plain = _folded(prompt)
    words = _WORDS.findall(plain)
    numbers = [word for word in words if any(character.isdigit() for character in word)]
    return NormalForm(tuple(sorted(numbers + _OPERATORS.findall(plain))), " ".join(words) or plain)


def words_of(text: str) -> list[str]:
    """Return a text's words in lower case, with the operators between numbers.

    A character of a script that is written without spaces (Chinese, Japanese, Thai, ...) counts as a word, so that
    runs of words exist in it too.
    """
    return _TOKENS.findall(_folded(text))


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return " ".join(folded.split())
