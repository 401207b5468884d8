"""SafeMERGE: where a layer of the expert left the direction of alignment, mix in a safety-tuned model's layer."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, dense, sum_scaled
from unspoiled.merging._roles import SAFETY, roles


@method(
    "safemerge",
    operands="deltas",
    base="required",
    experts=(3, 3),
    whole=True,
    squares=1,
    paper="Djuhera et al., SafeMERGE, arXiv 2503.17239; the projection is SafeLoRA's, arXiv 2405.16833",
    parameters=[
        SAFETY,
        Parameter("tau", default=0.35, low=-1.0, high=1.0, scope="merge", differentiable=False),  # only decides
        Parameter("alpha", default=0.8, low=0.0, high=1.0, scope="merge"),
    ],
)
def safemerge(base: Tensor, deltas: Sequence[Operand], *, safety: Sequence[int], tau: float, alpha: Number) -> Tensor:
    """Return θ_base + τ_expert, or θ_base + α τ_expert + (1 − α) τ_safe where cos(C τ_expert, τ_expert) < tau.

    C = V Vᵀ / ‖V‖ is SafeLoRA's approximate projection on the columns of V = θ_aligned − θ_unaligned. The base is the
    aligned model, from which both the expert and the safety-tuned model were tuned. The decision is made for each
    matrix by itself, as the authors' code does for each LoRA layer. Vectors, and a matrix that the expert doesn't
    change, stay the expert's; where the aligned and unaligned models don't differ, the cosine counts as 0.

    Args:
        base: The aligned model's matrix, any floating dtype.
        deltas: The task vectors of the expert, the safety-tuned and the unaligned model, in any order.
        safety: The models' roles: 0 for the expert, 1 for the safety-tuned model, -1 for the unaligned one.
        tau: The least cosine of a safe layer, in [-1, 1]; a projection's is never negative.
        alpha: α, the expert's share in the mix, in [0, 1].

    Returns:
        The merged matrix, float32, of the base's shape.

    Raises:
        ConfigError: There isn't one model of each role.
    """
    found = roles(safety, "safemerge", experts=1, safe=1, unsafe=1)
    expert, safe, unsafe = (deltas[of_role[0]] for of_role in (found.experts, found.safe, found.unsafe))
    cosine = 1.0 if base.shape[0] == 1 else alignment(dense(expert), dense(unsafe))
    if math.isnan(cosine):  # an input has NaN or Inf, which must not decide silently
        return sum_scaled(base, [expert, safe, unsafe], [math.nan] * 3)
    if base.shape[0] == 1 or cosine >= tau:
        return sum_scaled(base, [expert], [1.0])
    return sum_scaled(base, [expert, safe], [alpha, 1 - alpha])


def alignment(update: Tensor, direction: Tensor) -> float:
    """Return the cosine between an update [rows, width] and its product with V Vᵀ, V the `direction`.

    It lies in [0, 1]: 1 where the update is zero, 0 where the direction is zero or the update orthogonal to it.
    """
    if not torch.any(update):
        return 1.0
    rows, width = update.shape
    projected = direction @ direction.T @ update if rows < width else direction @ (direction.T @ update)
    norms = float(torch.linalg.vector_norm(projected)) * float(torch.linalg.vector_norm(update))
    return 0.0 if norms == 0 else float(torch.sum(projected * update, dtype=torch.float64)) / norms
