"""The front of several losses by gradients: weighted sums of them, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unspoiled.objective import LossRows, Term
from unspoiled.search._descent import Descent, Round, check_proposal, gradient_proposal, shard_rows
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Evaluation, Proposal
from unspoiled.search.grid import even_weights

_FROM_AFAR = 4  # times the steps for the first point
_PRIMES = (2, 3, 5)


class Sweep:
    """Minimise weighted sums of the losses by Adam on minibatches, each from the end of the nearest one before.

    The weights, which sum to 1, fill the simplex evenly (a Halton sequence): with two losses ½, ¼, ¾, ⅛ ... of the one
    and the rest of the other, so that more points lie between those of a shorter sweep. Each end is a candidate,
    scored on the selection split. A convex front can be found so in whole; of a hollow one, only its outer parts.

    Args:
        space: What moves, and its ranges.
        search: The rows of the search split.
        steps: Steps per point, at least 1; the first point, which starts from afar, takes four times as many.
        points: Points in all, at least 1.
        seed: Decides the minibatches.
        terms: The losses, two at least; those of them that have rows count.
        start: The first point's start; the uniform merge's by default. Clipped to the ranges.
        batch: Rows of every set in a step and shard.
        learning_rate: As for `Gradient`.
        prior: As for `Gradient`: pulls every point toward `start`.
        shards: Proposals per step, on rows of their own.
    """

    name = "sweep"

    def __init__(
        self,
        space: SearchSpace,
        search: LossRows,
        *,
        steps: int = 10,
        points: int = 7,
        seed: int = 0,
        terms: Sequence[Term] = ("safety", "expert", "benign"),
        start: Sequence[float] | None = None,
        batch: int = 8,
        learning_rate: float = 0.05,
        prior: float = 0.01,
        shards: int = 1,
    ) -> None:
        self._space, self._search = space, search
        self._steps, self._points = steps, points
        self._seed, self._batch, self._shards = seed, batch, shards
        self._learning_rate, self._prior = learning_rate, prior
        self._terms = tuple(term for term in terms if term in search.terms)
        self._ends: list[tuple[Mapping[Term, float], tuple[float, ...]]] = []
        self._step = 0  # of the point
        self._steps_made = 0  # of all points, which decides the minibatch
        self._number = 0
        self._descent = self._descend(even_weights(space) if start is None else start)
        self._center = self._descent.genome
        self._round = Round()
        self._begin()

    @property
    def ended(self) -> bool:
        """Whether the last point's end was proposed."""
        return len(self._ends) >= self._points and self._round.asked > 0

    def ask(self) -> Proposal | None:
        """Return the step's next proposal; None while the step's last results are awaited."""
        return None if self.ended else self._round.ask()

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Take a result; the step's last makes the next."""
        if not self._round.tell(proposal, evaluation):
            return
        gradients = [result.gradient for _, result in self._round.results if result and result.gradient]
        self._descent.step(gradients, 1.0)
        self._step += 1
        self._steps_made += 1
        if self._step == self._steps * (1 if self._ends else _FROM_AFAR):
            self._end_point()
        self._begin()

    def _begin(self) -> None:
        space = self._space
        proposals: list[Proposal] = []
        if self._step == 0 and self._ends:  # the end before, beside the first step from wherever the next point begins
            proposals.append(check_proposal(space, self._ends[-1][1], self._number))
        weights = self._weights(len(self._ends))
        for rows in shard_rows(self._search, self._steps_made, self._batch, self._shards, seed=self._seed):
            number = self._number + len(proposals)
            proposals.append(gradient_proposal(space, self._descent.genome, number, rows, weights))
        self._number += len(proposals)
        self._round.begin(proposals)

    def _end_point(self) -> None:
        self._ends.append((self._weights(len(self._ends)), self._descent.genome))
        wanted = self._weights(len(self._ends))
        _, nearest = min(self._ends, key=lambda end: sum(abs(end[0][term] - wanted[term]) for term in self._terms))
        self._descent = self._descend(nearest)
        self._step = 0

    def _descend(self, start: Sequence[float]) -> Descent:
        center = self._center if self._ends else None
        return Descent(self._space, start, learning_rate=self._learning_rate, prior=self._prior, center=center)

    def _weights(self, point: int) -> dict[Term, float]:
        return dict(zip(self._terms, simplex_point(point, len(self._terms)), strict=True))


def simplex_point(index: int, dimension: int) -> tuple[float, ...]:
    """Return the `index`-th (from 0) of a sequence of positive weights that sum to 1 and fill the simplex evenly.

    They are the gaps that the coordinates of a Halton sequence leave in [0, 1]; see Devroye, Non-Uniform Random Variate
    Generation (1986), section V.2.1, for why.

    Args:
        index: At least 0.
        dimension: The number of weights, from 1 to 4.
    """
    cuts = sorted(_mirrored_digits(index + 1, prime) for prime in _PRIMES[: dimension - 1])
    return tuple(high - low for low, high in zip([0.0, *cuts], [*cuts, 1.0], strict=True))


def _mirrored_digits(number: int, base: int) -> float:
    """Return the number's digits behind the point in reverse order: 6 = 110₂ gives 0.011₂."""
    found, unit = 0.0, 1.0
    while number:
        unit /= base
        number, digit = divmod(number, base)
        found += digit * unit
    return found
