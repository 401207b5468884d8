"""Consensus: sum the task vectors, and erase the entries that matter to too few of the experts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, add_scaled, all_dense, dense


@method(
    "consensus",
    operands="deltas",
    base="required",
    prepare=all_dense,
    paper="Wang et al., Localizing Task Information (TALL masks, Consensus merging), arXiv 2405.07813",
    parameters=[
        Parameter("weight", default=1.0),
        Parameter("mask_lambda", default=0.4, low=0.0, differentiable=False),  # only cuts
        Parameter("k", default=2, low=0, scope="merge"),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def consensus(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    weight: Sequence[Number],
    mask_lambda: Sequence[float],
    k: int,
    lambda_: Number,
) -> Tensor:
    """Return θ = θ_base + λ · 1[Σᵢ mᵢ ≥ k] ⊙ τ, with τ = Σ wᵢ τᵢ, float32, of the base's shape.

    mᵢ, the TALL mask, is 1 for the entries where |τᵢ| ≥ λᵢ · |τ − τᵢ|: where the sum is nearer to the expert than the
    base is. With k = 2, entries that only one expert uses (selfish) or none (catastrophic) stay the base's.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        weight: wᵢ, any real number; the paper's are all 1.
        mask_lambda: λᵢ ≥ 0; the larger, the sparser the expert's mask.
        k: How many experts must use an entry, ≥ 0; 0 is task arithmetic.
        lambda_: λ, any real number.
    """
    values = [dense(delta) for delta in deltas]
    total = torch.zeros_like(values[0])
    for value, w in zip(values, weight, strict=True):
        add_scaled(total, value, w)
    votes = torch.zeros_like(total)
    for value, scale in zip(values, mask_lambda, strict=True):
        rest = (total.detach() - value).abs_().mul_(scale)
        votes.add_(torch.ge(value.abs(), rest, out=rest))
    used = torch.ge(votes, float(k), out=votes)
    return total.mul_(used).mul_(lambda_).add_(base)
