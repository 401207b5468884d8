"""The few rows that a reader with one minute needs: who spoiled, what the merge costs, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unspoiled.config import UNIFORM
from unspoiled.evaluate import OVER_REFUSAL, REFUSAL, SAFE_PREFIX, Comparison
from unspoiled.report._inputs import ReportInputs
from unspoiled.report._paired import paired
from unspoiled.report._spoiler import audited, without_spoiler
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
    """Of a rate its interval, of a cost the accuracy that is left; else a clause that explains the answer."""
    gaps: tuple[Gap, ...] = ()


def glance(inputs: ReportInputs) -> list[GlanceRow]:
    """Return the rows of the table under the verdict; none where nothing was merged."""
    if inputs.winner is None:
        return []
    scores = inputs.results.models[inputs.winner]
    rows = _spoilers(inputs)
    for measure, rate in scores.rates.items():
        if measure in (REFUSAL, OVER_REFUSAL) or measure.startswith(SAFE_PREFIX):
            gaps = _gaps(inputs, measure, [UNIFORM, inputs.aligned_parent])
            rows.append(GlanceRow(_question(measure), percent(rate.rate), interval(rate), gaps))
    return [*rows, *(_cost(inputs, skill) for skill in scores.skills), *_optimism(inputs)]


def _question(measure: str) -> str:
    if measure.startswith(SAFE_PREFIX):
        return f"Called safe by {measure.removeprefix(SAFE_PREFIX)}"
    return "Refusal of unsafe prompts" if measure == REFUSAL else "Over-refusal of harmless ones"


def _spoilers(inputs: ReportInputs) -> list[GlanceRow]:
    """Return a row for each audited merge: what spoils the uniform one need not spoil the chosen one."""
    merges = audited(inputs)
    if not merges:
        return [GlanceRow("Which expert spoiled the merge", "not audited", "unspoiled audit answers this.")]
    return [
        GlanceRow(
            f"Which expert spoiled {_merge(inputs, name)}",
            audit.spoiler or "not resolved",
            without_spoiler(audit),
        )
        for name, audit in merges
    ]


def _merge(inputs: ReportInputs, name: str) -> str:
    if name == inputs.winner:
        return f"the chosen merge, “{name}”"
    return "the uniform merge" if name == UNIFORM else f"“{name}”"


def _cost(inputs: ReportInputs, skill: str) -> GlanceRow:
    """Return what the winner loses in a domain or task: the answer is its gap to the expert, not its own accuracy."""
    expert, own = inputs.expert_of(skill), inputs.results.models[inputs.winner or ""].rates[skill]
    gaps = _gaps(inputs, skill, [expert, UNIFORM])
    lost = next((gap.difference for gap in gaps if gap.other == expert), "")
    return GlanceRow(
        f"Cost in {measure_name(skill)}, against its expert",
        lost or "not compared",
        f"accuracy {percent(own.rate)}, {interval(own)}",
        gaps,
    )


def _gaps(inputs: ReportInputs, measure: str, baselines: Sequence[str | None]) -> tuple[Gap, ...]:
    models, winner = inputs.results.models, inputs.winner or ""
    others = [n for n in dict.fromkeys(baselines) if n in models and n != winner and measure in models[n].rates]
    return tuple(
        Gap(name, percent(models[name].rates[measure].rate), *_gap(paired(inputs.results, winner, name, measure)))
        for name in others
    )


def _gap(row: Comparison | None) -> tuple[str, str, str]:
    return ("", "", "not compared") if row is None else (change(row), change_range(row), row.verdict)


def _optimism(inputs: ReportInputs) -> list[GlanceRow]:
    rows = inputs.results.optimism
    said = [f"{measure_name(r.measure)} {points(r.difference)} points ({points_range(r.low, r.high)})" for r in rows]
    return [GlanceRow("Optimism of the choice", listing(said), "selection split minus test split")] if said else []
