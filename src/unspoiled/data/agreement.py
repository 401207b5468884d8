"""Whether two answers say the same."""

from __future__ import annotations

import math
import re

_SHORT = 8  # words
_UNSIGNED = r"(?:\d+(?:\.\d+)?|(?<!\d)\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"(?<![\w.])-?{_UNSIGNED}|{_UNSIGNED}")
_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f](?=\d{3}\b)")
_MINUS = str.maketrans("\u2212", "-")


def is_correct(answer: str, expected: str) -> bool:
    """Say whether an answer is the expected one, but for case, white space and a closing full stop."""
    return _plain(answer) == _plain(expected)


def has_number(text: str) -> bool:
    """Say whether a text holds a number."""
    return _last_number(text) is not None


def is_same_number(answer: str, expected: str) -> bool:
    """Say whether the last number of an answer is the last one of the expected: of a worked solution, the result.

    `1,234.50` is 1234.5, `.5` is 0.5, `1e5` is 100000; a minus may be a hyphen or U+2212. Numbers that differ by a
    millionth of the expected are the same.
    """
    found, wanted = _last_number(answer), _last_number(expected)
    if found is None or wanted is None:
        return False
    return math.isclose(found, wanted, rel_tol=1e-6, abs_tol=1e-9)


def agrees(answer: str, model_answer: str) -> bool:
    """Say whether an answer is another model's: the same text, or after a worked solution the same last number.

    A solution is worked if it has more than eight words; shorter answers with a number, such as equations, must be the
    same text.
    """
    if is_correct(answer, model_answer):
        return True
    if len(model_answer.split()) <= _SHORT:
        return False
    return is_same_number(answer, model_answer)


def _last_number(text: str) -> float | None:
    numbers = _NUMBER.findall(_THOUSANDS.sub("", text.translate(_MINUS)))
    return float(numbers[-1]) if numbers else None


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().removesuffix(".").strip().lower()
