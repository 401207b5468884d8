"""Norms and angles of whole tensors, summed block by block: all that the interpolating methods need to know.

A merge that lies in the span of its inputs (slerp, the Karcher mean, Model Stock ...) is a weighted sum of them, and
its weights follow from the inputs' inner products alone. One pass over the tensors gives those; a second makes the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unspoiled.merging._operands import dense

if TYPE_CHECKING:
    from unspoiled.merging._method import TensorBlocks

_CHUNK = 2**16  # elements of a float32 dot product; the sums of chunks are added in float64


def gram(tensor: TensorBlocks) -> Tensor:
    """Return the inner products ⟨xᵢ, xⱼ⟩ of a tensor's operands, float64 of shape [experts, experts]."""
    total: Tensor | None = None
    for block in tensor:
        products = _gram([dense(operand).reshape(-1) for operand in block.operands])
        total = products if total is None else total + products
    assert total is not None, f"{tensor.name} has no elements"
    return total


def row_gram(operands: list[Tensor]) -> Tensor:
    """Return the inner products row by row: of float32 matrices [rows, width], float64 [rows, experts, experts]."""
    stacked = torch.stack(operands, dim=1)
    return (stacked @ stacked.transpose(1, 2)).double()


def _gram(vectors: list[Tensor]) -> Tensor:
    products = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    chunks = [torch.split(vector, _CHUNK) for vector in vectors]
    for i, first in enumerate(chunks):
        for j in range(i, len(chunks)):
            dots = torch.stack([torch.dot(one, other) for one, other in zip(first, chunks[j], strict=True)])
            products[i, j] = products[j, i] = dots.double().sum()
    return products
