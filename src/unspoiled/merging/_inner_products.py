"""Norms and angles of whole tensors, summed block by block: all that the interpolating methods need to know.

A merge that lies in the span of its inputs (slerp, the Karcher mean, Model Stock ...) is a weighted sum of them, and
its weights follow from the inputs' inner products alone. One pass over the tensors gives those; a second makes the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unspoiled.merging._numbers import Number, vector
from unspoiled.merging._operands import Operand, dense, device_of, rows_of

if TYPE_CHECKING:
    from unspoiled.merging._method import TensorBlocks

_CHUNK = 2**16
"""Elements that the CPU converts and multiplies at a time. Copies of this size stay in the cache, and the allocator
keeps their memory, where it gives back and faults in anew that of whole blocks."""


def gram(tensor: TensorBlocks, *, with_base: bool = False) -> Tensor:
    """Return the inner products ⟨xᵢ, xⱼ⟩ of a tensor's operands, float64 of shape [experts, experts].

    The products are float64 too: a float32 dot product of this length is off by several 1e-6 (its rounding has a
    bias), which would leave the angle between close models, or a sum that nearly cancels out, to chance.

    Args:
        tensor: Read once.
        with_base: Put the base before the operands: shape [1 + experts, 1 + experts].
    """
    sums: Tensor | None = None
    count = 0
    for block in tensor:
        operands = [*block.operands]
        if with_base:
            assert block.base is not None
            operands.insert(0, block.base)
        count = len(operands)
        dots = torch.stack([torch.stack(slice_) for slice_ in _dots(operands)]).cpu().sum(0)
        sums = dots if sums is None else sums + dots
    assert sums is not None, f"{tensor.name} has no elements"
    products = torch.empty(count, count, dtype=torch.float64)
    i, j = torch.triu_indices(count, count)
    products[i, j] = products[j, i] = sums
    return products


def row_gram(operands: list[Tensor]) -> Tensor:
    """Return the inner products row by row: of float32 matrices [rows, width], float64 [rows, experts, experts]."""
    count = len(operands)
    products = torch.empty(len(operands[0]), count, count, dtype=torch.float64, device=operands[0].device)
    step = max(1, _chunk(operands[0]) // max(1, operands[0].shape[-1]))
    for start in range(0, len(operands[0]), step):
        rows = slice(start, start + step)
        wide = [operand[rows].double() for operand in operands]
        for i, one in enumerate(wide):
            for j in range(i, count):
                products[rows, i, j] = products[rows, j, i] = torch.linalg.vecdot(one, wide[j])
    return products


def arc_weights(cosine: Tensor, t: Number, *, straight: Tensor) -> Tensor:
    """Return the weights (a, b) with which a·x + b·y lies at fraction t of the arc from x to y.

    Args:
        cosine: Of the angle Ω between x and y, float64 of any shape.
        t: The fraction; outside [0, 1] the great circle goes on.
        straight: Where to take the line, (1 − t, t), since the arc is one, or can't be told; of the same shape.

    Returns:
        sin((1 − t)Ω) / sin Ω and sin(tΩ) / sin Ω, float64 of shape [..., 2].
    """
    omega = torch.acos(torch.where(straight, 0.0, cosine).clamp(-1.0, 1.0))
    line, arc = vector([1.0 - t, t]).to(omega.device), omega.unsqueeze(-1)
    return torch.where(straight.unsqueeze(-1), line, torch.sin(arc * line) / torch.sin(arc))


def _chunk(operand: Operand) -> int:
    """Return how many elements to take at a time: on an accelerator, all of a block's."""
    return _CHUNK if device_of(operand).type == "cpu" else max(1, math.prod(operand.shape))


def _dots(operands: Sequence[Operand]) -> Iterator[list[Tensor]]:
    """Yield ⟨xᵢ, xⱼ⟩ for i ≤ j, row by row of the upper triangle, for each chunk of a block."""
    rows, width = operands[0].shape
    size = _chunk(operands[0])
    step = max(1, size // max(1, width))
    for start in range(0, rows, step):
        slices = [dense(rows_of(operand, start, start + step)).double().reshape(-1) for operand in operands]
        for chunk in zip(*(torch.split(flat, size) for flat in slices), strict=True):
            yield [torch.dot(one, other) for i, one in enumerate(chunk) for other in chunk[i:]]
