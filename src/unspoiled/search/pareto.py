"""The front of several losses: NSGA-II, and what a front is worth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from unspoiled.errors import SearchError
from unspoiled.objective import TERMS, Losses, Term
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Evaluation, Proposal
from unspoiled.search.grid import even_weights


class Pareto:
    """Look for the merges of which none is better in every loss, by NSGA-II.

    The first proposals are the uniform merge and each expert's weight alone at 1; then come random genomes to fill the
    first population, and generations by tournament, simulated binary crossover and mutation. A generation waits until
    all of the one before are told; their order doesn't matter. Failed trials have no offspring.

    Source: Deb et al., NSGA-II, IEEE TEC 6 (2002); the optimiser is Optuna's.

    Args:
        space: What moves, and its ranges.
        trials: Trials in all, at least 1.
        seed: The same seed and losses give the same proposals.
        terms: The losses, at least two.
        domains: Names of domains whose losses take the place of `expert`'s one.
        population: Genomes per generation, at least 2; N experts take N + 1 of the first.
    """

    name = "pareto"

    def __init__(
        self,
        space: SearchSpace,
        *,
        trials: int,
        seed: int,
        terms: Sequence[Term] = TERMS,
        domains: Sequence[str] = (),
        population: int = 20,
    ) -> None:
        self._space = space
        self._trials = trials
        self._terms, self._domains = tuple(terms), tuple(domains)
        self._population = population
        self._study, self._distributions = _optuna_study(
            space, seed, population, len(coordinates_of(self._terms, self._domains))
        )
        experts = len(space.experts)
        corners = [space.constant([float(i == k) for i in range(experts)]) for k in range(experts)]
        for genome in [even_weights(space), *corners]:
            inside = [min(max(value, low), high) for value, low, high in zip(genome, space.low, space.high)]
            self._study.enqueue_trial(space.named(inside), skip_if_exists=True)
        self._generation: list[Any] = []
        self._told: dict[int, Evaluation | None] = {}
        self._asked = 0

    @property
    def ended(self) -> bool:
        """Whether all trials were proposed."""
        return self._asked >= self._trials

    def ask(self) -> Proposal | None:
        """Return the generation's next member; None while the generation's last results are awaited."""
        if self.ended:
            return None
        if not self._generation:
            self._generation = [self._study.ask(self._distributions) for _ in range(self._population)]
        if self._asked > self._generation[-1].number:
            return None
        trial = self._generation[self._asked - self._generation[0].number]
        self._asked += 1
        genome = [trial.params[label] for label in self._space.labels]
        return Proposal(trial.number, self._space.recipe(genome), self._space.named(genome))

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Take a result; the generation's last makes the next."""
        self._told[proposal.number] = evaluation
        if len(self._told) < len(self._generation):
            return
        for trial in self._generation:
            result = self._told[trial.number]
            if result is None:
                self._study.tell(trial, state=_failed())
            else:
                self._study.tell(trial, coordinates(result.losses, self._terms, self._domains))
        self._generation, self._told = [], {}


def coordinates_of(terms: Sequence[Term], domains: Sequence[str] = ()) -> list[str]:
    """Return the names of a front's coordinates: the terms, with `expert` replaced by the domains if there are any."""
    return [name for term in terms for name in (domains if term == "expert" and domains else (term,))]


def coordinates(losses: Losses, terms: Sequence[Term], domains: Sequence[str] = ()) -> tuple[float, ...]:
    """Return losses as a point, in the order of `coordinates_of`.

    Raises:
        SearchError: There is no such loss.
    """
    known: dict[str, float] = dict(losses.domains)
    known |= {term: losses.term(term) for term in TERMS if not math.isnan(losses.term(term))}
    names = coordinates_of(terms, domains)
    if missing := [name for name in names if name not in known]:
        raise SearchError(f"there is no loss {missing[0]!r} to draw a front of: choose from {', '.join(known)}.")
    return tuple(known[name] for name in names)


def front(losses: Sequence[Losses], terms: Sequence[Term], domains: Sequence[str] = ()) -> list[int]:
    """Return the indices of the merges that no other is better than: as good in every loss, and better in one.

    Equal merges don't exclude each other. The order is that of `losses`.

    Args:
        losses: The merges' losses, all on the same rows.
        terms: The losses that count.
        domains: Names of domains whose losses take the place of `expert`'s one.
    """
    points = [coordinates(each, terms, domains) for each in losses]
    return [i for i, own in enumerate(points) if not any(_dominates(other, own) for other in points)]


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return how much of the space of losses is worse than some point and better than the reference.

    Larger is better: a point adds the box between itself and the reference, counted once where boxes overlap. A point
    that isn't better than the reference in every coordinate adds nothing. The unit is nats per token to the power of
    the number of coordinates. Exact, by slicing along the last coordinate; meant for fronts of tens of points.

    Source: Zitzler and Thiele, PPSN 1998; slicing: While et al., IEEE TEC 10 (2006).

    Args:
        points: The points, in any order, dominated ones allowed.
        reference: The corner to measure from, such as the uniform merge's losses.
    """
    if any(len(point) != len(reference) for point in points):
        raise ValueError(f"every point needs {len(reference)} coordinates, as the reference has")
    inside = [tuple(p) for p in points if all(value < limit for value, limit in zip(p, reference, strict=True))]
    return _volume(inside, tuple(reference))


def _volume(points: Sequence[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(point[0] for point in points)
    levels = sorted({point[-1] for point in points})
    total = 0.0
    for level, above in zip(levels, [*levels[1:], reference[-1]], strict=True):
        slice_ = [point[:-1] for point in points if point[-1] <= level]
        kept = [p for p in slice_ if not any(_dominates(other, p) for other in slice_)]
        total += (above - level) * _volume(sorted(set(kept)), reference[:-1])
    return total


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other)) and any(a < b for a, b in zip(one, other))


def _optuna_study(space: SearchSpace, seed: int, population: int, objectives: int) -> tuple[Any, dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        crossover = optuna.samplers.nsgaii.SBXCrossover()
    sampler = optuna.samplers.NSGAIISampler(population_size=population, crossover=crossover, seed=seed)
    study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
    ranges = zip(space.labels, space.low, space.high)
    return study, {label: optuna.distributions.FloatDistribution(low, high) for label, low, high in ranges}


def _failed() -> Any:
    import optuna

    return optuna.trial.TrialState.FAIL
