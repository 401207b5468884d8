"""SCE: select the entries that vary most between the experts, weigh experts by their size, erase minorities."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unspoiled.merging._consensus import agreeing
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand, dense
from unspoiled.merging._order_statistics import Cut, cuts

_LEAST_WEIGHT = 1e-6  # mergekit's floor of the agreeing weights, which sum to 1 over all experts


@dataclass(frozen=True)
class _Selection:
    """The entries that are merged (None for all of them), and the experts' weights."""

    cut: Cut | None
    weights: tuple[float, ...]


def _measure(tensor: TensorBlocks, *, select_topk: float) -> _Selection:
    cut = None
    if select_topk < 1:
        varying = sum(int(torch.count_nonzero(_variance(block.operands))) for block in tensor)

        def columns() -> Iterator[tuple[int, list[Tensor]]]:
            for block in tensor:
                yield block.first, [_variance(block.operands)]

        ((cut,),) = cuts(columns, [[int(varying * select_topk)]])
    squares: list[float] | None = None
    for block in tensor:
        selected = _selected(block.operands, cut, block.first)
        found = [float(torch.linalg.vector_norm(values)) ** 2 for values in selected]
        squares = found if squares is None else [a + b for a, b in zip(squares, found, strict=True)]
    assert squares is not None
    total = math.fsum(squares)
    uniform = 1 / len(squares)
    return _Selection(cut, tuple(square / total if total > 0 else uniform for square in squares))


@method(
    "sce",
    operands="deltas",
    base="required",
    measure=_measure,
    ignored=("int8_mask",),
    paper="Wan et al., FuseChat: SCE, arXiv 2408.07990",
    parameters=[Parameter("select_topk", default=1.0, low=0.0, high=1.0, scope="merge")],
)
def sce(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: _Selection,
    first: int,
    select_topk: float,  # noqa: ARG001 - decided when measured
) -> Tensor:
    """Return θ = θ_base + Σ_{i agrees} wᵢ τ̂ᵢ / Σ_{i agrees} wᵢ, float32, of the base's shape.

    Select: of the entries on which the experts differ, the ⌊select_topk · their number⌋ of the largest variance over
    the experts are kept in every τ̂ᵢ. Calculate: wᵢ = Σ τ̂ᵢ² / Σⱼ Σ τ̂ⱼ² over the tensor. Erase: an entry agrees if it has
    the sign of Σ τ̂ᵢ. mergekit turns to equal weights where the mean squares sum to less than 1e-6, which ordinary
    fine-tunes do; here the weights don't depend on the scale, as in the paper.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: The entries selected and the weights.
        first: The place of the block's first element in the tensor.
        select_topk: The share of varying entries to merge, in [0, 1].
    """
    selected = _selected(deltas, measured.cut, first)
    weighted, weight = agreeing(selected, measured.weights)
    return weighted.div_(weight.clamp_(min=_LEAST_WEIGHT)).add_(base)


def _variance(operands: Sequence[Operand]) -> Tensor:
    """Return the population variance over the experts, entry by entry."""
    values = [dense(operand) for operand in operands]
    mean = values[0].clone()
    for more in values[1:]:
        mean.add_(more)
    mean.div_(len(values))
    total = torch.zeros_like(mean)
    for value in values:
        total.add_((value - mean).square_())
    return total.div_(len(values))


def _selected(operands: Sequence[Operand], cut: Cut | None, first: int) -> list[Tensor]:
    values = [dense(operand) for operand in operands]
    if cut is None:
        return values
    mask = cut.keep(_variance(operands), first).sign_()
    return [value * mask for value in values]
