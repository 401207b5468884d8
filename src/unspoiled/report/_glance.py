"""The few rows that a reader with one minute needs: who spoiled, what the merge costs, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unspoiled.config import UNIFORM
from unspoiled.evaluate import OVER_REFUSAL, REFUSAL, SAFE_PREFIX, Comparison
from unspoiled.report._inputs import ReportInputs
from unspoiled.report._paired import paired
from unspoiled.report._spoiler import audited, spoiler_clause
from unspoiled.report._wording import (
    change,
    change_range,
    interval,
    listing,
    measure_name,
    percent,
    points,
    points_range,
)


class Gap(NamedTuple):
    """How far the winner is from one other model."""

    other: str
    rate: str
    difference: str
    interval: str
    outcome: str


class GlanceRow(NamedTuple):
    """One answer, and what it is beside."""

    question: str
    answer: str
    detail: str = ""
    """Of a rate its interval; else a clause that explains the answer."""
    gaps: tuple[Gap, ...] = ()


def glance(inputs: ReportInputs) -> list[GlanceRow]:
    """Return the rows of the table under the verdict; none where nothing was merged."""
    if inputs.winner is None:
        return []
    scores = inputs.results.models[inputs.winner]
    rows = [_spoiler(inputs)]
    for measure in scores.rates:
        if measure in (REFUSAL, OVER_REFUSAL) or measure.startswith(SAFE_PREFIX):
            rows.append(_beside(inputs, _question(measure), measure, [UNIFORM, inputs.aligned_parent]))
    for measure in scores.skills:
        question = f"Cost in {measure_name(measure)}"
        rows.append(_beside(inputs, question, measure, [inputs.expert_of(measure), UNIFORM]))
    return [*rows, *_optimism(inputs)]


def _question(measure: str) -> str:
    if measure.startswith(SAFE_PREFIX):
        return f"Called safe by {measure.removeprefix(SAFE_PREFIX)}"
    return "Refusal of unsafe prompts" if measure == REFUSAL else "Over-refusal of harmless ones"


def _spoiler(inputs: ReportInputs) -> GlanceRow:
    question = "Which expert spoiled the merge"
    if inputs.audit is None:
        return GlanceRow(question, "not audited", "unspoiled audit answers this.")
    clause = spoiler_clause(inputs) or ""
    spoilers = [audit.spoiler for _, audit in audited(inputs) if audit.spoiler is not None]
    if not spoilers:
        return GlanceRow(question, "not resolved", clause)
    return GlanceRow(question, spoilers[0], clause.partition(": ")[2])


def _beside(inputs: ReportInputs, question: str, measure: str, baselines: Sequence[str | None]) -> GlanceRow:
    models, winner = inputs.results.models, inputs.winner or ""
    rate = models[winner].rates[measure]
    others = [n for n in dict.fromkeys(baselines) if n in models and n != winner and measure in models[n].rates]
    gaps = [
        Gap(name, percent(models[name].rates[measure].rate), *_gap(paired(inputs.results, winner, name, measure)))
        for name in others
    ]
    return GlanceRow(question, percent(rate.rate), interval(rate), tuple(gaps))


def _gap(row: Comparison | None) -> tuple[str, str, str]:
    return ("", "", "not compared") if row is None else (change(row), change_range(row), row.verdict)


def _optimism(inputs: ReportInputs) -> list[GlanceRow]:
    rows = inputs.results.optimism
    said = [f"{measure_name(r.measure)} {points(r.difference)} points ({points_range(r.low, r.high)})" for r in rows]
    return [GlanceRow("Optimism of the choice", listing(said), "selection split minus test split")] if said else []
