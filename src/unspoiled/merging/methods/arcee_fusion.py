"""Arcee Fusion: take the changes of another model that stand out, and leave the rest of the base."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from unspoiled.merging._method import Block, TensorBlocks, method
from unspoiled.merging._operands import Operand, dense
from unspoiled.merging._order_statistics import cuts

_SMOOTHING = 1e-8  # is added to probabilities, as in mergekit
_ROUNDING = 1e-15  # divergences below this are rounding of float64: of a row shifted by a constant, say


@dataclass(frozen=True)
class Standout:
    """What stands out in a tensor.

    Attributes:
        divergence: KL divergence of each row, float32 [rows].
        threshold: The least importance that is taken.
    """

    divergence: Tensor
    threshold: float


def _measure(tensor: TensorBlocks) -> Standout:
    divergence = torch.cat([_divergence(block) for block in tensor])

    def columns() -> Iterator[tuple[int, Callable[[int], Tensor]]]:
        for block in tensor:
            yield block.first, partial(_column, block, divergence)

    last = math.prod(tensor.shape) - 1
    counts = [last + 1 - int(share * last) for share in (0.25, 0.5, 0.75)]  # of the quartiles, from above
    (found,) = cuts(columns, [lambda _: counts])
    lower, median, upper = (np.float32(cut.threshold) for cut in found)
    return Standout(divergence, float(median + np.float32(1.5) * (upper - lower)))


@method(
    "arcee_fusion",
    operands="tensors",
    base="required",
    experts=(1, 1),
    paper="of mergekit: Goddard et al., Arcee's MergeKit, arXiv 2403.13257",
    parameters=[],
    measure=_measure,
)
def arcee_fusion(base: Tensor, tensors: Sequence[Operand], *, measured: Standout, first: int) -> Tensor:
    """Return θ = θ_base + [I ≥ median(I) + 1.5 (q₇₅(I) − q₂₅(I))] · τ, float32, for the importance I.

    I = |τ| · KL(softmax(θ) ‖ softmax(θ_base)), τ = θ − θ_base; the divergence is of rows (of the last dimension),
    computed in float64, the quantiles are of the whole tensor: the value at place ⌊q (n − 1)⌋ in rising order.

    Args:
        base: The base's tensor.
        tensors: The other model's.
        measured: The rows' divergences and the threshold.
        first: The block's place in the tensor, in elements.
    """
    delta = _delta(tensors[0], base)
    importance = _importance(delta, measured.divergence, first)
    taken = torch.ge(importance, measured.threshold, out=torch.empty_like(importance))
    return delta.mul_(taken).add_(base)


def _column(block: Block, divergence: Tensor, _: int) -> Tensor:
    return _importance(_delta(_other(block), _base(block)), divergence, block.first)


def _divergence(block: Block) -> Tensor:
    """Return Σ p log(p / q) for each row; in float64, since in float32 rounding hides that of close models."""
    p = torch.softmax(dense(_other(block)).double(), dim=-1).add_(_SMOOTHING)
    q = torch.softmax(_base(block).double(), dim=-1).add_(_SMOOTHING)
    return hardshrink((p / q).log_().mul_(p).sum(-1).clamp_(min=0.0), _ROUNDING).float()


def _importance(delta: Tensor, divergence: Tensor, first: int) -> Tensor:
    rows, width = delta.shape
    start = first // width
    return torch.mul(delta, divergence[start : start + rows].unsqueeze(-1)).abs_()  # last, for NaN may have a sign


def _delta(other: Operand, base: Tensor) -> Tensor:
    return dense(other) - base.float()


def _base(block: Block) -> Tensor:
    assert block.base is not None
    return block.base


def _other(block: Block) -> Operand:
    (other,) = block.operands
    return other
