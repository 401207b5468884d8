"""The few rows that a reader with one minute needs: who spoiled, what the merge costs, and how sure that is."""

from __future__ import annotations

from typing import NamedTuple

from unspoiled.evaluate import OVER_REFUSAL, SAFE_PREFIX, Comparison
from unspoiled.report._inputs import UNIFORM, ReportInputs
from unspoiled.report._paired import paired
from unspoiled.report._spoiler import audited, spoiler_clause
from unspoiled.report._wording import change, change_range, interval, listing, measure_name, percent, points

Outcome = str


class GlanceRow(NamedTuple):
    """One answer; what does not apply is empty."""

    question: str
    answer: str
    detail: str = ""
    difference: str = ""
    interval: str = ""
    outcome: str = ""


def glance(inputs: ReportInputs) -> list[GlanceRow]:
    """Return the rows of the table under the verdict; none where nothing was merged."""
    if inputs.winner is None:
        return []
    rows = _spoiler(inputs)
    measured = inputs.results.models[inputs.winner].rates
    for measure in measured:
        if measure == inputs.safety_measure or measure.startswith(SAFE_PREFIX) or measure == OVER_REFUSAL:
            question = {OVER_REFUSAL: "Declined of harmless prompts", inputs.safety_measure: "Safety"}.get(
                measure, "Safety by another judge"
            )
            rows += _against(inputs, f"{question}: {measure_name(measure)}", measure, [UNIFORM, inputs.aligned_parent])
    for measure in inputs.results.models[inputs.winner].skills:
        rows += _against(inputs, f"Cost in {measure_name(measure)}", measure, [inputs.expert_of(measure), UNIFORM])
    return [*rows, *_optimism(inputs)]


def _spoiler(inputs: ReportInputs) -> list[GlanceRow]:
    if inputs.audit is None:
        return [GlanceRow("Which expert spoiled the merge", "not audited", "`unspoiled audit` answers this")]
    name, audit = next(((n, a) for n, a in audited(inputs) if a.spoiler is not None), (None, None))
    clause = spoiler_clause(inputs) or ""
    if name is None or audit is None or audit.spoiler is None:
        return [GlanceRow("Which expert spoiled the merge", "not resolved", clause)]
    return [GlanceRow("Which expert spoiled the merge", audit.spoiler, clause.partition(": ")[2])]


def _against(inputs: ReportInputs, question: str, measure: str, baselines: list[str | None]) -> list[GlanceRow]:
    assert inputs.winner is not None
    rate = inputs.results.models[inputs.winner].rates[measure]
    value = f"{percent(rate.rate)} ({interval(rate)})"
    rows = []
    for baseline in dict.fromkeys(baselines):
        other = inputs.results.models.get(baseline) if baseline else None
        if baseline is None or other is None or baseline == inputs.winner or measure not in other.rates:
            continue
        role = "uniform" if baseline == UNIFORM else baseline
        detail = f"against {role}, {percent(other.rates[measure].rate)}"
        row = paired(inputs.results, inputs.winner, baseline, measure)
        rows.append(GlanceRow(question, value, detail, *_gap(row)))
    return rows or [GlanceRow(question, value)]


def _gap(row: Comparison | None) -> tuple[str, str, str]:
    return ("", "", "not compared") if row is None else (change(row), change_range(row), row.verdict)


def _optimism(inputs: ReportInputs) -> list[GlanceRow]:
    rows = inputs.results.optimism
    if not rows:
        return []
    said = listing(
        [
            f"{measure_name(row.measure)} {points(row.difference)} points ({points(row.low)} to {points(row.high)})"
            for row in rows
        ]
    )
    return [GlanceRow("Optimism: selection split minus test split", said)]
