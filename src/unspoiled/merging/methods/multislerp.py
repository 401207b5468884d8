"""Multi-SLERP: barycentric interpolation of several models on the sphere."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._inner_products import gram
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand, sum_scaled, total_weight

_CANCELLED = 1e-3  # a mean this short beside its terms has weights above 1000, which amplify the sum's rounding


def _measure(tensor: TensorBlocks) -> Tensor:
    return gram(tensor)


def _decide(
    products: Tensor, *, name: str, weight: Sequence[float], normalize_weights: bool, eps: float
) -> list[float]:
    if len(weight) == 1:
        return [1.0]
    if normalize_weights:
        total = total_weight(weight, "multislerp")
        weight = [w / total for w in weight]
    weights = torch.tensor(weight, dtype=products.dtype)
    norms = products.diagonal().sqrt()
    if not (weights * norms).any():
        return [0.0] * len(weight)
    unit = 1.0 / (norms + eps)
    mean = weights * unit  # vectors are given by their coefficients on the operands
    length = _norm(mean, products)
    if length < max(eps, _CANCELLED * float((weights * norms * unit).abs().sum())):
        if len(weight) == 2:
            return list(weight)
        raise ConfigError(
            f"multislerp: with the weights {list(weight)} the models' tensors {name!r} cancel out, so that "
            "their mean has no direction. Change the weights, or merge them by linear or task_arithmetic."
        )
    mean = mean / length
    along = unit * (products @ mean)
    tangent = weights * unit - (weights * along).sum() * mean
    angle = _norm(tangent, products) + eps
    merged = math.cos(angle) * mean + math.sin(angle) / angle * tangent
    coefficients: list[float] = (merged * (norms * weights).sum()).tolist()
    return coefficients


@method(
    "multislerp",
    operands="deltas",
    base="optional",
    paper="Buss and Fillmore, Spherical averages, doi 10.1145/502122.502124 (one step in the tangent space)",
    parameters=[
        Parameter("weight"),
        Parameter("normalize_weights", default=True, scope="merge"),
        Parameter("eps", default=1e-8, low=1e-12, high=1.0, scope="merge"),
    ],
    measure=_measure,
    decide=_decide,
    keeps_common=lambda merge: bool(merge["normalize_weights"]),
)
def multislerp(
    base: Tensor | None,
    operands: Sequence[Operand],
    *,
    measured: Sequence[float],
) -> Tensor:
    """Return x = (Σ wᵢ ‖xᵢ‖) · exp_m(Σ wᵢ (uᵢ − ⟨uᵢ, m⟩ m)), float32: one step from the mean along the sphere.

    uᵢ = xᵢ / ‖xᵢ‖, m = Σ wᵢ uᵢ scaled to length 1, exp_m(v) = cos‖v‖ m + sin‖v‖ v / ‖v‖. The xᵢ are task vectors,
    to which the base is added, or without a base the weights.

    Args:
        base: The base's tensor, or None.
        operands: One task vector or tensor per expert; one alone is returned as it is.
        measured: The coefficients of the operands, by their angles and `weight`, wᵢ, any real number; these are
            divided by Σ wᵢ with `normalize_weights`, and `eps`, in [1e-12, 1], is added to norms that are divided by.

    Raises:
        ConfigError: The weights sum to zero under `normalize_weights`, or three or more uᵢ cancel out in m. Of two
            that do the weighted sum is taken.
    """
    return sum_scaled(base, operands, measured)


def _norm(coefficients: Tensor, products: Tensor) -> float:
    """Return the length of Σ cᵢ xᵢ."""
    return math.sqrt(max(0.0, float(coefficients @ products @ coefficients)))
