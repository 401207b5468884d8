"""LED: keep of each expert only the weights that its task depends on, and that no other task claims."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from unspoiled.merging._method import Block, Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, add_scaled_product, dense
from unspoiled.merging._order_statistics import Cut, cuts
from unspoiled.merging._statistics import Statistic, StatisticsOf

_KINDS = ("importance", "base_importance")


def _measure(tensor: TensorBlocks, *, density: Sequence[float]) -> list[list[Cut]]:
    """Return each expert's cuts of its own scores and of the base's."""
    size = math.prod(tensor.shape)
    counts = [int(share * size) for share in density for _ in _KINDS]

    def columns() -> Iterator[tuple[int, Callable[[int], Tensor]]]:
        for block in tensor:
            scores = [score for own in block.statistics for score in _scores(own, block)]
            yield block.first, [score.clone() for score in scores].__getitem__

    found = [cut for (cut,) in cuts(columns, [partial(_wanted, count) for count in counts])]
    return [found[2 * i : 2 * i + 2] for i in range(len(density))]


def _wanted(count: int, _: int) -> list[int]:
    return [count]


@method(
    "led",
    operands="deltas",
    base="required",
    measure=_measure,
    statistics=[Statistic(kind) for kind in _KINDS],
    paper="Ma et al., LED-Merging: Location-Election-Disjoint, arXiv 2502.16770",
    parameters=[Parameter("density", low=0.0, high=1.0, differentiable=False), Parameter("weight", default=1.0)],
)
def led(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: Sequence[Sequence[Cut]],
    first: int,
    statistics: Sequence[StatisticsOf],
    weight: Sequence[Number],
) -> Tensor:
    """Return θ = θ_base + Σ wᵢ mᵢ ⊙ τᵢ, float32, of the base's shape.

    Location: the ⌊density · n⌋ weights of the tensor with the largest scores, in the expert and in the base, on the
    expert's data; of equal scores the earlier. Election: eᵢ is 1 for those that are in both. Disjoint: mᵢ is eᵢ
    without the entries that any other expert elects, so that every entry has at most one expert.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: Each expert's cuts of its two scores, at `density`: the share of weights to locate, in [0, 1]; the
            paper's rᵢ.
        first: The place of the block's first element in the tensor.
        statistics: Each expert's `importance` and `base_importance`, ≥ 0, of the tensor's shape: SNIP's scores
            |θ ∂L/∂θ| of the expert's and of the base's weights.
        weight: wᵢ, any real number.
    """
    block = Block(base, deltas, first, statistics)
    elected = []
    for own, both in zip(statistics, measured, strict=True):
        located = [_is_kept(cut, score, first) for cut, score in zip(both, _scores(own, block), strict=True)]
        elected.append(located[0].mul_(located[1]))
    claims = torch.stack(elected).sum(dim=0)
    alone = torch.eq(claims, 1.0, out=claims)
    total = base.to(torch.float32, copy=True)
    for delta, mine, w in zip(deltas, elected, weight, strict=True):
        add_scaled_product(total, dense(delta), mine.mul_(alone), w)
    return total


def _is_kept(cut: Cut, score: Tensor, first: int) -> Tensor:
    """Return 1 for the entries of the k largest scores, else 0; entries that score 0 are never among them."""
    return cut.keep(score, first).sign()


def _scores(own: StatisticsOf, block: Block) -> list[Tensor]:
    found = []
    for kind in _KINDS:
        score = own(kind)
        assert score is not None
        found.append(score if block.base is None else score.to(block.base.device))
    return found
