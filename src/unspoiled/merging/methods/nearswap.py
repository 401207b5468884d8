"""NearSwap: take another model's weights where they are near, and step toward them where they are far."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled


@method(
    "nearswap",
    operands="tensors",
    base="required",
    experts=(1, 1),
    paper="alchemonaut, QuartetAnemoi-70B (model card); in mergekit: Goddard et al., arXiv 2403.13257",
    parameters=[Parameter("t", low=0.0, scope="merge")],
)
def nearswap(base: Tensor, tensors: Sequence[Operand], *, t: Number) -> Tensor:
    """Return θ = θ_base + w (θ − θ_base), w = min(1, t / |θ − θ_base|) for each element, float32.

    This is a step from the base toward the other model of at most t: the difference, clamped to [−t, t].

    Args:
        base: The base's tensor.
        tensors: The other model's.
        t: The largest step, at least 0, in the units of the weights.
    """
    start = base.float()
    difference = sum_scaled(None, tensors, [1.0]).sub_(start)
    unbounded = difference * 0.0  # NaN where clamping would hide that an input is infinite
    step: Any = t  # a float or a tensor: clamp_ takes both, its overloads not their union
    return difference.clamp_(-step, step).add_(unbounded).add_(start)
