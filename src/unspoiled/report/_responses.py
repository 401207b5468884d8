"""The side-by-side answers: what is shown openly, what waits behind a click, what is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

from unspoiled.data import spread_evenly
from unspoiled.evaluate import Outcome
from unspoiled.report._hostile_text import clip, shortened, visible
from unspoiled.report._inputs import ResponseRow

OPEN_VERDICTS = frozenset({"refused", "correct", "incorrect", "answered", "over-refused", "scored"})
"""Verdicts whose text is shown at once; anything else, also an unknown verdict, is hidden behind a click."""

_TEXT_BUDGETS = (3_000, 1_000, 400)
"""The most bytes that a text may take, from what is tried first to what is tried last."""
_NAME_BUDGET = 200
_ROW_MARKUP, _ANSWER_MARKUP, _CUT_MARKUP = 700, 205, 70
"""About how many bytes the page needs around a row, around each answer in it, and to say that a text is cut."""
_EXCERPT = 90
UNSAFE: Final = "unsafe"
"""The set whose prompts stay closed, as its answers do."""


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

    number: int
    set: str
    label: str
    """What stands for the row while it is closed: the harm category, or the beginning of the prompt."""
    prompt: Text
    answers: list[Answer]
    tally: list[tuple[str, int]]
    """How many models have each verdict, the commonest first."""
    key: str
    """The set and the verdicts as numbers of `Browser`, as the page's script reads them: `0|1,1,-,2`."""
    differs: bool


class Browser(NamedTuple):
    """What the page shows of the responses."""

    rows: list[Row]
    total: int
    sets: list[str]
    models: list[str]
    verdicts: list[str]


def side_by_side_rows(by_model: Mapping[str, Sequence[Outcome]]) -> list[ResponseRow]:
    """Return what every model did on each test prompt, as the report shows it.

    Args:
        by_model: By model, its outcomes; on the same prompts in the same order for all.
    """
    columns = zip(*by_model.values(), strict=True)
    return [
        ResponseRow(
            set=row[0].set,
            prompt=row[0].prompt,
            answers={name: (of.response, _verdict(of)) for name, of in zip(by_model, row, strict=True)},
            category=row[0].category,
        )
        for row in columns
    ]


def side_by_side(responses: Sequence[ResponseRow], budget: int) -> Browser:
    """Return all rows if they fit, with the longest texts cut, else as many as fit, spread evenly over all.

    Args:
        responses: All rows.
        budget: How many bytes the rows may take on the page.
    """
    for longest in _TEXT_BUDGETS:
        cut = [_cut(row, longest) for row in responses]
        sizes = [_size(row, texts) for row, texts in zip(responses, cut, strict=True)]
        if sum(sizes) <= budget:
            break
    kept = list(range(len(responses)))
    while kept and sum(sizes[i] for i in kept) > budget:
        fewer = int(0.9 * len(kept))
        kept = spread_evenly(range(len(responses)), fewer)
    rows = [responses[i] for i in kept]
    sets = list(dict.fromkeys(row.set for row in rows))
    models = list(dict.fromkeys(name for row in rows for name in row.answers))
    verdicts = list(dict.fromkeys(verdict for row in rows for _, verdict in row.answers.values()))
    return Browser(
        rows=[_row(i + 1, responses[i], cut[i], sets, models, verdicts) for i in kept],
        total=len(responses),
        sets=[_name(name) for name in sets],
        models=[_name(name) for name in models],
        verdicts=[_name(name) for name in verdicts],
    )


def _cut(row: ResponseRow, longest: int) -> list[Text]:
    """Return the prompt and the answers, none longer than so many bytes."""
    return [Text(*clip(text, longest)) for text in (row.prompt, *(text for text, _ in row.answers.values()))]


def _size(row: ResponseRow, texts: Sequence[Text]) -> int:
    """Return about how many bytes the page needs for a row; rather too many than too few."""
    names = [name for model, (_, verdict) in row.answers.items() for name in (model, verdict, verdict)]
    written = [*(_name(name) for name in names), _name(row.set), *(text.shown for text in texts)]
    markup = _ROW_MARKUP + _ANSWER_MARKUP * len(row.answers) + _CUT_MARKUP * sum(text.omitted > 0 for text in texts)
    return markup + sum(len(escape(text).encode()) for text in written)


def _row(
    number: int,
    row: ResponseRow,
    texts: Sequence[Text],
    sets: Sequence[str],
    models: Sequence[str],
    verdicts: Sequence[str],
) -> Row:
    own = {model: verdict for model, (_, verdict) in row.answers.items()}
    answers = [
        Answer(_name(model), _name(verdict), text, visible(verdict) not in OPEN_VERDICTS)
        for (model, verdict), text in zip(own.items(), texts[1:], strict=True)
    ]
    key = ",".join(str(verdicts.index(own[model])) if model in own else "-" for model in models)
    return Row(
        number=number,
        set=_name(row.set),
        label=shortened((row.category or ("" if row.set == UNSAFE else row.prompt))[: 4 * _EXCERPT], _EXCERPT),
        prompt=texts[0],
        answers=answers,
        tally=[(_name(verdict), count) for verdict, count in Counter(own.values()).most_common()],
        key=f"{sets.index(row.set)}|{key}",
        differs=len(set(own.values())) > 1,
    )


def _name(text: str) -> str:
    return clip(text, _NAME_BUDGET)[0]


def _verdict(outcome: Outcome) -> str:
    """Return the report's word for an outcome; it hides the text of those that it does not know."""
    if outcome.defect is not None:
        return f"invalid ({outcome.defect})"
    if outcome.set == UNSAFE and not outcome.refused:
        if not outcome.safe:
            return "not refused"
        judged = "safe" if all(outcome.safe.values()) else "unsafe"
        return f"not refused, judged {judged}"
    if outcome.set == UNSAFE and not all(outcome.safe.values()):
        return "refused, judged unsafe"
    if outcome.refused is not None:
        return "refused" if outcome.set == UNSAFE else "over-refused" if outcome.refused else "answered"
    if outcome.correct is not None:
        return "correct" if outcome.correct else "incorrect"
    return "scored"
