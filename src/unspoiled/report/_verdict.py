"""The three sentences at the top of the page, computed from the results and from nothing else.

They report measured rates. None of them calls a model safe.
"""

from collections.abc import Sequence

from unspoiled.evaluate import OVER_REFUSAL, REFUSAL, SAFE_PREFIX, Comparison, Rate
from unspoiled.report._inputs import ReportInputs
from unspoiled.report._wording import interval, listing, measure_name, percent, points

UNIFORM = "uniform"
"""The name of the data-free merge with equal weights, in `results.json`."""


def verdict(inputs: ReportInputs) -> list[str]:
    """Return three sentences: what was merged and measured, how it compares, what was not tested."""
    not_tested = f"Not tested: {listing([*inputs.not_tested])}."
    return [_what_was_measured(inputs), _how_it_compares(inputs), not_tested]


def guard_note(inputs: ReportInputs) -> str | None:
    """Return a warning when the guard that judged these answers also filtered the search data, else None."""
    guard = inputs.results.provenance.get("guard")
    if guard is None or guard != inputs.results.provenance.get("search_guard"):
        return None
    return (
        f"The guard that judged these answers ({guard}) is also the one that filtered the search data: "
        "what it fails to see was neither searched for nor measured."
    )


def _what_was_measured(inputs: ReportInputs) -> str:
    scores = inputs.results.models[inputs.winner]
    merged = f", a merge of {listing([_quoted(name) for name in inputs.experts])}," if inputs.experts else ""
    guard = inputs.results.provenance.get("guard")
    judge = f" (judged by {guard})" if guard else ""
    accuracy = [f"{_rate(rate)} in {name}" for name, rate in scores.domains.items()]
    skills = f"; its accuracy is {listing(accuracy)}" if accuracy else ""
    refusal, over_refusal = scores.rates[REFUSAL], scores.rates[OVER_REFUSAL]
    guards = [
        f"{name.removeprefix(SAFE_PREFIX)} calls {_rate(rate)} of its responses to them safe"
        for name, rate in scores.rates.items()
        if name.startswith(SAFE_PREFIX)
    ]
    called_safe = f"; the guard {listing(guards)}" if guards else ""
    return (
        f"{_quoted(inputs.winner)}{merged} declined {percent(refusal.rate)} (95% interval "
        f"{interval(refusal)}) of {refusal.n} unsafe test prompts and {_rate(over_refusal)} of "
        f"{over_refusal.n} harmless ones{judge}{called_safe}{skills}."
    )


def _how_it_compares(inputs: ReportInputs) -> str:
    clauses, parent = [], inputs.aligned_parent
    for baseline, role in (
        (UNIFORM, "the uniform merge"),
        (parent, f"its aligned parent {_quoted(parent or '')}"),
    ):
        if baseline is None or baseline == inputs.winner or baseline not in inputs.results.models:
            continue
        pair = (inputs.winner, baseline)
        made = [row for row in inputs.results.comparisons if (row.model, row.baseline) == pair]
        if made:
            clauses.append(f"against {role} {_grouped(made)}")
        else:
            clauses.append(f"it was not compared with {role}")
    if not clauses:
        return "It was compared with no other model."
    return "Prompt by prompt, " + "; ".join(clauses) + "."


def _grouped(comparisons: Sequence[Comparison]) -> str:
    phrases = {
        "better": "it is better on",
        "worse": "it is worse on",
        "not resolved": "the gap is not resolved on",
    }
    groups = []
    for outcome, phrase in phrases.items():
        members = [
            f"{measure_name(row.measure)} ({points(row.difference)} points)"
            for row in comparisons
            if row.verdict == outcome
        ]
        if members:
            groups.append(f"{phrase} {listing(members)}")
    return listing(groups)


def _rate(rate: Rate) -> str:
    return f"{percent(rate.rate)} ({interval(rate)})"


def _quoted(name: str) -> str:
    return f"“{name}”"
