"""SLERP: along the arc from the base's weights to another model's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._inner_products import arc_weights, gram
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number, numbers_of
from unspoiled.merging._operands import Operand, sum_scaled

_STRAIGHT = 0.9995  # a cosine above this in size makes the arc a line, as in mergekit
_SMALLEST = 1e-8  # norms below this aren't divided by, as in mergekit


def _measure(tensor: TensorBlocks) -> Tensor:
    return gram(tensor, with_base=True)


def _decide(products: Tensor, *, t: Number) -> list[Number]:
    norms = products.diagonal().sqrt()
    base, other = torch.where(norms > _SMALLEST, norms, 1.0)
    cosine = products[0, 1] / (base * other)
    return numbers_of(arc_weights(cosine, t, straight=cosine.abs() > _STRAIGHT))


@method(
    "slerp",
    operands="tensors",
    base="required",
    experts=(1, 1),
    paper="Shoemake, Animating rotation with quaternion curves, doi 10.1145/325165.325242",
    parameters=[Parameter("t", scope="merge")],
    measure=_measure,
    decide=_decide,
)
def slerp(
    base: Tensor,
    tensors: Sequence[Operand],
    *,
    measured: Sequence[Number],
) -> Tensor:
    """Return θ = (sin((1 − t)Ω) θ_base + sin(tΩ) θ) / sin Ω, float32, where Ω is the angle between the two tensors.

    Where |cos Ω| > 0.9995 it is the line (1 − t) θ_base + t θ, also for opposite tensors, whose arc is not unique.

    Args:
        base: The base's tensor, t = 0.
        tensors: The other model's, t = 1.
        measured: The weights of the two, by their angle and t, the place on the arc; outside [0, 1] the arc goes on.
    """
    return sum_scaled(None, [base, *tensors], measured)
