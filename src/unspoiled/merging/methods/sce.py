"""SCE: select the entries that vary most between the experts, weigh experts by their size, erase minorities."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unspoiled.merging._consensus import agreeing
from unspoiled.merging._method import Block, Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand, dense
from unspoiled.merging._order_statistics import Cut, cuts
from unspoiled.merging._pieces import all_pieces

_LEAST_WEIGHT = 1e-6  # mergekit's floor of the agreeing weights, which sum to 1 over all experts


@dataclass(frozen=True)
class _Selection:
    """The entries that are merged (None for all of them), and the experts' weights."""

    cut: Cut | None
    weights: tuple[float, ...]


def _measure(tensor: TensorBlocks, *, select_topk: float) -> _Selection:
    cut = None
    if select_topk < 1:

        def columns() -> Iterator[tuple[int, Callable[[int], Tensor]]]:
            for piece in all_pieces(tensor):
                yield piece.first, partial(_variance_of, piece)

        ((cut,),) = cuts(columns, [lambda varying: [int(varying * select_topk)]])
    parts = [
        [float(torch.linalg.vector_norm(values)) ** 2 for values in _selected(block.operands, cut, block.first)]
        for block in all_pieces(tensor)
    ]
    squares = [math.fsum(of_blocks) for of_blocks in zip(*parts, strict=True)]
    total = math.fsum(squares)
    uniform = 1 / max(len(squares), 1)
    return _Selection(cut, tuple(square / total if total > 0 else uniform for square in squares))


@method(
    "sce",
    operands="deltas",
    base="required",
    measure=_measure,
    in_pieces=True,
    ignored=("int8_mask",),
    paper="Wan et al., FuseChat: SCE, arXiv 2408.07990",
    parameters=[Parameter("select_topk", default=1.0, low=0.0, high=1.0, scope="merge", differentiable=False)],
)
def sce(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: _Selection,
    first: int,
) -> Tensor:
    """Return θ = θ_base + Σ_{i agrees} wᵢ τ̂ᵢ / Σ_{i agrees} wᵢ, float32, of the base's shape.

    Select: of the entries on which the experts differ, the ⌊select_topk · their number⌋ of the largest variance over
    the experts are kept in every τ̂ᵢ. Calculate: wᵢ = Σ τ̂ᵢ² / Σⱼ Σ τ̂ⱼ² over the tensor. Erase: an entry agrees if it has
    the sign of Σ τ̂ᵢ. mergekit turns to equal weights where the mean squares sum to less than 1e-6, which ordinary
    fine-tunes do; here the weights don't depend on the scale, as in the paper.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: The entries selected, `select_topk` being the share of varying entries to merge, in [0, 1], and the
            weights.
        first: The place of the block's first element in the tensor.
    """
    weights = measured.weights
    weighted, weight = agreeing(_selected(deltas, measured.cut, first), factors=weights, weights=weights)
    return weighted.div_(weight.clamp_(min=_LEAST_WEIGHT)).add_(base)


def _variance_of(piece: Block, _column: int) -> Tensor:
    return _variance([dense(operand) for operand in piece.operands])


def _variance(values: Sequence[Tensor]) -> Tensor:
    """Return the variance over the experts, entry by entry, times their number: the order is all that is needed.

    It is that of the differences to the first expert, which are zero exactly where all are equal. As one of the
    differences is zero, Σ e² − (Σ e)² / n can't fall below Σ e² / n: little is lost by cancellation.
    """
    total, squares = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for value in values[1:]:
        difference = value - values[0]
        total.add_(difference)
        squares.addcmul_(difference, difference)
    return squares.addcmul_(total, total, value=-1 / len(values)).abs_()  # NaN may have a sign


def _selected(operands: Sequence[Operand], cut: Cut | None, first: int) -> list[Tensor]:
    values = [dense(operand) for operand in operands]
    if cut is None:
        return values
    mask = cut.keep(_variance(values), first).sign_()
    return [value * mask for value in values]
