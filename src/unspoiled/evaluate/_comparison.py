"""Models compared prompt by prompt, by tests that hold over the whole family of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspoiled.evaluate._measures import higher_is_better
from unspoiled.evaluate._results import Comparison, Verdict
from unspoiled.evaluate._statistics import holm, holm_level, mcnemar, smallest_resolvable_difference

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
    p_values = [mcnemar(row.only_model, row.only_baseline) for row in rows]
    adjusted = holm(p_values)
    comparisons = []
    for index, row in enumerate(rows):
        gain = row.only_model - row.only_baseline
        verdict: Verdict = "not resolved"
        if adjusted[index] <= ALPHA:
            verdict = "better" if (gain > 0) == higher_is_better(row.measure) else "worse"
        discordant = row.only_model + row.only_baseline
        level = holm_level(p_values, index, ALPHA)
        half = 1.96 * (discordant - gain**2 / row.n) ** 0.5 / row.n
        comparisons.append(
            Comparison(
                model=row.model,
                baseline=row.baseline,
                measure=row.measure,
                test="McNemar",
                difference=gain / row.n,
                low=gain / row.n - half,
                high=gain / row.n + half,
                only_model=row.only_model,
                only_baseline=row.only_baseline,
                p_value=adjusted[index],
                verdict=verdict,
                resolvable=smallest_resolvable_difference(row.n, discordant / row.n, alpha=level),
            )
        )
    return comparisons


@dataclass(frozen=True)
class _Pair:
    model: str
    baseline: str
    measure: str
    n: int
    only_model: int
    only_baseline: int


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
        pairs = list(zip(of_model.values, of_baseline.values, strict=True))
        only_model = sum(bool(a) and not b for a, b in pairs)
        rows.append(_Pair(model, baseline, measure, len(pairs), only_model, sum(bool(b) and not a for a, b in pairs)))
    return rows
