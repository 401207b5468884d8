"""Measured trial times replayed against many workers: where a search stops scaling."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from unspoiled.objective import Losses, WeightedSum
from unspoiled.search import Evaluation, Evolve, Range, SearchSpace, even_weights, population_size

WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class TrialTime:
    """What one measured evaluation took, in seconds: merging in memory, and the losses (with a gradient or without)."""

    merge: float
    loss: float


@dataclass(frozen=True)
class Scaling:
    """How long a search takes with so many workers.

    Attributes:
        workers: How many.
        seconds: Simulated wall time.
        speedup: Over one worker.
        busy: Share of the workers' time that they evaluate.
        trials: Evaluations made.
    """

    workers: int
    seconds: float
    speedup: float
    busy: float
    trials: int


def scale_generations(times: Sequence[TrialTime], *, population: int, generations: int, seed: int) -> list[Scaling]:
    """Return how `evolve` scales at its own population: every generation waits for its slowest trial.

    Args:
        times: Measured trials, drawn from at random.
        population: Trials per generation.
        generations: How many generations.
        seed: Of the draws, which are the same for every number of workers.
    """
    return _relative(
        [_generations(times, workers, [population] * generations, seed) for workers in WORKERS], list(WORKERS)
    )


def scale_population(times: Sequence[TrialTime], *, coefficients: int, target: float, seed: int) -> list[Scaling]:
    """Return how `evolve` scales when its population grows with the workers, to the same objective.

    A larger population needs fewer generations, yet more trials. How many is counted on a convex quadratic of as many
    coefficients (condition number 100, start and step as in a search), until J is `target` times what it starts at.

    Args:
        times: Measured trials.
        coefficients: The genome's length.
        target: Share of the value at the start to reach, in (0, 1).
        seed: Of the search and the draws.
    """
    found = []
    for workers in WORKERS:
        population, generations = _generations_to(coefficients, workers, target, seed)
        found.append(_generations(times, workers, [population] * generations, seed))
    return _relative(found, list(WORKERS))


def scale_gradient(
    times: Sequence[TrialTime], *, rows: int, least_rows: int, steps: int, told: float, seed: int
) -> list[Scaling]:
    """Return how `gradient` scales with each step's minibatch cut into shards, one per worker.

    Every worker merges the whole model; the losses' time goes with the rows; a step waits for its slowest shard.

    Args:
        times: Measured gradient steps on one worker.
        rows: Rows of a minibatch.
        least_rows: Fewest rows that a shard can have: one of every set.
        steps: How many steps.
        told: Seconds between the last result and the next proposal: recording and asking, measured.
        seed: Of the draws.
    """
    found = []
    for workers in WORKERS:
        shards = max(1, min(workers, rows // least_rows))
        draw = random.Random(seed)
        seconds = busy = 0.0
        for _ in range(steps):
            # shards of one step differ as measured steps do
            spent = [time.merge + time.loss / shards for time in draw.choices(times, k=shards)]
            seconds += max(spent) + told
            busy += sum(spent)
        found.append((seconds, busy, steps * shards))
    return _relative(found, list(WORKERS))


def stops_scaling(scalings: Sequence[Scaling], *, gain: float = 1.2) -> int:
    """Return the number of workers after which doubling them gains less than `gain` times the speed."""
    for before, after in itertools.pairwise(scalings):
        if after.speedup < gain * before.speedup:
            return before.workers
    return scalings[-1].workers


def _generations(
    times: Sequence[TrialTime], workers: int, populations: Sequence[int], seed: int
) -> tuple[float, float, int]:
    """Return (wall seconds, busy seconds, trials) of generations that each wait for their last trial."""
    draw = random.Random(seed)
    seconds = busy = 0.0
    for population in populations:
        free = [0.0] * workers
        for time in draw.choices(times, k=population):
            heapq.heapreplace(free, free[0] + time.merge + time.loss)
            busy += time.merge + time.loss
        seconds += max(free)
    return seconds, busy, sum(populations)


def _relative(found: Sequence[tuple[float, float, int]], workers: Sequence[int]) -> list[Scaling]:
    alone = found[0][0]
    return [
        Scaling(count, seconds, alone / seconds, busy / (seconds * count), trials)
        for count, (seconds, busy, trials) in zip(workers, found, strict=True)
    ]


def _generations_to(coefficients: int, workers: int, target: float, seed: int) -> tuple[int, int]:
    """Return (population, generations) that `evolve` needs on the quadratic."""
    space = SearchSpace(
        method="task_arithmetic",
        base="base",
        experts={f"expert {i}": f"expert {i}" for i in range(coefficients)},
        layers=1,
        ranges={"weight": Range(0.0, 1.5, 0.5)},
    )
    draw = random.Random(seed)
    minimum = [draw.uniform(0.2, 1.3) for _ in range(coefficients)]
    slopes = [100.0 ** (i / max(1, coefficients - 1)) for i in range(coefficients)]
    strategy = Evolve(
        space, WeightedSum(1.0), trials=10**6, seed=seed, population=max(workers, population_size(coefficients))
    )

    def value_of(genome: Sequence[float]) -> float:
        return math.fsum(s * (g - m) ** 2 for s, g, m in zip(slopes, genome, minimum, strict=True)) / math.fsum(slopes)

    wanted = target * value_of(even_weights(space))
    for generation in range(1, 10_000):
        values = []
        for _ in range(strategy.population):
            proposal = strategy.ask()
            assert proposal is not None
            values.append((proposal, value_of(list(proposal.coefficients.values()))))
        for proposal, value in values:
            strategy.tell(proposal, _evaluation(value))
        if min(value for _, value in values) <= wanted:
            return strategy.population, generation
    raise RuntimeError(f"no {target:g} of the start's value in 10,000 generations of {strategy.population}")


def _evaluation(value: float) -> Evaluation:
    losses = Losses(safety=value, expert=0.0, domains={}, benign=None, rows=(1, 1))
    return Evaluation(losses, (), (), False, None, 0, 0.0, 0.0)
