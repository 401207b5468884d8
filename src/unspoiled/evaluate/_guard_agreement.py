"""How often a guard agrees with people's labels: the numbers to have before a guard's numbers are believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unspoiled.errors import DataError
from unspoiled.evaluate._results import Count, Rate, Record, Share
from unspoiled.files import read_jsonl
from unspoiled.guards import Verdict

Target = Literal["unsafe", "refusal"]


@dataclass(frozen=True)
class LabelledRow:
    """A pair with what people say of it.

    Args:
        prompt: The user's message.
        response: The response.
        unsafe: Whether the response is unsafe; None if nobody said.
        refusal: Whether it declines; None if nobody said.
        category: Its group, of whatever taxonomy; empty if it has none.
    """

    prompt: str
    response: str
    unsafe: bool | None = None
    refusal: bool | None = None
    category: str = ""

    def says(self, target: Target) -> bool | None:
        """Return the label for a target."""
        return self.unsafe if target == "unsafe" else self.refusal


class Agreement(Record):
    """A guard against labels of one kind; a rate of nothing is None."""

    labelled: Count
    """Rows with such a label."""
    positive: Count
    """Rows whose label is `unsafe`, or a refusal."""
    precision: Rate | None
    """Of the rows that the guard calls positive, those that are."""
    recall: Rate | None
    """Of the positive rows, those that the guard calls so."""
    false_positives: Rate | None
    """Of the other rows, those that the guard calls positive."""
    accuracy: Rate
    """Rows on which guard and label agree."""
    auroc: Share | None
    """How often a positive row has a higher p_unsafe than another one; None without probabilities or for refusals."""
    by_category: dict[str, Rate]
    """The accuracy in each category."""


class GuardAgreement(Record):
    """All that `unspoiled guards test` measures."""

    guard: str
    fingerprint: str
    rows: Count
    unreadable: Rate
    """Verdicts that couldn't be read; each counts as unsafe."""
    cut: Count
    """Rows that didn't fit the guard and were cut in the middle."""
    agreement: dict[Target, Agreement]


def read_labelled(path: Path) -> list[LabelledRow]:
    """Read rows with `prompt`, `response` and a `label` (safe or unsafe) or a `refusal` (true or false), or both.

    Raises:
        DataError: A row is not such a row; the message names the line.
    """
    rows = read_jsonl(path)
    if not rows:
        raise DataError(f"{path}: the file has no rows. Give it one JSON object a line with a prompt and a response.")
    return [_labelled_row(f"{path}:{number}", row) for number, row in enumerate(rows, start=1)]


def _labelled_row(where: str, row: dict[str, Any]) -> LabelledRow:
    for key in ("prompt", "response"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: {key!r} is {row.get(key)!r}: give a text.")
        if any("\ud800" <= character <= "\udfff" for character in row[key]):
            raise DataError(f"{where}: {key!r} holds half a character: correct its \\u escape.")
    label, refusal, category = row.get("label"), row.get("refusal"), row.get("category", "")
    if label not in ("safe", "unsafe", None):
        raise DataError(f"{where}: 'label' is {label!r}: it is 'safe' or 'unsafe'.")
    if not isinstance(refusal, bool | None):
        raise DataError(f"{where}: 'refusal' is {refusal!r}: it is true or false.")
    if label is None and refusal is None:
        raise DataError(f"{where}: no label. Give it a 'label' (safe or unsafe) or a 'refusal' (true or false).")
    if not isinstance(category, str):
        raise DataError(f"{where}: 'category' is {category!r}: give a name.")
    return LabelledRow(row["prompt"], row["response"], None if label is None else label == "unsafe", refusal, category)


def guard_agreement(
    rows: Sequence[LabelledRow], verdicts: Sequence[Verdict], *, fingerprint: str, cut: int = 0
) -> GuardAgreement:
    """Compare a guard's verdicts with labels.

    A verdict is taken as a run takes it: what is unreadable, and a response that is none, is unsafe.

    Args:
        rows: At least one.
        verdicts: The guard's, in the rows' order.
        fingerprint: The guard's.
        cut: How many rows were cut to fit.
    """
    found: dict[Target, Agreement] = {}
    for target in ("unsafe", "refusal"):
        labelled = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if row.says(target) is not None]
        if labelled:
            found[target] = _agreement(labelled, target)
    return GuardAgreement(
        guard=verdicts[0].guard,
        fingerprint=fingerprint,
        rows=len(rows),
        unreadable=Rate.of([not verdict.parse_ok for verdict in verdicts]),
        cut=cut,
        agreement=found,
    )


def _agreement(labelled: Sequence[tuple[LabelledRow, Verdict]], target: Target) -> Agreement:
    truth = [bool(row.says(target)) for row, _ in labelled]
    called = [verdict.label == "unsafe" if target == "unsafe" else verdict.refusal for _, verdict in labelled]
    right = [said == true for said, true in zip(called, truth, strict=True)]
    categories = sorted({row.category for row, _ in labelled} - {""})
    return Agreement(
        labelled=len(labelled),
        positive=sum(truth),
        precision=_rate([true for true, said in zip(truth, called, strict=True) if said]),
        recall=_rate([said for true, said in zip(truth, called, strict=True) if true]),
        false_positives=_rate([said for true, said in zip(truth, called, strict=True) if not true]),
        accuracy=Rate.of(right),
        auroc=_auroc_of(labelled, truth) if target == "unsafe" else None,
        by_category={
            name: Rate.of([ok for ok, (row, _) in zip(right, labelled, strict=True) if row.category == name])
            for name in categories
        },
    )


def _rate(outcomes: Sequence[bool]) -> Rate | None:
    return Rate.of(outcomes) if outcomes else None


def _auroc_of(labelled: Sequence[tuple[LabelledRow, Verdict]], truth: Sequence[bool]) -> float | None:
    scored = [
        (verdict.p_unsafe, true)
        for (_, verdict), true in zip(labelled, truth, strict=True)
        if verdict.p_unsafe is not None
    ]
    return auroc([score for score, true in scored if true], [score for score, true in scored if not true])


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Return the area under the ROC curve: P(positive > negative) + P(equal) / 2; None if either is empty.

    Args:
        positive: The scores of positive rows.
        negative: Those of the others.

    Source: Hanley and McNeil, Radiology 143 (1982) 29-36: the Mann-Whitney statistic by ranks.
    """
    if not positive or not negative:
        return None
    ordered = sorted([*positive, *negative])
    ranks: dict[float, float] = {}  # of equal scores the mean of theirs, from 1
    start = 0
    while start < len(ordered):
        stop = start
        while stop < len(ordered) and ordered[stop] == ordered[start]:
            stop += 1
        ranks[ordered[start]] = (start + 1 + stop) / 2
        start = stop
    above = sum(ranks[score] for score in positive) - len(positive) * (len(positive) + 1) / 2
    return above / (len(positive) * len(negative))
