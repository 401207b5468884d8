"""EvoMM: CMA-ES over the coefficients of the merge; separable for large genomes, with restarts and races if asked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from unspoiled.objective import Goal, Score
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Evaluation, Proposal, Rival
from unspoiled.search.grid import even_weights

Algorithm = Literal["auto", "cma", "separable"]
SEPARABLE_FROM = 101
"""Coefficients from which `auto` is separable: a full covariance of n coefficients takes about n² trials to learn."""
USUAL_RANGE = 1.5
"""The width of a weight's usual range [0, 1.5], which steps are stated for."""
_INFEASIBLE = 1e6  # nats per token that no loss reaches: any violation ranks behind every value


class Evolve:
    """Minimise a goal by CMA-ES with a population of 4 + ⌊3 ln n⌋ for n coefficients.

    The next generation waits until all of the one before are told; their order doesn't matter. Limits are kept by
    ranking (Deb's rule): merges within them by value, all others behind by how much they break them.

    Source: Akiba et al., arXiv 2403.13187, as used in arXiv 2406.14563. Separable: Ros and Hansen, PPSN 2008. Restarts
    with a doubled population: Auger and Hansen, IPOP, CEC 2005. The optimiser is pycma. Ranking: Deb, CMAME 186 (2000).

    Args:
        space: What moves, and its ranges.
        goal: What is minimised.
        trials: Trials in all; whole generations only, so up to one population fewer are made, and never less than one
            generation.
        seed: The same seed and losses give the same proposals.
        step: Initial standard deviation σ₀ of a coefficient whose range is 1.5 wide; of others in proportion.
        algorithm: `cma` learns how all pairs of coefficients vary together, `separable` each one's variance only;
            `auto` is separable for more than 100 coefficients.
        restarts: How often to begin again, from a random genome with a doubled population, once a run has converged:
            all steps below 0.001 (of a range 1.5 wide), or nothing gained in 10 + ⌈30 n/λ⌉ generations.
        race: Stop a trial early when it is surely worse than the μ-th best (μ = half a population) of the generation
            before: among the trials that would move the search, it isn't.
        start: The genome to start around; the uniform merge's by default. Clipped to the ranges.
        population: Trials per generation, at least 4; 4 + ⌊3 ln n⌋ by default.
    """

    name = "evolve"

    def __init__(
        self,
        space: SearchSpace,
        goal: Goal,
        *,
        trials: int,
        seed: int,
        step: float = 0.25,
        algorithm: Algorithm = "auto",
        restarts: int = 0,
        race: bool = False,
        start: Sequence[float] | None = None,
        population: int | None = None,
    ) -> None:
        self.population = population or population_size(space.size)
        self._space = space
        self._goal = goal
        self._trials = trials
        self._step = step
        self._separable = algorithm == "separable" or (algorithm == "auto" and space.size >= SEPARABLE_FROM)
        self._restarts = restarts
        self._race = race
        self._rng = np.random.default_rng(seed)
        self._rival: Rival | None = None
        self._optimiser = self._new_optimiser(even_weights(space) if start is None else start)
        self._generation: list[np.ndarray] = self._optimiser.ask()
        self._first = 0  # the generation's first number
        self._told: dict[int, Evaluation | None] = {}
        self._asked = 0

    @property
    def ended(self) -> bool:
        """Whether the next generation would be more than `trials`; a run that has converged goes on till then."""
        end = self._first + len(self._generation)
        if self._asked < end:  # a generation that wouldn't fit isn't begun, but for the first
            return 0 < self._first == self._asked and end > self._trials
        return end + self.population > self._trials

    def ask(self) -> Proposal | None:
        """Return the generation's next member; None while the generation's last results are awaited."""
        if self.ended or self._asked == self._first + len(self._generation):
            return None
        number, self._asked = self._asked, self._asked + 1
        genome = tuple(map(float, self._generation[number - self._first]))
        return Proposal(number, self._space.recipe(genome), self._space.named(genome), rival=self._rival)

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Take a result; a failed trial ranks behind all others of its generation."""
        self._told[proposal.number] = evaluation
        if len(self._told) < len(self._generation):
            return
        results = [self._told[number] for number in sorted(self._told)]
        scores = [None if result is None else self._goal.score(result.losses) for result in results]
        values = [None if score is None else ranked(score) for score in scores]
        worst = max((value for value in values if value is not None), default=0.0)
        self._optimiser.tell(self._generation, [worst + 1.0 if value is None else value for value in values])
        if self._race:
            self._rival = _rival(results, self._goal, self.population // 2) or self._rival
        if self._restarts and self._optimiser.stop():
            self._restarts -= 1
            self.population *= 2
            self._rival = None
            self._optimiser = self._new_optimiser(self._rng.uniform(self._space.low, self._space.high))
        self._first += len(self._generation)
        self._told = {}
        self._generation = self._optimiser.ask()

    def _new_optimiser(self, start: Sequence[float] | np.ndarray) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that matplotlib is missing, which only its plots need
            import cma
        space, rng = self._space, self._rng
        low, high = np.array(space.low), np.array(space.high)

        def draw(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape)  # own stream: the global one stays untouched

        return cma.CMAEvolutionStrategy(
            np.clip(start, low, high),
            self._step,
            {
                "popsize": self.population,
                "bounds": [low, high],
                "CMA_stds": (high - low) / USUAL_RANGE,
                "CMA_diagonal": self._separable,
                "randn": draw,
                "seed": math.nan,
                "tolx": 1e-3,
                "tolfun": 1e-4,
                "verbose": -9,
                "verb_log": 0,
            },
        )


def population_size(coefficients: int) -> int:
    """Return λ = 4 + ⌊3 ln n⌋ for n coefficients."""
    return 4 + math.floor(3 * math.log(coefficients))


def ranked(score: Score) -> float:
    """Return one number that orders scores: the value within the limits, behind all values how much they are broken."""
    return score.value if score.feasible else _INFEASIBLE + score.violation


def _rival(results: Sequence[Evaluation | None], goal: Goal, place: int) -> Rival | None:
    """Return the `place`-th best of the trials that were scored on all rows, or the last if they are fewer."""
    scored = [result for result in results if result is not None and not result.stopped]
    if not scored:
        return None
    best = sorted(scored, key=lambda result: goal.score(result.losses))[:place][-1]
    return Rival(best.cross_entropies, goal.score(best.losses))
