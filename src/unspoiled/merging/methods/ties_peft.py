"""PEFT's TIES: like TIES, but the sign is elected without the weights, and the sum is divided by a count."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, add_scaled, dense
from unspoiled.merging._sparsify import Sparse, keep_largest, kept_entries


def _measure(tensor: TensorBlocks, *, density: Sequence[float]) -> list[Sparse]:
    return keep_largest(tensor, density, rescale=False)


@method(
    "ties_peft",
    operands="deltas",
    base="required",
    measure=_measure,
    prepare=kept_entries,
    in_pieces=True,
    paper="Yadav et al., TIES-Merging, arXiv 2306.01708, as PEFT computes it",
    parameters=[
        Parameter("weight"),
        Parameter("density", default=1.0, low=0.0, high=1.0, differentiable=False),  # only cuts
        Parameter("frequency", default=False, scope="merge"),
    ],
)
def ties_peft(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    weight: Sequence[Number],
    frequency: bool,
) -> Tensor:
    """Return θ = θ_base + Σ_{i agrees} wᵢ τ̂ᵢ / max(1, number that agree), float32, of the base's shape.

    τ̂ᵢ keeps the max(1, ⌊density · n⌋) entries of τᵢ that are largest in magnitude, n being the size of the tensor; of
    equal magnitudes the earlier. An entry agrees if it isn't zero and has the elected sign: that of Σ τ̂ᵢ, or with
    `frequency` the more frequent one of its experts; a tie elects the positive sign.

    Args:
        base: The base's rows, any floating dtype.
        deltas: The kept entries of one task vector per expert, of the base's shape; `density`, the share to keep, in
            [0, 1], decided on them.
        weight: wᵢ, any real number; it plays no part in the election.
        frequency: Elect by the number of experts of each sign (PEFT's `majority_sign_method="frequency"`), instead of
            by the sum of their values ("total").
    """
    kept = [dense(delta) for delta in deltas]
    votes = [value.sign() for value in kept] if frequency else kept
    tally = votes[0].clone()
    for more in votes[1:]:
        tally.add_(more)
    plus = torch.ge(tally, 0.0, out=torch.empty_like(tally))
    minus = 1 - plus
    total, count = torch.zeros_like(plus), torch.zeros_like(plus)
    for value, w in zip(kept, weight, strict=True):
        chosen = value.clamp(min=0.0).mul_(plus).add_(value.clamp(max=0.0).mul_(minus))
        add_scaled(total, chosen, w)
        count.add_(chosen.sign().abs_())
    return total.div_(count.clamp_(min=1.0)).add_(base)
