"""Passthrough: one model's tensors, as they are or scaled."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled


@method(
    "passthrough",
    operands="tensors",
    experts=(1, 1),
    paper="Kim et al., SOLAR 10.7B (depth up-scaling), arXiv 2312.15166",
    parameters=[Parameter("scale", default=1.0)],
    keeps_common=lambda _: False,  # the scale is the model's, so it is not known here
)
def passthrough(
    base: Tensor | None,  # noqa: ARG001 - one signature for every method
    tensors: Sequence[Operand],
    *,
    scale: Sequence[Number],
) -> Tensor:
    """Return scale · θ, float32.

    Args:
        base: Not used.
        tensors: The one model's weights.
        scale: One real number.
    """
    return sum_scaled(None, tensors, scale)
