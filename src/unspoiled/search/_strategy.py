"""The one protocol of every search: a strategy is asked for proposals and told what came of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from unspoiled.config import Recipe
from unspoiled.data import Split
from unspoiled.objective import Losses, Score, Term
from unspoiled.search._space import SearchSpace


@dataclass(frozen=True)
class GradientRequest:
    """A wish for the gradient of Σ weight · loss with respect to a genome.

    Args:
        space: The space whose genome the proposal's recipe stands for.
        weights: The weight of each loss.
    """

    space: SearchSpace
    weights: Mapping[Term, float]


@dataclass(frozen=True)
class Rival:
    """A trial that a new one must not be surely worse than, to be scored on all rows.

    Args:
        cross_entropies: The rival's, for every row of the split in order.
        score: The rival's score by the goal.
    """

    cross_entropies: tuple[float, ...]
    score: Score


@dataclass(frozen=True)
class Proposal:
    """A recipe to try, and what to find out about it.

    Args:
        number: The strategy's own count, from 0 in the order of asking.
        recipe: The recipe.
        coefficients: Its coefficients by name, as the study records them.
        split: Whose rows to score.
        rows: Indices of the split's rows to score; None for all.
        gradient: Find the gradient, too.
        rival: Score growing subsets of the rows, and stop once the trial is surely worse than this.
        candidate: Whether it may be chosen; False for a probe that only informs the strategy.
    """

    number: int
    recipe: Recipe
    coefficients: Mapping[str, float]
    split: Split = "search"
    rows: tuple[int, ...] | None = None
    gradient: GradientRequest | None = None
    rival: Rival | None = None
    candidate: bool = True


@dataclass(frozen=True)
class Evaluation:
    """What came of a proposal.

    Attributes:
        losses: The losses on the rows that were scored; of a trial that was stopped, estimated for all rows.
        rows: Indices of the rows that were scored.
        cross_entropies: Nats per token of each of them.
        stopped: Whether a race ended it before all rows were scored.
        gradient: ∂(Σ weight · loss)/∂genome, if it was asked for.
        tokens: What it cost, in tokens of a forward pass; a backward pass counts as two.
        merge_seconds: Time to merge in memory.
        loss_seconds: Time to compute the losses, and the gradient.
        worker: Which worker found it; empty where there is but one.
    """

    losses: Losses
    rows: tuple[int, ...]
    cross_entropies: tuple[float, ...]
    stopped: bool
    gradient: tuple[float, ...] | None
    tokens: int
    merge_seconds: float
    loss_seconds: float
    worker: str = ""

    @property
    def finite(self) -> bool:
        """Whether every loss and the gradient are numbers."""
        return self.losses.finite and all(map(math.isfinite, self.gradient or ()))


class Evaluator(Protocol):
    """A worker's live model: tries one proposal at a time."""

    def evaluate(self, proposal: Proposal) -> Evaluation | None:
        """Return what came of a proposal; None if it can't be merged, memory ran out or a loss isn't finite."""
        ...


class Strategy(Protocol):
    """Proposes recipes; deterministic in its seed, what it is told and when, so that a search can be replayed.

    It must put up with results in another order than that of its proposals: workers differ in speed.
    """

    @property
    def name(self) -> str:
        """The name in configs, studies and reports."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it will propose nothing more, whatever it is told."""
        ...

    def ask(self) -> Proposal | None:
        """Return the next proposal, or None: it has ended, or waits for a result first.

        To ask in vain changes nothing: when a search is replayed, only the proposals are asked for again.
        """
        ...

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Take what came of a proposal; None for a trial that failed."""
        ...


class Executor(Protocol):
    """Tries proposals, one or many at once."""

    @property
    def slots(self) -> int:
        """How many proposals it works on at once."""
        ...

    def submit(self, proposal: Proposal) -> None:
        """Begin with a proposal."""
        ...

    def finished(self) -> tuple[Proposal, Evaluation | None]:
        """Wait for any submitted proposal, and return it with what came of it."""
        ...
