"""Models compared prompt by prompt, by tests that hold over the whole family of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unspoiled.evaluate._bootstrap import bootstrap
from unspoiled.evaluate._clustered import effective_size, family_sums, sign_flip, smallest_resolvable_sum
from unspoiled.evaluate._measures import higher_is_better
from unspoiled.evaluate._results import Comparison, Verdict
from unspoiled.evaluate._statistics import holm, holm_level, mcnemar, paired_interval, smallest_resolvable_difference

ALPHA = 0.05
"""The error rate of a whole family of comparisons."""


@dataclass(frozen=True)
class Observed:
    """What one model did on the prompts of one measure.

    Args:
        values: One value per response: truth values of a rate, or finite numbers that a mean is taken of.
        families: The family of each response's prompt. Responses to the prompts of one family (paraphrases, or samples
            of one prompt) are not independent of each other; families are.

    Raises:
        ValueError: There is no value, or not one family for each.
    """

    values: Sequence[bool] | Sequence[float]
    families: Sequence[str]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("no values: a comparison needs at least one prompt")
        if len(self.values) != len(self.families):
            raise ValueError(f"{len(self.values)} values and {len(self.families)} families: give one for each.")

    @property
    def is_rate(self) -> bool:
        """Whether the values are truth values."""
        return all(isinstance(value, bool) for value in self.values)

    @property
    def truths(self) -> Sequence[bool]:
        """The values of a rate."""
        return [bool(value) for value in self.values]

    @property
    def independent(self) -> bool:
        """Whether every family has one response."""
        return len(set(self.families)) == len(self.families)


def compare(observed: Mapping[str, Mapping[str, Observed]], pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
    """Compare models prompt by prompt, with Holm over every comparison made here.

    Rates of independent prompts are compared by exact McNemar; rates with several responses to a family by the exact
    sign-flip test of the families' differences; means by the paired bootstrap over families.

    Args:
        observed: By model, then by measure, over the same responses in the same order for all models.
        pairs: Which model against which baseline. The family is all pairs times all measures that both have, so name
            every pair that the reader will see, and no other.

    Returns:
        One comparison per pair and measure, in the order of `pairs`, then of the model's measures.

    Raises:
        ValueError: A model is missing, a measure unknown, or two models differ in their prompts or measures.
    """
    rows = [row for model, baseline in pairs for row in _paired(observed, model, baseline)]
    tested = [_test_of_rates(row) if row.model_saw.is_rate else _test_of_means(row) for row in rows]
    p_values = [test.p_value for test in tested]
    adjusted = holm(p_values)
    comparisons = []
    for index, (row, test) in enumerate(zip(rows, tested, strict=True)):
        verdict: Verdict = "not resolved"
        if adjusted[index] <= ALPHA:
            verdict = "better" if (test.difference > 0) == higher_is_better(row.measure) else "worse"
        comparisons.append(
            Comparison(
                model=row.model,
                baseline=row.baseline,
                measure=row.measure,
                test=test.name,
                difference=test.difference,
                low=test.low,
                high=test.high,
                only_model=test.only_model,
                only_baseline=test.only_baseline,
                p_value=adjusted[index],
                verdict=verdict,
                resolvable=test.resolvable(holm_level(p_values, index, ALPHA)),
            )
        )
    return comparisons


@dataclass(frozen=True)
class _Pair:
    """Two models on one measure."""

    model: str
    baseline: str
    measure: str
    model_saw: Observed
    baseline_saw: Observed


@dataclass(frozen=True)
class _Tested:
    """One comparison before it is set among the others; `resolvable` takes the level that Holm leaves it."""

    name: Literal["McNemar", "sign flip", "bootstrap"]
    difference: float
    low: float
    high: float
    p_value: float
    resolvable: Callable[[float], float | None]
    only_model: int | None = None
    only_baseline: int | None = None


def _test_of_rates(row: _Pair) -> _Tested:
    families = row.model_saw.families
    pairs = list(zip(row.model_saw.truths, row.baseline_saw.truths, strict=True))
    n = len(pairs)
    only_model, only_baseline = pairs.count((True, False)), pairs.count((False, True))
    counts = pairs.count((True, True)), only_model, only_baseline, pairs.count((False, False))
    if row.model_saw.independent:
        low, high = paired_interval(*counts)
        discordant = (only_model + only_baseline) / n
        return _Tested(
            "McNemar",
            (only_model - only_baseline) / n,
            low,
            high,
            mcnemar(only_model, only_baseline),
            lambda level: smallest_resolvable_difference(n, discordant, alpha=level),
            only_model,
            only_baseline,
        )
    differences = [int(a) - int(b) for a, b in pairs]
    sums = [int(d) for d in family_sums(differences, families)[0]]
    low, high = paired_interval(*counts, effective=effective_size(differences, families))

    def resolvable(level: float) -> float | None:
        smallest = smallest_resolvable_sum(sums, level)
        return None if smallest is None else smallest / n

    return _Tested(
        "sign flip",
        (only_model - only_baseline) / n,
        low,
        high,
        sign_flip(sums),
        resolvable,
        only_model,
        only_baseline,
    )


def _test_of_means(row: _Pair) -> _Tested:
    differences = [a - b for a, b in zip(row.model_saw.values, row.baseline_saw.values, strict=True)]
    found = bootstrap(differences, row.model_saw.families)
    return _Tested("bootstrap", found.mean, *found.interval(), found.p_value, found.resolvable)


def _paired(observed: Mapping[str, Mapping[str, Observed]], model: str, baseline: str) -> list[_Pair]:
    for name in (model, baseline):
        if name not in observed:
            raise ValueError(f"no outcomes for model {name!r}; there are {', '.join(map(repr, observed))}")
    if set(observed[model]) != set(observed[baseline]):
        only_one = sorted(set(observed[model]) ^ set(observed[baseline]))
        raise ValueError(f"{model!r} and {baseline!r} were not measured alike; only one of them has {only_one}")
    rows = []
    for measure, of_model in observed[model].items():
        higher_is_better(measure)
        of_baseline = observed[baseline][measure]
        if list(of_model.families) != list(of_baseline.families):
            raise ValueError(
                f"{measure}: {model!r} has {len(of_model.values)} outcomes and {baseline!r} has "
                f"{len(of_baseline.values)}; a paired comparison needs the same prompts for both, in the same order"
            )
        if of_model.is_rate != of_baseline.is_rate:
            raise ValueError(f"{measure}: {model!r} and {baseline!r} have truth values in one and numbers in the other")
        rows.append(_Pair(model, baseline, measure, of_model, of_baseline))
    return rows
