"""One run of Adam on a genome, its gradients asked for in rounds of proposals that may be worked on at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unspoiled.objective import LossRows, Term
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Evaluation, GradientRequest, Proposal
from unspoiled.search.evolve import USUAL_RANGE

_SLOWING = 20
_DECAY = 0.7, 0.99  # of Adam's means of gradients and of their squares: searches have tens of steps, not thousands,
# and weights that change with the losses, which a longer memory would follow too late


class Descent:
    """Adam within the ranges, pulled toward where it starts.

    The k-th step, from 0, is about η / √(1 + k/20) per coefficient, whatever number of steps is planned. The prior
    adds κ · mean over coefficients of ((g − start) / width)² to the loss, where `width` is that of a coefficient's
    range over 1.5. As a mean it costs the same to move all layers together by δ, whatever the granularity; what a
    few rows say about a single coefficient of hundreds counts little against it.

    Args:
        space: What moves, and its ranges.
        start: The first genome; clipped to the ranges.
        learning_rate: η > 0, for a coefficient whose range is 1.5 wide; for others in proportion.
        prior: κ ≥ 0, in nats per token at a distance of 1.
        center: What the prior pulls toward; `start` by default.
    """

    def __init__(
        self,
        space: SearchSpace,
        start: Sequence[float],
        *,
        learning_rate: float,
        prior: float,
        center: Sequence[float] | None = None,
    ) -> None:
        self._low, self._high = np.array(space.low), np.array(space.high)
        self._width = (self._high - self._low) / USUAL_RANGE
        self._genome = np.clip(np.array(start, dtype=float), self._low, self._high)
        self._center = self._genome if center is None else np.array(center, dtype=float)
        self._worked = self._genome  # the last genome that had a gradient
        self._rate = learning_rate
        self._prior = prior
        self._mean = np.zeros(space.size)
        self._square = np.zeros(space.size)
        self._steps = 0
        self.failures = 0

    @property
    def genome(self) -> tuple[float, ...]:
        """Where it is."""
        return tuple(map(float, self._genome))

    def step(self, gradients: Sequence[Sequence[float]], weight: float) -> None:
        """Take a step against the mean of some gradients; without any, go back to where there were, half way at first.

        Args:
            gradients: ∂(Σ weight · loss)/∂genome, each on rows of its own.
            weight: The sum of the losses' weights, which the objective is divided by so that steps go on evenly when
                weights change.
        """
        if not gradients:
            self.failures += 1
            self._mean[:] = 0.0
            self._genome = (self._genome + self._worked) / 2 if self.failures == 1 else self._worked
            return
        self.failures = 0
        self._worked = self._genome
        pull = 2 * self._prior * (self._genome - self._center) / self._width**2 / len(self._genome)
        # per width, so that a range's unit doesn't matter
        slope = (np.mean(np.array(gradients, dtype=float), axis=0) + pull) / weight * self._width
        first, second = _DECAY
        self._mean = first * self._mean + (1 - first) * slope
        self._square = second * self._square + (1 - second) * slope**2
        k = self._steps + 1
        unbiased = self._mean / (1 - first**k), np.sqrt(self._square / (1 - second**k))
        rate = self._rate / math.sqrt(1 + self._steps / _SLOWING)
        self._genome = np.clip(
            self._genome - rate * self._width * unbiased[0] / (unbiased[1] + 1e-12), self._low, self._high
        )
        self._steps = k


class Round:
    """Proposals that are asked for at once and wait for each other, in whatever order their results come."""

    def __init__(self) -> None:
        self._waiting: list[Proposal] = []
        self._asked: list[Proposal] = []
        self._told: dict[int, Evaluation | None] = {}

    def begin(self, proposals: Sequence[Proposal]) -> None:
        """Take the next round's proposals."""
        self._waiting, self._asked, self._told = list(proposals), [], {}

    @property
    def asked(self) -> int:
        """How many of the proposals were handed out."""
        return len(self._asked)

    def ask(self) -> Proposal | None:
        """Hand out the next proposal; None when all are."""
        if not self._waiting:
            return None
        self._asked.append(self._waiting.pop(0))
        return self._asked[-1]

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> bool:
        """Take a result; return whether it was the round's last."""
        self._told[proposal.number] = evaluation
        return not self._waiting and len(self._told) == len(self._asked)

    @property
    def results(self) -> Iterator[tuple[Proposal, Evaluation | None]]:
        """The round's proposals with what came of each, in the order of asking."""
        return ((proposal, self._told[proposal.number]) for proposal in self._asked)


def shard_rows(data: LossRows, step: int, batch: int, shards: int, *, seed: int) -> list[tuple[int, ...]]:
    """Return the rows of each shard of a step's minibatch: disjoint, `batch` of every set each, fewer of small sets."""
    rows = data.minibatch(step, batch * shards, seed=seed)
    by_set: dict[str, list[int]] = {}
    for index in rows:
        by_set.setdefault(data.rows[index].set, []).append(index)
    count = min(shards, *(len(own) for own in by_set.values()))  # a shard needs a row of every set
    return [tuple(sorted(i for own in by_set.values() for i in own[k::count])) for k in range(count)]


def steps_begun(data: LossRows, gradients: int, batch: int, shards: int, *, seed: int) -> int:
    """Return in how many steps a descent asks for so many gradients: a step has fewer shards than `shards` at times.

    Args:
        data: The rows of the search split.
        gradients: How many were asked for; a step that isn't whole counts.
        batch: As for `shard_rows`.
        shards: As for `shard_rows`.
        seed: As for `shard_rows`.
    """
    step = 0
    while gradients > 0:
        gradients -= 1 if shards == 1 else len(shard_rows(data, step, batch, shards, seed=seed))
        step += 1
    return step


def gradient_proposal(
    space: SearchSpace, genome: Sequence[float], number: int, rows: tuple[int, ...], weights: Mapping[Term, float]
) -> Proposal:
    """Return the wish for a gradient on some rows of the search split."""
    return Proposal(
        number,
        space.recipe(genome),
        space.named(genome),
        rows=rows,
        gradient=GradientRequest(space, dict(weights)),
        candidate=False,
    )


def check_proposal(space: SearchSpace, genome: Sequence[float], number: int) -> Proposal:
    """Return a genome as a candidate, to be scored on all rows of the selection split."""
    return Proposal(number, space.recipe(genome), space.named(genome), split="selection")
