"""Trying proposals on the live model: merge in memory, score rows, race, and find gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch

from unspoiled.data import Split
from unspoiled.errors import ConfigError
from unspoiled.inference import LiveBunch, TransformersBackend
from unspoiled.objective import Goal, Losses, LossRows, Term
from unspoiled.search._strategy import Evaluation, GradientRequest, Proposal, Rival

RUNGS = (0.125, 0.25, 0.5, 1.0)
"""Shares of the rows after which a race looks whether a trial is hopeless."""
_SURE = 3.0  # standard errors of many rows, more of few: three looks per trial at about 0.1% each
_ROUNDING = 1e-5  # by which share of itself a loss may differ where rows are scored in other batches


class LiveEvaluator:
    """Tries proposals on one live model.

    Args:
        bunch: The models in memory.
        rows: The rows of each split.
        goal: What races go by.
        checkpoint: Keep no activations for backward passes: slower, for less memory. Turned on by itself once memory
            runs out without.
    """

    def __init__(
        self, bunch: LiveBunch, rows: Mapping[Split, LossRows], goal: Goal | None, *, checkpoint: bool = False
    ) -> None:
        self._bunch = bunch
        self._rows = rows
        self._goal = goal
        self._checkpoint = checkpoint

    def evaluate(self, proposal: Proposal) -> Evaluation | None:
        """Return what came of a proposal.

        None if not even one sequence fitted in memory, a loss isn't finite, or the method refuses the coefficients
        (weights to be normalized that sum to zero).
        """
        try:
            found = self._evaluate(proposal)
        except torch.OutOfMemoryError:
            return None
        return found if found is not None and found.finite else None

    def _evaluate(self, proposal: Proposal) -> Evaluation | None:
        begun = time.perf_counter()
        try:
            backend = self._bunch.take_recipe(proposal.recipe)
        except ConfigError:
            return None
        merged = time.perf_counter()
        data = self._rows[proposal.split]
        gradient: tuple[float, ...] | None = None
        batches: Sequence[Sequence[int]]
        rows = tuple(range(len(data.rows))) if proposal.rows is None else proposal.rows
        losses: Losses
        if proposal.gradient is not None:
            values, gradient = self._backward_that_fits(backend, data, rows, proposal.gradient)
            losses = data.losses(values, rows)
            passes = 4 if self._checkpoint else 3
            batches = [rows]
        elif proposal.rival is not None:
            batches, values, losses = self._race(backend, data, proposal.rival)
            rows = tuple(sorted(index for batch in batches for index in batch))
            passes = 1
        else:
            values = _scored(backend, data, rows)
            losses = data.losses(values, rows)
            passes, batches = 1, [rows]
        scored = time.perf_counter()
        return Evaluation(
            losses=losses,
            rows=rows,
            cross_entropies=tuple(values),
            stopped=proposal.rival is not None and len(rows) < len(data.rows),
            gradient=gradient,
            tokens=passes * sum(backend.tokens([data.exchanges[i] for i in batch]) for batch in batches),
            merge_seconds=merged - begun,
            loss_seconds=scored - merged,
        )

    def _backward_that_fits(
        self, backend: TransformersBackend, data: LossRows, rows: Sequence[int], request: GradientRequest
    ) -> tuple[list[float], tuple[float, ...]]:
        if self._checkpoint:
            return self._backward(backend, data, rows, request)
        try:
            return self._backward(backend, data, rows, request)
        except torch.OutOfMemoryError:
            self._checkpoint = True  # what was recorded so far is gone with its context
        try:
            return self._backward(backend, data, rows, request)
        except ValueError as error:  # of a model that has no layers to checkpoint
            self._checkpoint = False
            raise torch.OutOfMemoryError(str(error)) from error

    def _backward(
        self, backend: TransformersBackend, data: LossRows, rows: Sequence[int], request: GradientRequest
    ) -> tuple[list[float], tuple[float, ...]]:
        live = self._bunch.live
        weights = data.row_weights(rows, request.weights)
        with live.recording_gradients(set(request.space.arguments)) as found:
            scores = backend.backward([data.exchanges[i] for i in rows], weights, checkpoint=self._checkpoint)
        gradient = request.space.gradient(found.by_tensor, live.models.depths)
        return [score.cross_entropy for score in scores], gradient

    def _race(
        self, backend: TransformersBackend, data: LossRows, rival: Rival
    ) -> tuple[list[list[int]], list[float], Losses]:
        """Score growing subsets of the rows until the trial is surely worse than its rival, or all are scored.

        Returns the rows that each look added, all rows' cross-entropies in the order of the rows, and the losses.

        The subsets are the same for all trials. A stopped trial's losses are the rival's plus the mean difference on
        the rows that both were scored on, which varies less than either.
        """
        assert self._goal is not None, "a race needs a goal"
        done: dict[int, float] = {}
        batches: list[list[int]] = []
        theirs = data.losses(rival.cross_entropies)
        for share in RUNGS:
            wanted = [index for index in data.nested(share) if index not in done]
            done |= dict(zip(wanted, _scored(backend, data, wanted), strict=True))
            batches.append(wanted)
            if len(done) == len(data.rows):
                break
            gaps = {index: value - rival.cross_entropies[index] for index, value in done.items()}
            low = {term: _lowest(data, term, theirs.term(term), gaps) for term in data.terms}
            if self._goal.is_surely_worse(low, rival.score):
                estimated = [rival.cross_entropies[i] for i in range(len(data.rows))]
                shift = {term: _mean_gap(data, term, gaps) for term in data.terms}
                estimated = [value + shift[row.set] for value, row in zip(estimated, data.rows, strict=True)]
                return batches, [done[i] for i in sorted(done)], data.losses(estimated)
        values = [done[i] for i in sorted(done)]
        return batches, values, data.losses(values)


def _scored(backend: TransformersBackend, data: LossRows, rows: Sequence[int]) -> list[float]:
    return [score.cross_entropy for score in backend.score([data.exchanges[i] for i in rows])]


def _of_term(data: LossRows, term: Term, gaps: Mapping[int, float]) -> list[float]:
    return [gap for index, gap in gaps.items() if data.rows[index].set == term]


def _mean_gap(data: LossRows, term: Term, gaps: Mapping[int, float]) -> float:
    own = _of_term(data, term, gaps)
    return math.fsum(own) / len(own)


def _lowest(data: LossRows, term: Term, rival: float, gaps: Mapping[int, float]) -> float:
    """Return the smallest loss on all rows that the rows scored so far leave likely; −∞ from fewer than four."""
    own = _of_term(data, term, gaps)
    if len(own) < 4:
        return -math.inf
    mean = math.fsum(own) / len(own)
    variance = math.fsum((gap - mean) ** 2 for gap in own) / (len(own) - 1)
    left = 1.0 - len(own) / sum(row.set == term for row in data.rows)  # drawn without putting back
    error = math.sqrt(variance * left / len(own))
    return rival + mean - _sure(len(own) - 1) * error - _ROUNDING * abs(rival)


def _sure(freedom: int) -> float:
    """Return Student's quantile that is as rare as `_SURE` of the normal distribution.

    Source: the Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5; for 3 degrees of freedom 7% too low.
    """
    z, n = _SURE, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
