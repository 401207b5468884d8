"""Fisher merging: average each weight in proportion to how much each expert's predictions depend on it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, dense, sum_scaled, total_weight
from unspoiled.merging._statistics import Statistic, StatisticsOf


@method(
    "fisher",
    operands="tensors",
    statistics=[Statistic("fisher")],
    paper="Matena & Raffel, Merging Models with Fisher-Weighted Averaging, arXiv 2111.09832",
    parameters=[Parameter("weight", default=1.0, low=0.0)],
)
def fisher(
    base: Tensor | None,  # noqa: ARG001 - one signature for every method
    tensors: Sequence[Operand],
    *,
    statistics: Sequence[StatisticsOf],
    weight: Sequence[Number],
) -> Tensor:
    """Return θ = Σ wᵢ Fᵢ ⊙ θᵢ / Σ wᵢ Fᵢ, float32, of the models' shape; Σ wᵢ θᵢ / Σ wᵢ where every Fᵢ is zero.

    Args:
        base: Not used.
        tensors: One weight per model, all of one shape.
        statistics: Each model's `fisher`: Fᵢ ≥ 0, the diagonal of its Fisher information, of the tensor's shape.
        weight: wᵢ ≥ 0; the paper's λᵢ.

    Raises:
        ConfigError: The weights sum to zero.
    """
    average = 1 / total_weight(weight, "fisher")
    values = [dense(tensor) for tensor in tensors]
    total, information = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for value, read, w in zip(values, statistics, weight, strict=True):
        found = read("fisher")
        assert found is not None
        found = found.to(value.device) * w
        total.addcmul_(value, found)
        information.add_(found)
    unknown = torch.eq(information.detach(), 0.0, out=torch.empty_like(information))
    if torch.any(unknown):
        total.addcmul_(sum_scaled(None, values, [average * w for w in weight]), unknown)
    return total.div_(information.add_(unknown))
