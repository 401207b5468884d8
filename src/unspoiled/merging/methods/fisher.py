"""Fisher merging: average each weight in proportion to how much each expert's predictions depend on it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._method import Parameter, method
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
    weight: Sequence[float],
) -> Tensor:
    """Return θ = Σ wᵢ Fᵢ ⊙ θᵢ / Σ wᵢ Fᵢ, float32, of the models' shape; Σ wᵢ θᵢ / Σ wᵢ where every Fᵢ is zero.

    Args:
        base: Not used.
        tensors: One weight per model, all of one shape.
        statistics: Each model's `fisher`: Fᵢ ≥ 0, the diagonal of its Fisher information, of the tensor's shape.
        weight: wᵢ ≥ 0; the paper's λᵢ.

    Raises:
        ConfigError: A model's statistics have no Fisher information for the tensor, or the weights sum to zero.
    """
    average = 1 / total_weight(weight, "fisher")
    values = [dense(tensor) for tensor in tensors]
    total, information = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for i, (value, w) in enumerate(zip(values, weight, strict=True)):
        found = statistics[i]("fisher")
        if found is None:
            raise ConfigError(
                f"the statistics of the model at place {i} have no `fisher` for a tensor that is merged. Collect them "
                "from this very model."
            )
        found = found.to(value.device) * w
        total.addcmul_(value, found)
        information.add_(found)
    unknown = torch.eq(information, 0.0, out=torch.empty_like(information))
    if torch.any(unknown):
        total.addcmul_(sum_scaled(None, values, [average * w for w in weight]), unknown)
    return total.div_(information.add_(unknown))
