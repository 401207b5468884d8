"""Singular vectors of task vectors, dense or low-rank, for the methods that merge whole matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.merging._operands import Operand, dense, sum_scaled


@dataclass(frozen=True)
class Singular:
    """The thin decomposition U diag(σ) V of a matrix [rows, width], σ descending.

    Attributes:
        u: [rows, rank], orthonormal columns.
        values: [rank], ≥ 0.
        v: [rank, width], orthonormal rows.
    """

    u: Tensor
    values: Tensor
    v: Tensor

    def leading(self, count: int) -> Singular:
        """Return a copy of the part of the `count` largest singular values, which lets go of the rest."""
        return Singular(self.u[:, :count].clone(), self.values[:count].clone(), self.v[:count].clone())

    def nonzero(self) -> Singular:
        """Return the part of the singular values that aren't zero up to float32's rounding.

        The threshold is that of `numpy.linalg.matrix_rank`: σ₁ · max(rows, width) · ε.
        """
        if not self.values.numel():
            return self
        size = max(self.u.shape[0], self.v.shape[1])
        least = self.values[0] * size * torch.finfo(torch.float32).eps
        return self.leading(int((~(self.values <= least)).sum()))  # NaN stays


def singular(operand: Operand) -> Singular:
    """Decompose one matrix, float32; a low-rank task vector through its factors, which has only its own rank."""
    return _of_factors([operand], [1.0]) if isinstance(operand, LowRankDelta) else _of_matrix(dense(operand))


def singular_of_sum(operands: Sequence[Operand], weights: Sequence[float]) -> Singular:
    """Decompose Σ wᵢ xᵢ; through the factors where all operands are low-rank and together of less than full rank."""
    low_rank = [operand for operand in operands if isinstance(operand, LowRankDelta)]
    rank = sum(delta.a.shape[0] for delta in low_rank)
    if len(low_rank) == len(operands) and rank < min(operands[0].shape):
        return _of_factors(low_rank, weights)
    return _of_matrix(sum_scaled(None, operands, weights))


def nearest_orthogonal(matrix: Tensor) -> Tensor:
    """Return the matrix of orthonormal columns (rows, if it is wide) nearest to `matrix`: U V of its decomposition.

    Source: Schönemann 1966, the orthogonal Procrustes problem.
    """
    found = _of_matrix(matrix)
    return found.u @ found.v


def _of_matrix(matrix: Tensor) -> Singular:
    """Decompose a matrix; one with NaN or Inf into NaN, so that what is merged from it shows it too.

    LAPACK fails on NaN and gives finite nonsense for Inf.
    """
    if not torch.isfinite(matrix).all():
        rows, width = matrix.shape
        rank = min(rows, width)
        return Singular(*(matrix.new_full(shape, torch.nan) for shape in ((rows, rank), (rank,), (rank, width))))
    return Singular(*torch.linalg.svd(matrix, full_matrices=False))


def _of_factors(deltas: Sequence[LowRankDelta], weights: Sequence[float]) -> Singular:
    b = torch.cat([delta.b.float() * (delta.scale * w) for delta, w in zip(deltas, weights, strict=True)], dim=1)
    a = torch.cat([delta.a.float() for delta in deltas])
    q_left, r_left = torch.linalg.qr(b)
    q_right, r_right = torch.linalg.qr(a.T)
    inner = _of_matrix(r_left @ r_right.T)
    return Singular(q_left @ inner.u, inner.values, inner.v @ q_right.T)
