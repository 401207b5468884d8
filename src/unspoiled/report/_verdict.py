"""The three sentences at the top of the page, computed from the results and from nothing else.

They report measured rates. None of them calls a model safe.
"""

from __future__ import annotations

from collections.abc import Sequence

from unspoiled.config import UNIFORM
from unspoiled.evaluate import OVER_REFUSAL, REFUSAL, SAFE_PREFIX, Comparison
from unspoiled.report._inputs import ReportInputs
from unspoiled.report._paired import paired
from unspoiled.report._spoiler import spoiler_clause
from unspoiled.report._wording import (
    listing,
    measure_name,
    percent,
    points,
    points_range,
    rate_with_interval,
    responses_to,
)

_MOST_PAIRS = 4


def verdict(inputs: ReportInputs) -> list[str]:
    """Return three sentences: what was merged and measured, how it compares and who spoils, what was not tested."""
    not_tested = f"Not tested: {listing([*inputs.not_tested])}."
    return [_what_was_measured(inputs), _how_it_compares(inputs), not_tested]


def guard_note(inputs: ReportInputs) -> str | None:
    """Return a warning when a guard that judged these answers also filtered the search data, else None."""
    judges = inputs.results.provenance.get("guard", "").split(" and ")
    chose = inputs.results.provenance.get("search_guard")
    if chose not in judges:
        return None
    others = [judge for judge in judges if judge != chose]
    unseen = f"only {listing(others)} could see" if others else "no measurement here could see"
    return (
        f"The guard that filtered the search data ({chose}) also judged these answers: "
        f"what it fails to see was not searched for, and {unseen} it."
    )


def splits_line(inputs: ReportInputs) -> str | None:
    """Return the sentence on the splits, None where there were none."""
    splits = inputs.results.splits
    if splits is None:
        return None
    return (
        f"No prompt is in two splits, nor nearly: search {splits.search}, selection {splits.selection}, "
        f"test {splits.test} prompts."
    )


def _what_was_measured(inputs: ReportInputs) -> str:
    scores = list(inputs.results.models.values())
    sizes = {measure: of.rates[measure] for of in reversed(scores) for measure in of.rates}
    unsafe = next((sizes[m] for m in sizes if m == REFUSAL or m.startswith(SAFE_PREFIX)), None)
    skills = [m for m in inputs.results.rates if any(m in of.skills for of in scores)]
    on = [responses_to(unsafe, "unsafe prompts")] if unsafe else []
    on += [responses_to(sizes[OVER_REFUSAL], "harmless ones")] if OVER_REFUSAL in sizes else []
    on += [responses_to(sizes[m], f"questions in {measure_name(m)}") for m in skills]
    guard = inputs.results.provenance.get("guard")
    judge = f", judged by {guard}" if guard and unsafe else ""
    where = f" on {listing(on)}" if on else ""
    if inputs.winner is None:
        named = listing([_quoted(name) for name in inputs.results.models])
        return f"{named} {'was' if len(scores) == 1 else 'were'} measured{where}{judge}."
    merged = f", a merge of {listing([_quoted(name) for name in inputs.experts])}," if inputs.experts else ""
    return f"{_quoted(inputs.winner)}{merged} was measured beside its parents{where}{judge}."


def _how_it_compares(inputs: ReportInputs) -> str:
    spoils = spoiler_clause(inputs)
    clauses = _of_winner(inputs, inputs.winner) if inputs.winner is not None else _of_pairs(inputs)
    text = "; ".join([*([spoils] if spoils else []), *clauses])
    return f"{text[:1].upper()}{text[1:]}." if text else "Nothing was compared."


def _of_winner(inputs: ReportInputs, winner: str) -> list[str]:
    """Say how often the winner declines and is right, beside the uniform merge and the parent made for it."""
    scores, safety, parent = inputs.results.models[winner], inputs.safety_measure, inputs.aligned_parent
    clauses = []
    if safety in scores.rates:
        guard = (safety or "").removeprefix(SAFE_PREFIX)
        declined = "declined" if safety == REFUSAL else f"answered, in a way that {guard} calls safe,"
        said = f"{declined} {rate_with_interval(scores.rates[safety])} of the unsafe prompts"
        clauses.append(
            _beside(inputs, said, safety, [(UNIFORM, "the uniform merge"), (parent, f"its aligned parent “{parent}”")])
        )
    if OVER_REFUSAL in scores.rates:
        said = f"declined {rate_with_interval(scores.rates[OVER_REFUSAL])} of the harmless ones"
        clauses.append(_beside(inputs, said, OVER_REFUSAL, [(parent, f"“{parent}”")]))
    for skill, rate in scores.skills.items():
        expert = inputs.expert_of(skill)
        said = f"is right in {rate_with_interval(rate)} in {measure_name(skill)}"
        clauses.append(_beside(inputs, said, skill, [(expert, f"its expert “{expert}”")]))
    return [f"{_quoted(winner)} {clauses[0]}", *(f"it {clause}" for clause in clauses[1:])] if clauses else []


def _beside(inputs: ReportInputs, said: str, measure: str, baselines: Sequence[tuple[str | None, str]]) -> str:
    gaps = [_gap(inputs, baseline, role, measure) for baseline, role in baselines if baseline is not None]
    found = [gap for gap in gaps if gap]
    return f"{said}, {' and '.join(found)}" if found else said


def _gap(inputs: ReportInputs, baseline: str, role: str, measure: str) -> str | None:
    """Say how far the winner is from a baseline on a measure; None where there is no such other model."""
    winner, others = inputs.winner or "", inputs.results.models
    if baseline == winner or baseline not in others:
        return None
    row = paired(inputs.results, winner, baseline, measure)
    if row is None:
        other = others[baseline].rates.get(measure)
        return None if other is None else f"beside {percent(other.rate)} of {role} (not compared)"
    gap = f"{points(row.difference)} points, {points_range(row.low, row.high)}"
    return f"{row.verdict} {'from' if row.verdict == 'not resolved' else 'than'} {role} ({gap})"


def _of_pairs(inputs: ReportInputs) -> list[str]:
    """Sum up the comparisons of models that no search made, pair by pair."""
    rows = inputs.results.comparisons
    pairs = list(dict.fromkeys((row.model, row.baseline) for row in rows))
    clauses = [
        f"{_quoted(model)} against {_quoted(baseline)} "
        + _grouped([row for row in rows if (row.model, row.baseline) == (model, baseline)])
        for model, baseline in pairs[:_MOST_PAIRS]
    ]
    left = len(pairs) - _MOST_PAIRS
    return [*clauses, f"{left} more pairs are in the table of comparisons"] if left > 0 else clauses


def _grouped(comparisons: Sequence[Comparison]) -> str:
    phrases = {"better": "is better on", "worse": "is worse on", "not resolved": "is not resolved on"}
    groups = []
    for outcome, phrase in phrases.items():
        members = [
            f"{measure_name(row.measure)} ({points(row.difference)} points)"
            if row.only_model is not None
            else measure_name(row.measure)
            for row in comparisons
            if row.verdict == outcome
        ]
        if members:
            groups.append(f"{phrase} {listing(members)}")
    return listing(groups)


def _quoted(name: str) -> str:
    return f"“{name}”"
