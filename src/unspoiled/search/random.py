"""Random search: what any strategy that learns must beat."""

from __future__ import annotations

import numpy as np

from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Evaluation, Proposal


class Random:
    """Draw every coefficient uniformly from its range, each trial anew.

    Args:
        space: What moves, and its ranges.
        trials: Number of trials, at least 1.
        seed: The i-th trial is a function of the seed and i.
    """

    name = "random"

    def __init__(self, space: SearchSpace, *, trials: int, seed: int) -> None:
        self._space = space
        self._trials = trials
        self._seed = seed
        self._asked = 0

    @property
    def ended(self) -> bool:
        """Whether all trials were proposed."""
        return self._asked >= self._trials

    def ask(self) -> Proposal | None:
        """Return the next trial."""
        if self.ended:
            return None
        number, self._asked = self._asked, self._asked + 1
        drawn = np.random.default_rng([self._seed, number]).uniform(self._space.low, self._space.high)
        genome = tuple(map(float, drawn))
        return Proposal(number, self._space.recipe(genome), self._space.named(genome))

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Learn nothing."""
