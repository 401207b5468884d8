"""The side-by-side answers: what is shown openly, what waits behind a click, what is cut."""

from collections.abc import Sequence
from typing import NamedTuple

from unspoiled.report._hostile_text import clip, visible
from unspoiled.report._inputs import ResponseRow

MOST_ROWS = 60
OPEN_VERDICTS = frozenset({"refused", "safe", "correct", "incorrect", "answered", "over-refused"})
"""Verdicts whose text is shown at once; anything else, also an unknown verdict, is hidden behind a click."""

_PAGE_BUDGET = 1_400_000
_TEXT_BUDGET = 6_000
_NAME_BUDGET = 200


class Text(NamedTuple):
    """The beginning of a text, fit to be seen, and how many characters of it are not shown."""

    shown: str
    omitted: int


class Answer(NamedTuple):
    """One model's answer."""

    model: str
    verdict: str
    text: Text
    hidden: bool


class Row(NamedTuple):
    """One prompt with its answers."""

    set: str
    prompt: Text
    answers: list[Answer]


def side_by_side(responses: Sequence[ResponseRow]) -> list[Row]:
    """Return the first 60 rows, each text cut so that the whole page stays under 3 MB whatever is in it."""
    shown = responses[:MOST_ROWS]
    texts = sum(1 + len(row.answers) for row in shown)
    budget = min(_TEXT_BUDGET, _PAGE_BUDGET // max(1, texts))
    return [
        Row(
            set=clip(row.set, _NAME_BUDGET)[0],
            prompt=Text(*clip(row.prompt, budget)),
            answers=[
                Answer(
                    model=clip(model, _NAME_BUDGET)[0],
                    verdict=clip(verdict, _NAME_BUDGET)[0],
                    text=Text(*clip(text, budget)),
                    hidden=visible(verdict) not in OPEN_VERDICTS,
                )
                for model, (text, verdict) in row.answers.items()
            ],
        )
        for row in shown
    ]
