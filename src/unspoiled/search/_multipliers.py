"""The weights of the losses in a descent: those of a weighted sum, or multipliers that enforce limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from unspoiled.errors import SearchError
from unspoiled.objective import Constrained, Goal, Losses, LossRows, Term, WeightedSum

_FIRST = 1.0
_PENALTY = 10.0  # per nat: a limit broken by 0.1 nats per token weighs 1 more
_SMOOTHING = 0.8
_LARGEST = 1e3


class LossWeights(Protocol):
    """Says how much each loss counts in the next step, and learns from what came of the last ones."""

    @property
    def weights(self) -> Mapping[Term, float]:
        """The weight of each loss that has rows."""
        ...

    def minibatch(self, rows: Sequence[int], cross_entropies: Sequence[float]) -> None:
        """Take the nats per token of the rows of a step."""
        ...

    def check(self, losses: Losses) -> None:
        """Take the losses on the selection split."""
        ...


def loss_weights(
    goal: Goal,
    search: LossRows,
    *,
    selection_goal: Goal | None = None,
    reference: Sequence[float] | None = None,
    margin: float,
) -> LossWeights:
    """Return what weighs the losses for a goal; see `Multipliers` for the arguments.

    Raises:
        SearchError: The goal is neither a weighted sum nor an objective under limits.
    """
    if isinstance(goal, WeightedSum):
        return Fixed({term: weight for term, weight in goal.weights.items() if term in search.terms})
    if isinstance(goal, Constrained):
        at_selection = selection_goal if isinstance(selection_goal, Constrained) else goal
        return Multipliers(goal, search, at_selection=at_selection, reference=reference, margin=margin)
    raise SearchError(f"a descent has no weights for a goal of type {type(goal).__name__!r}")


class Fixed:
    """The same weights in every step."""

    def __init__(self, weights: Mapping[Term, float]) -> None:
        self.weights = dict(weights)

    def minibatch(self, rows: Sequence[int], cross_entropies: Sequence[float]) -> None:
        """Learn nothing."""

    def check(self, losses: Losses) -> None:
        """Learn nothing."""


class Multipliers:
    """The augmented Lagrangian of `minimise CE_expert subject to CE_c ≤ limit_c`.

    CE_expert has weight 1, a limited one max(λ_c/4, λ_c + ρ v_c): its derivative in the augmented Lagrangian of Powell,
    Hestenes and Rockafellar, with a floor. v_c, by how many nats per token the limit is broken (negative within), is
    known a few steps late, and a loss that counts nothing until it is seen to be broken swings about its limit. λ_c
    starts at 1, ρ is 10 per nat.

    v_c is smoothed over the last steps (0.8 of the old, 0.2 of the new), because a minibatch has few rows. λ_c moves
    after each check, whose noise is low, by ρ times what the check found, but at most to its double or its half: the
    first checks, far from the limit, would otherwise wind it up.

    Source: Rockafellar, SIAM J. Control 12 (1974); Nocedal and Wright, Numerical Optimization, section 17.4.

    Args:
        goal: The limits, for losses on all rows of the search split.
        search: The rows of the search split.
        at_selection: The limits for losses on all rows of the selection split.
        reference: Some model's nats per token for every row of the search split: a minibatch's losses are corrected
            by how much easier its rows are for that model than all rows are. The safest expert's, best of all.
        margin: A share of each limit, at least 0, to stay below it: noise then leaves the end within.
    """

    def __init__(
        self,
        goal: Constrained,
        search: LossRows,
        *,
        at_selection: Constrained,
        reference: Sequence[float] | None,
        margin: float,
    ) -> None:
        self._goal, self._at_selection = goal, at_selection
        self._search = search
        self._reference = reference
        self._margin = margin
        limited = [term for term in goal.limits if term in search.terms]
        self._multipliers = dict.fromkeys(limited, _FIRST)
        self._broken: dict[Term, float] | None = None

    @property
    def weights(self) -> Mapping[Term, float]:
        """The weight of each loss that has rows."""
        found: dict[Term, float] = {"expert": 1.0}
        for term, multiplier in self._multipliers.items():
            broken = self._broken[term] if self._broken else 0.0
            found[term] = min(_LARGEST, max(multiplier / 4, multiplier + _PENALTY * broken))
        return found

    def minibatch(self, rows: Sequence[int], cross_entropies: Sequence[float]) -> None:
        """Take the nats per token of the rows of a step."""
        found = self._search.losses(cross_entropies, rows)
        new = {term: found.term(term) - self._limit(self._goal, term) for term in self._multipliers}
        if self._reference is not None:
            whole = self._search.losses(self._reference)
            part = self._search.losses([self._reference[i] for i in rows], rows)
            new = {term: value + whole.term(term) - part.term(term) for term, value in new.items()}
        old = self._broken or new
        self._broken = {term: _SMOOTHING * old[term] + (1 - _SMOOTHING) * value for term, value in new.items()}

    def check(self, losses: Losses) -> None:
        """Take the losses on the selection split."""
        for term, old in self._multipliers.items():
            moved = old + _PENALTY * (losses.term(term) - self._limit(self._at_selection, term))
            self._multipliers[term] = min(_LARGEST, 2 * old, max(old / 2, moved))

    def _limit(self, goal: Constrained, term: Term) -> float:
        return goal.limits[term] * (1 - self._margin)
