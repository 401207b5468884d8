"""Iso-C: sum the task vectors, and give all directions of the sum the same strength."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled
from unspoiled.merging._singular import singular_of_sum


@method(
    "iso_c",
    operands="deltas",
    base="required",
    whole=True,
    squares=2,
    paper="Marczak et al., No Task Left Behind: Isotropic Model Merging, arXiv 2502.04959",
    parameters=[
        # the directions' derivative divides by differences of singular values, which may be zero
        Parameter("weight", default=1.0, differentiable=False),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def iso_c(base: Tensor, deltas: Sequence[Operand], *, weight: Sequence[float], lambda_: Number) -> Tensor:
    """Return θ = θ_base + λ · σ̄ U V, float32, of the base's shape; for a vector θ_base + λ · Σ wᵢ τᵢ / N.

    U diag(σ) V is the singular value decomposition of Σ wᵢ τᵢ, and σ̄ the mean of its singular values. Those that are
    zero up to rounding are left out, of the sum and of the mean, for their directions mean nothing: a sum of LoRA
    experts has no more than the sum of their ranks. The authors' code, made for full-rank experts, keeps them. A
    matrix of one row is treated as a vector.

    Args:
        base: The base's matrix, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        weight: wᵢ, any real number; the paper's are all 1.
        lambda_: λ, any real number.
    """
    if base.shape[0] == 1:
        return sum_scaled(base, deltas, [lambda_ * w / len(deltas) for w in weight])
    found = singular_of_sum(deltas, weight).nonzero()
    if not found.values.numel():
        return base.to(torch.float32, copy=True)
    return torch.addmm(base.float(), found.u * (lambda_ * float(found.values.mean())), found.v)
