"""Linear: the weighted average of the models' weights."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled, total_weight


@method(
    "linear",
    operands="tensors",
    paper="Wortsman et al., Model soups, arXiv 2203.05482",
    parameters=[Parameter("weight"), Parameter("normalize", default=True, scope="merge")],
    keeps_common=lambda merge: bool(merge["normalize"]),
)
def linear(
    base: Tensor | None,  # noqa: ARG001 - one signature for every method
    tensors: Sequence[Operand],
    *,
    weight: Sequence[Number],
    normalize: bool,
) -> Tensor:
    """Return θ = Σ wᵢ θᵢ / Σ wᵢ (Σ wᵢ θᵢ without `normalize`), float32, of the models' shape.

    Args:
        base: Not used.
        tensors: One weight per model, all of one shape.
        weight: wᵢ, any real number.
        normalize: Divide by Σ wᵢ.

    Raises:
        ConfigError: `normalize` is set and the weights sum to zero.
    """
    if normalize:
        total = total_weight(weight, "linear")
        weight = [w / total for w in weight]
    return sum_scaled(None, tensors, weight)
