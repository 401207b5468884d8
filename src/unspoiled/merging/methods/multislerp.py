"""Multi-SLERP: barycentric interpolation of several models on the sphere."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._inner_products import gram
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number, cosine, length, numbers_of, sine, value_of, vector
from unspoiled.merging._operands import Operand, sum_scaled, total_weight

_CANCELLED = 1e-3  # a mean this short beside its terms has weights above 1000, which amplify the sum's rounding


def _measure(tensor: TensorBlocks) -> Tensor:
    return gram(tensor)


def _decide(
    products: Tensor, *, name: str, weight: Sequence[Number], normalize_weights: bool, eps: float
) -> Sequence[Number]:
    if len(weight) == 1:
        return [1.0]
    if normalize_weights:
        total = total_weight(weight, "multislerp")
        weight = [w / total for w in weight]
    weights = vector(weight)
    norms = products.diagonal().sqrt()
    if not (weights * norms).any():
        return [0.0] * len(weight)
    unit = 1.0 / (norms + eps)
    mean = weights * unit  # vectors are given by their coefficients on the operands
    size = length(mean, products)
    if size < max(eps, _CANCELLED * float((weights.detach() * norms * unit).abs().sum())):
        if len(weight) == 2:
            return weight
        values = [value_of(w) for w in weight]
        raise ConfigError(
            f"multislerp: with the weights {values} the models' tensors {name!r} cancel out, so that "
            "their mean has no direction. Change the weights, or merge them by linear or task_arithmetic."
        )
    mean = mean / size
    along = unit * (products @ mean)
    tangent = weights * unit - (weights * along).sum() * mean
    angle = length(tangent, products) + eps
    merged = cosine(angle) * mean + sine(angle) / angle * tangent
    return numbers_of(merged * (norms * weights).sum())


@method(
    "multislerp",
    operands="deltas",
    base="optional",
    paper="Buss and Fillmore, Spherical averages, doi 10.1145/502122.502124 (one step in the tangent space)",
    parameters=[
        Parameter("weight"),
        Parameter("normalize_weights", default=True, scope="merge"),
        Parameter("eps", default=1e-8, low=1e-12, high=1.0, scope="merge", differentiable=False),  # guards divisions
    ],
    measure=_measure,
    decide=_decide,
    keeps_common=lambda merge: bool(merge["normalize_weights"]),
)
def multislerp(
    base: Tensor | None,
    operands: Sequence[Operand],
    *,
    measured: Sequence[Number],
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
