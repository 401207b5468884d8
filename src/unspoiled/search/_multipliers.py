"""The weights of the losses in a descent: those of a weighted sum, or multipliers that enforce limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from unspoiled.errors import SearchError
from unspoiled.objective import Constrained, Goal, Losses, LossRows, Term, WeightedSum

_FIRST = 1.0
_SCALE = 0.1  # of a limit: broken by so much, a loss counts twice as much at once
_SMOOTHING = 0.6
_GROWTH, _SHRINKAGE = 1.2, 0.5
_LEAST = 0.03
_PROGRESS = 0.3
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
    """Weights that enforce the limits of `minimise CE_expert subject to CE_c ≤ limit_c`: an augmented Lagrangian.

    CE_expert has weight 1, a limited loss λ_c · 2^(v_c / μ_c), with v_c by how many nats per token the limit is broken
    (negative within), and μ_c a tenth of the limit; the exponent keeps within ±1. This is the method of multipliers
    with an exponential penalty instead of a quadratic one: weights stay positive, so that a loss that isn't at its
    limit is not forgotten until it breaks it, and follow the limits' own size. v_c is smoothed over the last steps
    (0.6 of the old, 0.4 of the new), because a minibatch has few rows.

    λ_c starts at 1 and moves with each check, whose noise is low, by up to a factor of 2, less within a tenth of the
    limit: by 2^(d · v_c / μ_c), the exponent within ±d. d is 1 at first and halves each time that the limit is crossed
    (Rprop's rule: how much a weight moves a loss isn't known), else grows by a fifth. λ_c stays where it is while the
    gap closes quickly, to 0.3 of what it was at the check before: the rest would overshoot.

    Source: Tseng and Bertsekas, Mathematical Programming 60 (1993), for the exponential method of multipliers;
    Riedmiller and Braun, ICNN 1993, for Rprop.

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
        self._broken: dict[Term, float] = {}  # by minibatches
        self._checked: dict[Term, float] = {}
        self._doublings = dict.fromkeys(limited, 1.0)  # how far the multiplier moves next, as a power of 2

    @property
    def weights(self) -> Mapping[Term, float]:
        """The weight of each loss that has rows."""
        found: dict[Term, float] = {"expert": 1.0}
        for term, multiplier in self._multipliers.items():
            found[term] = multiplier * 2 ** self._urgency(self._broken.get(term, 0.0), self._goal, term)
        return found

    def minibatch(self, rows: Sequence[int], cross_entropies: Sequence[float]) -> None:
        """Take the nats per token of the rows of a step."""
        found = self._search.losses(cross_entropies, rows)
        new = {term: found.term(term) - self._limit(self._goal, term) for term in self._multipliers}
        if self._reference is not None:
            whole = self._search.losses(self._reference)
            part = self._search.losses([self._reference[i] for i in rows], rows)
            new = {term: value + whole.term(term) - part.term(term) for term, value in new.items()}
        for term, value in new.items():
            self._broken[term] = _SMOOTHING * self._broken.get(term, value) + (1 - _SMOOTHING) * value

    def check(self, losses: Losses) -> None:
        """Take the losses on the selection split."""
        for term, multiplier in self._multipliers.items():
            broken = losses.term(term) - self._limit(self._at_selection, term)
            before = self._checked.get(term)
            self._checked[term] = broken
            if before is not None:
                changed_side = (broken > 0) != (before > 0)
                if not changed_side and abs(broken) < _PROGRESS * abs(before):
                    continue
                moves = self._doublings[term] * (_SHRINKAGE if changed_side else _GROWTH)
                self._doublings[term] = min(1.0, max(_LEAST, moves))
            moved = multiplier * 2 ** (self._doublings[term] * self._urgency(broken, self._at_selection, term))
            self._multipliers[term] = min(_LARGEST, max(1 / _LARGEST, moved))

    def _limit(self, goal: Constrained, term: Term) -> float:
        return goal.limits[term] * (1 - self._margin)

    def _urgency(self, broken: float, goal: Constrained, term: Term) -> float:
        scale = _SCALE * goal.limits[term]  # 0 for a perfect expert and no tolerance: any excess is large beside it
        return min(1.0, max(-1.0, broken / scale)) if scale else math.copysign(float(broken != 0.0), broken)
