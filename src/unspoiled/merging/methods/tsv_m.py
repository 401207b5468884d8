"""TSV-M: give each expert its share of singular directions, and make them orthogonal between the experts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled
from unspoiled.merging._singular import nearest_orthogonal, singular


@method(
    "tsv_m",
    operands="deltas",
    base="required",
    whole=True,
    squares=2,
    paper="Gargiulo et al., Task Singular Vectors, arXiv 2412.00081",
    parameters=[Parameter("weight", default=1.0), Parameter("lambda", default=1.0, scope="merge")],
)
def tsv_m(base: Tensor, deltas: Sequence[Operand], *, weight: Sequence[Number], lambda_: Number) -> Tensor:
    """Return θ = θ_base + λ · U⊥ Σ V⊥, float32, of the base's shape; for a vector θ_base + λ · Σ wᵢ τᵢ / N.

    Each task vector of a matrix gives its k = max(1, ⌊min(rows, width) / N⌋) largest singular values and their
    vectors, N being the number of experts; U = [U₁ … U_N] and V = [V₁ … V_N] are replaced by the nearest matrices with
    orthonormal columns, Σ holds all the singular values. Where N > min(rows, width) the columns can't all be
    orthogonal, and the rows are made so. Singular values that are zero up to rounding (of a LoRA expert, beyond its
    rank) are left out, for their directions mean nothing; the authors' code keeps them. A matrix of one row is treated
    as a vector.

    Args:
        base: The base's matrix, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        weight: wᵢ, any real number, multiplies the task vector; the paper's are all 1.
        lambda_: λ, any real number.
    """
    if base.shape[0] == 1:
        return sum_scaled(base, deltas, [lambda_ * w / len(deltas) for w in weight])
    count = max(1, min(base.shape) // len(deltas))
    parts = [singular(delta).nonzero().leading(count) for delta in deltas]
    values = torch.cat([part.values * w for part, w in zip(parts, weight, strict=True)])
    if not values.numel():
        return base.to(torch.float32, copy=True)
    left = nearest_orthogonal(torch.cat([part.u for part in parts], dim=1))
    right = nearest_orthogonal(torch.cat([part.v for part in parts]))
    return torch.addmm(base.float(), left * (values * lambda_), right)
