"""Whether two answers say the same."""

from __future__ import annotations

import re

_SHORT = 8  # words
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def is_correct(answer: str, expected: str) -> bool:
    """Say whether an answer is the expected one, but for case, white space and a closing full stop."""
    return _plain(answer) == _plain(expected)


def agrees(answer: str, model_answer: str) -> bool:
    """Say whether an answer is another model's: the same text, or after a worked solution the same last number.

    A solution is worked if it has more than eight words; shorter answers with a number, such as equations, must be the
    same text.
    """
    if is_correct(answer, model_answer):
        return True
    if len(model_answer.split()) <= _SHORT:
        return False
    numbers = [_NUMBER.findall(text.replace(",", "")) for text in (answer, model_answer)]
    return all(numbers) and float(numbers[0][-1]) == float(numbers[1][-1])


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().removesuffix(".").strip().lower()
