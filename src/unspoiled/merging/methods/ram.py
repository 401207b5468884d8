"""RAM: average where the experts' changes overlap, keep them whole where only one expert made one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, add_scaled, all_dense, dense

_PAPER = "Reinforced Agent Merging, arXiv 2601.13572"
_EPSILON = Parameter("epsilon", default=1e-5, low=0.0, scope="merge", differentiable=False)  # only cuts


@method("ram", operands="deltas", base="required", prepare=all_dense, paper=_PAPER, parameters=[_EPSILON])
def ram(base: Tensor, deltas: Sequence[Operand], *, epsilon: float) -> Tensor:
    """Return θ = θ_base + Σ τᵢ / n for each element, over the n experts with |τᵢ| > ε, float32.

    Args:
        base: The base's tensor.
        deltas: One task vector per expert.
        epsilon: ε, at least 0: changes no larger than this don't count.
    """
    changes, counts = _changes(deltas, epsilon)
    return _total(changes).div_(counts.clamp_(min=1.0)).add_(base)


def _measure(tensor: TensorBlocks, *, epsilon: float) -> tuple[list[int], list[int]]:
    """Return how many elements each expert changed, alone and in all."""
    alone: list[int] = []
    every: list[int] = []
    for block in tensor:
        changes, counts = _changes(block.operands, epsilon)
        only = _only(counts).view(-1)
        changed = [change.sign().abs_().view(-1) for change in changes]
        alone = _added(alone, [int(torch.dot(one, only)) for one in changed])
        every = _added(every, [int(one.sum()) for one in changed])
    return alone, every


def _decide(counts: tuple[list[int], list[int]], *, r: Number, alpha: Number, epsilon: float) -> list[Number]:
    """Return each expert's factor 1 + r · min(shared / alone, α) for the elements that it alone changed."""
    return [1.0 + r * min((all_ - one) / max(one, epsilon, 1e-300), alpha) for one, all_ in zip(*counts, strict=True)]


@method(
    "ramplus_tl",
    operands="deltas",
    base="required",
    paper=_PAPER,
    parameters=[
        Parameter("r", default=0.1, scope="merge"),
        Parameter("alpha", default=0.2, low=0.0, scope="merge"),
        _EPSILON,
    ],
    measure=_measure,
    decide=_decide,
    prepare=all_dense,
)
def ramplus_tl(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    epsilon: float,
    measured: Sequence[Number],
) -> Tensor:
    """Return `ram`'s merge with expert i's lone changes scaled by λᵢ = 1 + r · min(shared / alone, α), float32.

    Alone and shared are the numbers of elements of this tensor that expert i changed alone and with others:
    an expert that loses much to averaging gets more of its own.

    Args:
        base: The base's tensor.
        deltas: One task vector per expert.
        epsilon: ε, at least 0: changes no larger than this don't count.
        measured: The λᵢ, by `r`, the strength of the scaling, any real number, and `alpha`, α, the largest ratio that
            counts, at least 0.
    """
    changes, counts = _changes(deltas, epsilon)
    more = torch.zeros_like(counts)
    for change, factor in zip(changes, measured, strict=True):
        add_scaled(more, change, factor - 1.0)
    more.mul_(_only(counts))
    return _total(changes).div_(counts.clamp_(min=1.0)).add_(more).add_(base)


def _changes(deltas: Sequence[Operand], epsilon: float) -> tuple[list[Tensor], Tensor]:
    """Return the task vectors with entries up to ε set to zero, and how many experts changed each element."""
    changes = [hardshrink(dense(delta), epsilon) for delta in deltas]
    return changes, _total([change.sign().abs_() for change in changes])


def _total(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total.add_(tensor)
    return total


def _only(counts: Tensor) -> Tensor:
    """Return 1 where the count is 1, else 0; in arithmetic, which is faster than a boolean mask."""
    return (counts - 1.0).abs_().neg_().add_(1.0).clamp_(min=0.0)


def _added(totals: list[int], more: list[int]) -> list[int]:
    return [total + one for total, one in zip(totals, more, strict=True)] if totals else more
