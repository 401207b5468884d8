"""Descent on the coefficients by gradients through the merge."""

from __future__ import annotations

from collections.abc import Sequence

from unspoiled.objective import Goal, LossRows, Score
from unspoiled.search._descent import Descent, Round, check_proposal, gradient_proposal, shard_rows
from unspoiled.search._multipliers import loss_weights
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Evaluation, Proposal
from unspoiled.search.grid import even_weights

_FAILURES = 3


class Gradient:
    """Minimise a goal by Adam on minibatches of the search split, checked on the selection split.

    Works in rounds: a step's proposals, and before every `check_every`-th step the genome as a candidate beside them.
    A round ends when all of its results are told, in any order; so any number of workers finds the same.

    Limits are enforced by an augmented Lagrangian (`Multipliers`). A step whose every shard failed goes half of the way
    back to the last genome that worked; after three in a row the search ends.

    Source: Kingma and Ba, Adam, arXiv 1412.6980; learning merge coefficients by gradient: Yang et al., AdaMerging,
    arXiv 2310.02575, there by the entropy of predictions.

    Args:
        space: What moves, and its ranges.
        goal: What is minimised, by losses on the search split.
        search: The rows of the search split.
        steps: Steps in all, rounded up to whole checks.
        batch: Rows of every set in a step and shard.
        learning_rate: About how far a coefficient goes in one of the first steps, if its range is 1.5 wide; others go
            in proportion. The k-th step is 1/√(1 + k/20) of it, whatever `steps` is.
        seed: Decides the minibatches.
        start: The genome to start from; the uniform merge's by default (`cocktail_start` gives a warmer one). Clipped.
        prior: κ ≥ 0: κ · mean of the squared distances from the start is added to the loss, in nats per token at a
            distance of 1 (for a range of 1.5) of every coefficient.
        check_every: Steps from one check to the next, at least 1.
        patience: End after so many checks in a row without a better score.
        shards: Proposals per step, on rows of their own, whose gradients are averaged: one for each worker.
        selection_goal: The goal on the selection split, where limits may differ; `goal` by default.
        reference: The safest expert's nats per token for every row of the search split (`Parents.cross_entropies`),
            which make minibatches comparable to the limits; see `Multipliers`.
        margin: Aim so far below the limits, as a share of each.
    """

    name = "gradient"

    def __init__(
        self,
        space: SearchSpace,
        goal: Goal,
        search: LossRows,
        *,
        steps: int = 40,
        batch: int = 8,
        learning_rate: float = 0.05,
        seed: int = 0,
        start: Sequence[float] | None = None,
        prior: float = 0.01,
        check_every: int = 5,
        patience: int = 4,
        shards: int = 1,
        selection_goal: Goal | None = None,
        reference: Sequence[float] | None = None,
        margin: float = 0.02,
    ) -> None:
        self._space = space
        self._goal = selection_goal or goal
        self._search = search
        self._last = -(-steps // check_every) * check_every
        self._batch, self._shards, self._seed = batch, shards, seed
        self._check_every, self._patience = check_every, patience
        self._weigher = loss_weights(goal, search, selection_goal=selection_goal, reference=reference, margin=margin)
        self._descent = Descent(
            space, even_weights(space) if start is None else start, learning_rate=learning_rate, prior=prior
        )
        self._best: Score | None = None
        self._fruitless = 0
        self._step = 0
        self._number = 0
        self._round = Round()
        self._begin()

    @property
    def ended(self) -> bool:
        """Whether all steps were made, nothing was gained for a while, or every step fails."""
        hopeless = self._fruitless >= self._patience or self._descent.failures >= _FAILURES
        return hopeless or (self._step >= self._last and self._round.asked > 0)  # the last round is only its check

    def ask(self) -> Proposal | None:
        """Return the round's next proposal; None while the round's last results are awaited."""
        if self.ended:
            return None
        return self._round.ask()

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Take a result; the round's last makes the next step."""
        if self._round.tell(proposal, evaluation):
            self._learn()
            self._step += 1
            self._begin()

    def _begin(self) -> None:
        space, genome = self._space, self._descent.genome
        proposals: list[Proposal] = []
        if self._step and self._step % self._check_every == 0:
            proposals.append(check_proposal(space, genome, self._number))
        for rows in shard_rows(self._search, self._step, self._batch, self._shards, seed=self._seed):
            number = self._number + len(proposals)
            proposals.append(gradient_proposal(space, genome, number, rows, self._weigher.weights))
        self._number += len(proposals)
        self._round.begin(proposals)

    def _learn(self) -> None:
        weights = self._weigher.weights
        gradients: list[tuple[float, ...]] = []
        rows: list[int] = []
        values: list[float] = []
        for proposal, evaluation in self._round.results:
            if proposal.gradient is None:
                self._check(evaluation)
            elif evaluation is not None and evaluation.gradient is not None:
                gradients.append(evaluation.gradient)
                rows += evaluation.rows
                values += evaluation.cross_entropies
        self._descent.step(gradients, sum(weights.values()))
        if gradients:
            self._weigher.minibatch(rows, values)

    def _check(self, evaluation: Evaluation | None) -> None:
        score = None if evaluation is None else self._goal.score(evaluation.losses)
        if evaluation is not None:
            self._weigher.check(evaluation.losses)
        if score is not None and (self._best is None or score < self._best):
            self._best, self._fruitless = score, 0
        else:
            self._fruitless += 1
