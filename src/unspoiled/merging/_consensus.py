"""How sparsified task vectors become one: a weighted sum, of all entries or of those that agree in sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._operands import Operand, dense, total_weight
from unspoiled.merging._sparsify import Sparse


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
    total = base.to(torch.float32, copy=True)
    for delta, one, w in zip(deltas, sparse, weight, strict=True):
        if w != 0.0:
            total.add_(one.kept.of(dense(delta), first), alpha=scale * w * one.scale)
    return total


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
    values = [one.kept.of(dense(delta), first) for delta, one in zip(deltas, sparse, strict=True)]
    factors = [w * one.scale for w, one in zip(weight, sparse, strict=True)]
    weighted = [value * factor for value, factor in zip(values, factors, strict=True)]
    positive, negative = _sides(weighted)
    plus = _is_plus(positive, negative)
    total = _chosen(plus, positive, negative)
    if normalize:
        found = _agreeing_weight(weighted, weight, plus)
        total.div_(found.add_(torch.eq(found, 0.0, out=torch.empty_like(found))))
    return total.mul_(lambda_).add_(base)


def agreeing(values: Sequence[Tensor], weight: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return Σ wᵢ xᵢ and Σ wᵢ over the entries with the sign of the unweighted Σ xᵢ.

    Args:
        values: xᵢ, float32, of one shape.
        weight: wᵢ ≥ 0.
    """
    plus = _is_plus(*_sides(values))
    weighted = [value * w for value, w in zip(values, weight, strict=True)]
    return _chosen(plus, *_sides(weighted)), _agreeing_weight(values, weight, plus)


def _sides(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sums of the positive and of the negative entries."""
    positive, negative = values[0].clamp(min=0.0), values[0].clamp(max=0.0)
    for more in values[1:]:
        positive.add_(more.clamp(min=0.0))
        negative.add_(more.clamp(max=0.0))
    return positive, negative


def _is_plus(positive: Tensor, negative: Tensor) -> Tensor:
    """Return 1 where the sum of both is not negative, else 0, as float32."""
    return torch.ge(positive + negative, 0.0, out=torch.empty_like(positive))


def _chosen(plus: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """Return `above` where `plus` is 1 and `below` where it is 0; both may be overwritten."""
    return above.mul_(plus).add_(below.mul_(1 - plus))


def _agreeing_weight(values: Sequence[Tensor], weight: Sequence[float], plus: Tensor) -> Tensor:
    """Return, entry by entry, Σ of the weights whose value has the elected sign."""
    above, below = torch.zeros_like(plus), torch.zeros_like(plus)
    for value, w in zip(values, weight, strict=True):
        signs = value.sign()
        below.add_(signs.clamp(max=0.0), alpha=-w)
        above.add_(signs.clamp_(min=0.0), alpha=w)
    return _chosen(plus, above, below)
