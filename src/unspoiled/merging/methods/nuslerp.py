"""NuSLERP: along the arc between two models or task vectors, for whole tensors, rows or columns."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._inner_products import arc_weights, gram, row_gram
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number, numbers_of, value_of
from unspoiled.merging._operands import Operand, dense, sum_scaled

_SMALLEST = 1e-7  # least norm that is divided by, as in mergekit
_STRAIGHT = 1e-6  # sin² of an angle beside π below which weights above 1000 would amplify the rounding of the sum
_CANCELLED = 1e-6  # weights that sum to less take the middle, as in mergekit


def _measure(tensor: TensorBlocks, *, nuslerp_row_wise: bool, nuslerp_flatten: bool) -> Tensor | None:
    """Return the inner products of the two operands, [period, 2, 2], for elements period apart; None if by row."""
    if nuslerp_flatten:
        return gram(tensor).unsqueeze(0)
    return _column_gram(tensor) if nuslerp_row_wise else None


def _decide(products: Tensor | None, *, weight: Sequence[Number]) -> Tensor | None:
    """Return the weights of the two operands, [period, 2], for elements period apart; None if they go by row."""
    return None if products is None else _weights(products, weight)


@method(
    "nuslerp",
    operands="deltas",
    base="optional",
    experts=(2, 2),
    paper="Shoemake, Animating rotation with quaternion curves, doi 10.1145/325165.325242",
    parameters=[
        Parameter("weight"),
        Parameter("nuslerp_row_wise", default=False, scope="merge"),
        Parameter("nuslerp_flatten", default=True, scope="merge"),
    ],
    measure=_measure,
    decide=_decide,
)
def nuslerp(
    base: Tensor | None,
    operands: Sequence[Operand],
    *,
    weight: Sequence[Number],
    measured: Tensor | None,
    first: int,
) -> Tensor:
    """Return x = (sin((1 − t)Ω) x₁ + sin(tΩ) x₂) / sin Ω with t = w₂ / (w₁ + w₂), float32.

    The xᵢ are task vectors, to which the base is added, or without a base the weights. Where sin² Ω ≤ 1e-6,
    for parallel and opposite ones, it is the line (1 − t) x₁ + t x₂; a zero one counts as orthogonal.

    Args:
        base: The base's tensor, or None.
        operands: Two task vectors or tensors.
        weight: w₁ and w₂; t = 1/2 where they cancel out.
        measured: The weights of the two operands: with `nuslerp_flatten` of one angle for the whole tensor; else with
            `nuslerp_row_wise` of the angles along the first dimension (the columns of a matrix, one angle each), as
            mergekit does under this name; else None, for the angles along the last.
        first: The block's place in the tensor, in elements.
    """
    if measured is not None and len(measured) == 1:
        return sum_scaled(base, operands, numbers_of(measured[0]))
    one, other = (dense(operand) for operand in operands)
    if measured is None:
        factors = _weights(row_gram([one, other]), weight).unsqueeze(1)
    elif len(measured) == one.shape[-1]:
        factors = measured.unsqueeze(0)
    else:
        factors = measured[_places(one, first, len(measured))].view(*one.shape, 2)
    a, b = factors.float().to(one.device).unbind(-1)
    merged = torch.addcmul(one * a, other, b)
    return merged if base is None else merged.add_(base)


def _weights(products: Tensor, weight: Sequence[Number]) -> Tensor:
    """Return the weights of the two operands for inner products [..., 2, 2]."""
    total = weight[0] + weight[1]
    t = 0.5 if abs(value_of(total)) < _CANCELLED else weight[1] / total
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=0.0).sqrt().clamp(min=_SMALLEST)
    cosine = (products[..., 0, 1] / norms.prod(-1)).clamp(-1.0, 1.0)
    return arc_weights(cosine, t, straight=1.0 - cosine.square() <= _STRAIGHT)


def _column_gram(tensor: TensorBlocks) -> Tensor:
    """Return the inner products along the first dimension, float64 [period, 2, 2]: one for each place in the others."""
    period = math.prod(tensor.shape[1:])
    total: Tensor | None = None
    for block in tensor:
        given = [dense(operand) for operand in block.operands]
        if total is None:
            total = torch.zeros(2, 2, period, dtype=torch.float64, device=given[0].device)
        for i, j in ((0, 0), (0, 1), (1, 1)):
            products = given[i] * given[j]
            if products.shape[-1] == period:
                total[i, j] += products.sum(0, dtype=torch.float64)
            else:
                total[i, j].index_add_(0, _places(products, block.first, period), products.double().view(-1))
    assert total is not None, f"{tensor.name} has no elements"
    total[1, 0] = total[0, 1]
    return total.permute(2, 0, 1)


def _places(block: Tensor, first: int, period: int) -> Tensor:
    """Return each element's place in the dimensions after the first, for a block's elements in order."""
    return torch.arange(first, first + block.numel(), device=block.device) % period
