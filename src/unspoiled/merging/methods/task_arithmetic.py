"""Task arithmetic: add the experts' task vectors to the base."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled, total_weight


@method(
    "task_arithmetic",
    operands="deltas",
    base="required",
    paper="Ilharco et al., Editing Models with Task Arithmetic, arXiv 2212.04089",
    parameters=[
        Parameter("weight"),
        Parameter("normalize", default=False, scope="merge"),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def task_arithmetic(
    base: Tensor, deltas: Sequence[Operand], *, weight: Sequence[Number], normalize: bool, lambda_: Number
) -> Tensor:
    """Return θ = θ_base + λ · Σ wᵢ τᵢ (Σ wᵢ τᵢ / Σ wᵢ with `normalize`), float32, of the base's shape.

    Args:
        base: The base's tensor, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        weight: wᵢ, any real number.
        normalize: Divide by Σ wᵢ (mergekit's semantics).
        lambda_: λ, any real number.

    Raises:
        ConfigError: `normalize` is set and the weights sum to zero.
    """
    scale = lambda_ / total_weight(weight, "task_arithmetic") if normalize else lambda_
    return sum_scaled(base, deltas, [scale * w for w in weight])
