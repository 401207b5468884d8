"""Interpolation: a point on the line between a model before and after fine-tuning."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled


@method(
    "interpolation",
    operands="deltas",
    base="required",
    experts=(1, 1),
    paper="Wortsman et al., Robust fine-tuning (WiSE-FT), arXiv 2109.01903; for safety, Farn et al., arXiv 2412.19512",
    parameters=[Parameter("alpha", default=0.5, scope="merge")],
)
def interpolation(base: Tensor, deltas: Sequence[Operand], *, alpha: Number) -> Tensor:
    """Return θ = (1 − α) θ_base + α θ_tuned, float32, of the base's shape.

    Args:
        base: The rows of the model before fine-tuning, any floating dtype.
        deltas: The task vector of the fine-tuned model.
        alpha: α, any real number: 0 is the base, 1 the fine-tuned model, more extrapolates.
    """
    return sum_scaled(base, deltas, [alpha])
