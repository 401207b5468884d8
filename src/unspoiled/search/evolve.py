"""EvoMM: CMA-ES over the coefficients of the merge."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from unspoiled.objective import Losses
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Proposal


class Evolve:
    """Minimise J = CE_safety + α·CE_expert by CMA-ES with a population of 4 + ⌊3 ln n⌋.

    Source: Akiba et al., arXiv 2403.13187, as used in arXiv 2406.14563; the optimiser is pycma.

    Args:
        space: What moves, and its bounds.
        trials: Trials in all; whole generations only, so up to one population fewer are made, and never less
            than one generation.
        seed: The same seed and losses give the same proposals.
        step: Initial standard deviation σ₀, in the weights' unit.
    """

    name = "evolve"

    def __init__(self, space: SearchSpace, *, trials: int, seed: int, step: float = 0.25) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that matplotlib is missing, which only its plots need
            import cma

        self._space = space
        self.population = population_size(space.size)
        self._generations = max(1, trials // self.population)
        self._asked: list[np.ndarray] = []
        rng = np.random.default_rng(seed)
        start = space.constant([1 / len(space.experts)] * len(space.experts))
        self._optimiser = cma.CMAEvolutionStrategy(
            np.clip(start, *space.bounds),
            step,
            {
                "popsize": self.population,
                "bounds": list(space.bounds),
                "randn": lambda *shape: rng.standard_normal(shape),  # own stream: the global one stays untouched
                "seed": math.nan,
                "verbose": -9,
                "verb_log": 0,
                "maxiter": self._generations,
                "CMA_stds": np.ones(space.size),
            },
        )

    def ask(self) -> list[Proposal]:
        """Return the next generation."""
        if self._optimiser.countiter >= self._generations:
            return []
        self._asked = self._optimiser.ask()
        genomes = [tuple(map(float, genome)) for genome in self._asked]
        return [Proposal(self._space.recipe(g), dict(zip(self._space.labels, g, strict=True))) for g in genomes]

    def tell(self, losses: Sequence[Losses | None]) -> None:
        """Take the generation's losses; a failed trial ranks behind all others."""
        values = [None if loss is None else loss.total for loss in losses]
        worst = max((value for value in values if value is not None), default=0.0)
        self._optimiser.tell(self._asked, [worst + 1.0 if value is None else value for value in values])


def population_size(coefficients: int) -> int:
    """Return λ = 4 + ⌊3 ln n⌋ for n coefficients."""
    return 4 + math.floor(3 * math.log(coefficients))
