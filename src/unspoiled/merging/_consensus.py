"""How sparsified task vectors become one: a weighted sum, of all entries or of those that agree in sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from unspoiled.merging._numbers import Number, is_left_out, value_of
from unspoiled.merging._operands import Operand, add_scaled, dense

_CANCELLED = 1e-6  # a sum this small beside its terms is the rounding of float32


def merge_sparse(
    base: Tensor,
    kept: Sequence[Operand],
    *,
    weight: Sequence[Number],
    scale: Sequence[float],
    lambda_: Number,
) -> Tensor:
    """Return base + λ Σ wᵢ sᵢ τ̂ᵢ, float32.

    Args:
        base: The base's rows.
        kept: The kept entries τ̂ᵢ of each expert's task vector.
        weight: wᵢ.
        scale: sᵢ, the factors that restore the task vectors' size.
        lambda_: λ.
    """
    total = base.to(torch.float32, copy=True)
    for entries, w, s in zip(kept, weight, scale, strict=True):
        if not is_left_out(w):
            add_scaled(total, dense(entries), lambda_ * w * s)
    return total


def merge_agreeing(
    base: Tensor,
    kept: Sequence[Operand],
    *,
    weight: Sequence[Number],
    scale: Sequence[float],
    normalize: bool,
    lambda_: Number,
) -> Tensor:
    """Return base + λ times the sum of the weighted kept entries whose sign is that of the sum of all of them.

    A sum of zero counts as positive, an entry of zero agrees with nothing. With `normalize` each entry is divided by
    the sum of the weights that agree there (by 1 where those cancel). The arguments are those of `merge_sparse`.
    """
    values = [dense(entries) * (w * s) for entries, w, s in zip(kept, weight, scale, strict=True)]
    total, found = agreeing(values, weights=weight if normalize else None)
    if normalize:
        total.div_(_or_one(found, weight))
    return total.mul_(lambda_).add_(base)


def agreeing(
    values: Sequence[Tensor], factors: Sequence[float] | None = None, weights: Sequence[Number] | None = None
) -> tuple[Tensor, Tensor]:
    """Return Σ fᵢ xᵢ and Σ wᵢ over the entries with the sign of Σ xᵢ, which counts as positive where it is zero.

    Args:
        values: xᵢ, float32, of one shape; at least one.
        factors: fᵢ; None for ones.
        weights: wᵢ; None to leave their sum at zero.
    """
    plain = [value.detach() for value in values]  # which sign is elected has no derivative
    side = plain[0].clone() if len(plain) == 1 else plain[0] + plain[1]
    for more in plain[2:]:
        side.add_(more)
    torch.ge(side, 0.0, out=side).mul_(2.0).sub_(1.0)
    total, found, part, agrees = torch.zeros_like(side), torch.zeros_like(side), None, torch.empty_like(side)
    for i, value in enumerate(values):
        part = torch.mul(plain[i], side, out=part)
        if value.requires_grad:  # the graph keeps those of every expert
            agrees = torch.empty_like(side)
        if weights is not None:
            add_scaled(found, torch.gt(part, 0.0, out=agrees), weights[i])
        if value.requires_grad:  # a mask is a constant, which a clamp would find out once more on the way back
            positive = value * torch.ge(part, 0.0, out=torch.empty_like(part)).mul_(side)
        else:
            positive = part.clamp_(min=0.0)
        total.add_(positive, alpha=1.0 if factors is None else factors[i])
    return total.mul_(side), found


def _or_one(found: Tensor, weight: Sequence[Number]) -> Tensor:
    """Return the sums of weights, in place, with 1 for those that are zero, up to rounding."""
    values = [value_of(w) for w in weight]
    if min(values) < 0.0 < max(values):  # only then do sums that are not empty cancel
        found = hardshrink(found, _CANCELLED * sum(map(abs, values)))
    return found.add_(torch.eq(found.detach(), 0.0, out=torch.empty_like(found)))
