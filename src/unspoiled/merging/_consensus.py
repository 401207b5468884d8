"""How sparsified task vectors become one: a weighted sum, of all entries or of those that agree in sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from unspoiled.merging._operands import Operand, dense, total_weight
from unspoiled.merging._pieces import merge_in_pieces
from unspoiled.merging._sparsify import Sparse

_CANCELLED = 1e-6  # a sum this small beside its terms is the rounding of float32


def merge_sparse(
    base: Tensor,
    deltas: Sequence[Operand],
    sparse: Sequence[Sparse],
    first: int,
    *,
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
    method: str,
) -> Tensor:
    """Return base + λ Σ wᵢ τᵢ over the kept entries; with `normalize`, divided by Σ wᵢ of all experts.

    Raises:
        ConfigError: `normalize` is set and the weights sum to zero.
    """
    scale = lambda_ / total_weight(weight, method) if normalize else lambda_

    def merge(base: Tensor, deltas: Sequence[Operand], first: int) -> Tensor:
        total = base.to(torch.float32, copy=True)
        for delta, one, w in zip(deltas, sparse, weight, strict=True):
            if w != 0.0:
                total.add_(one.kept.of(dense(delta), first), alpha=scale * w * one.scale)
        return total

    return merge_in_pieces(base, deltas, first, merge)


def merge_agreeing(
    base: Tensor,
    deltas: Sequence[Operand],
    sparse: Sequence[Sparse],
    first: int,
    *,
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
) -> Tensor:
    """Return base + λ times the sum of the weighted kept entries whose sign is that of the sum of all of them.

    A sum of zero counts as positive, an entry of zero agrees with nothing. With `normalize` each entry is divided by
    the sum of the weights that agree there (by 1 where those cancel).
    """
    factors = [w * one.scale for w, one in zip(weight, sparse, strict=True)]

    def merge(base: Tensor, deltas: Sequence[Operand], first: int) -> Tensor:
        values = [
            one.kept.of(dense(delta), first) * factor
            for delta, one, factor in zip(deltas, sparse, factors, strict=True)
        ]
        total, found = agreeing(values, weights=weight if normalize else None)
        if normalize:
            total.div_(_or_one(found, weight))
        return total.mul_(lambda_).add_(base)

    return merge_in_pieces(base, deltas, first, merge)


def agreeing(
    values: Sequence[Tensor], factors: Sequence[float] | None = None, weights: Sequence[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Return Σ fᵢ xᵢ and Σ wᵢ over the entries with the sign of Σ xᵢ, which counts as positive where it is zero.

    Args:
        values: xᵢ, float32, of one shape; at least one.
        factors: fᵢ; None for ones.
        weights: wᵢ; None to leave their sum at zero.
    """
    side = values[0].clone() if len(values) == 1 else values[0] + values[1]
    for more in values[2:]:
        side.add_(more)
    torch.ge(side, 0.0, out=side).mul_(2.0).sub_(1.0)
    total, found, part, agrees = torch.zeros_like(side), torch.zeros_like(side), None, torch.empty_like(side)
    for i, value in enumerate(values):
        part = torch.mul(value, side, out=part)
        if weights is not None:
            found.add_(torch.gt(part, 0.0, out=agrees), alpha=weights[i])
        total.add_(part.clamp_(min=0.0), alpha=1.0 if factors is None else factors[i])
    return total.mul_(side), found


def _or_one(found: Tensor, weight: Sequence[float]) -> Tensor:
    """Return the sums of weights, in place, with 1 for those that are zero, up to rounding."""
    if min(weight) < 0.0 < max(weight):  # only then do sums that are not empty cancel
        found = hardshrink(found, _CANCELLED * sum(map(abs, weight)))
    return found.add_(torch.eq(found, 0.0, out=torch.empty_like(found)))
