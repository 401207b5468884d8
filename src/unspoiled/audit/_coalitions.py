"""Who does what to a merge: each expert left out, halved, and over all coalitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unspoiled.audit._coalition_recipes import coalition, has_weights, weighted
from unspoiled.audit._losses import SAFETY, MergeLosses, RowLosses, mean_losses
from unspoiled.audit._record import Change, MergeAudit, ShapleyValue, Term
from unspoiled.audit._shapley import MOST_EXACT, shapley
from unspoiled.config import Recipe
from unspoiled.errors import ConfigError
from unspoiled.evaluate import ALPHA, LOSS_PREFIX, Mean, Observed, Rate, compare
from unspoiled.merging import Models

Layered = Mapping[str, list[float]]


@dataclass(frozen=True)
class Attribution:
    """How much each expert's weights add to CE_safety, layer by layer, on the way from the base to the merge.

    Args:
        layers: The layers.
        values: By expert, nats for each layer; empty where the method has no such way.
    """

    layers: list[str]
    values: dict[str, list[float]]


class Coalitions:
    """The merges of some of a recipe's experts, scored.

    Args:
        losses: Scores recipes.
        recipe: The whole merge.
        experts: The model strings of its experts by name.
        base: The base's model string.
        models: The opened models that the recipe names.
    """

    def __init__(
        self, losses: MergeLosses, recipe: Recipe, experts: Mapping[str, str], base: str, models: Models
    ) -> None:
        self.experts = experts
        self.scored = 0
        """How many coalitions were asked for so far."""
        self._losses, self._recipe, self._base, self._models = losses, recipe, base, models
        self._found: dict[frozenset[str], RowLosses] = {}
        self.told: Callable[[int], None] = lambda scored: None

    def losses(self, members: frozenset[str]) -> RowLosses:
        """Return the row losses of the merge of those experts.

        Raises:
            ConfigError: The method refuses the whole merge, or merges more models than are left.
            SearchError: A loss isn't finite.
        """
        if members not in self._found:
            left = [self.experts[name] for name in members]
            self._found[members] = self._losses.of(coalition(self._recipe, left, base=self._base, models=self._models))
            self.scored += 1
            self.told(self.scored)
        return self._found[members]

    def means(self, members: frozenset[str]) -> dict[str, float]:
        """Return the mean of each term: the game whose Shapley values are wanted."""
        return mean_losses(self.losses(members))

    def halved(self, name: str) -> RowLosses | None:
        """Return the row losses of the whole merge with one expert's weight halved.

        None where the method has no weights, refuses these, or starts from the expert.
        """
        model = self.experts[name]
        if not has_weights(self._recipe) or model not in {entry.model for entry in self._recipe.models}:
            return None
        try:
            return self._losses.of(weighted(self._recipe, {model: 0.5}))
        except ConfigError:
            return None


def audit_merge(
    coalitions: Coalitions,
    *,
    orders: int,
    seed: int = 0,
    attribution: Attribution,
    refusal: Rate,
    refusal_without: Mapping[str, Rate],
    most_exact: int = MOST_EXACT,
) -> MergeAudit:
    """Return who does what to one merge.

    Args:
        coalitions: The merges of some of its experts.
        orders: How many orders to sample for Shapley values where there are more than `most_exact` experts.
        seed: Of that sampling.
        attribution: By expert and layer.
        refusal: Of the merge, on the unsafe prompts of the selection split.
        refusal_without: By expert, without it.
        most_exact: The most experts of whom all coalitions are scored.
    """
    names = list(coalitions.experts)
    everyone = frozenset(names)
    whole, nobody = coalitions.losses(everyone), coalitions.losses(frozenset())
    values: dict[str, dict[str, ShapleyValue]] = shapley(
        names, coalitions.means, orders=orders, seed=seed, most_exact=most_exact
    )
    without = {name: coalitions.losses(everyone - {name}) for name in names}
    halved = {name: found for name in names if (found := coalitions.halved(name)) is not None}
    changes_without, changes_halved = changes(whole, without, halved)
    total = mean_losses(whole)[SAFETY] - mean_losses(nobody)[SAFETY]
    return MergeAudit(
        terms=list(whole),
        base=_terms(nobody),
        merge=_terms(whole),
        exact=len(names) <= most_exact,
        coalitions=coalitions.scored,
        shapley=values,
        without=changes_without,
        halved=changes_halved,
        refusal=refusal,
        refusal_without=dict(refusal_without),
        layers=attribution.layers,
        attribution=attribution.values,
        residual=total - sum(map(sum, attribution.values.values())) if attribution.values else None,
        spoiler=spoiler(changes_without),
    )


def changes(
    merge: RowLosses, without: Mapping[str, RowLosses], halved: Mapping[str, RowLosses]
) -> tuple[dict[str, dict[str, Change]], dict[str, dict[str, Change]]]:
    """Return how every loss changes with each expert left out, and with each halved.

    Holm is over two declared families: CE_safety without each expert, which says who spoils; and all other changes.

    Args:
        merge: The row losses of the merge as it is.
        without: By expert, those without it, on the same rows.
        halved: By expert, those with its weight halved.
    """
    rest = [term for term in merge if term != SAFETY]
    spoiling = _changes(merge, {name: (found, [SAFETY]) for name, found in without.items()})
    others = _changes(
        merge,
        {f"without {name}": (found, rest) for name, found in without.items()}
        | {f"halved {name}": (found, list(merge)) for name, found in halved.items()},
    )
    return (
        {name: {**spoiling[name], **others[f"without {name}"]} for name in without},
        {name: others[f"halved {name}"] for name in halved},
    )


def _changes(merge: RowLosses, changed: Mapping[str, tuple[RowLosses, Sequence[str]]]) -> dict[str, dict[str, Change]]:
    """Return how some terms' losses differ from the merge's, Holm over all of them together."""
    measured: dict[str, dict[str, Observed]] = {}
    pairs = []
    for name, (losses, terms) in changed.items():
        if terms:
            measured[name] = _observed({term: losses[term] for term in terms})
            measured[f"merge {name}"] = _observed({term: merge[term] for term in terms})
            pairs.append((name, f"merge {name}"))
    found: dict[str, dict[str, Change]] = {name: {} for name in changed}
    for of in compare(measured, pairs):
        change = Change(difference=of.difference, low=of.low, high=of.high, p_value=of.p_value)
        found[of.model][of.measure.removeprefix(LOSS_PREFIX)] = change
    return found


def spoiler(without: Mapping[str, Mapping[str, Change]]) -> str | None:
    """Return the expert without which CE_safety falls most, if that fall is resolved at 5%."""
    falls = {
        name: change[SAFETY].difference
        for name, change in without.items()
        if change[SAFETY].difference < 0.0 and change[SAFETY].p_value <= ALPHA
    }
    return min(falls, key=lambda name: falls[name], default=None)


def _observed(found: RowLosses) -> dict[str, Observed]:
    return {
        LOSS_PREFIX + term: Observed(tuple(map(float, values)), tuple(f"row {i}" for i in range(len(values))))
        for term, values in found.items()
    }


def _terms(found: RowLosses) -> dict[str, Term]:
    means = {term: Mean.of(values) for term, values in found.items()}
    return {term: Term(loss=mean.mean, low=mean.low, high=mean.high) for term, mean in means.items()}
