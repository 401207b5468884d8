"""RegMean: the linear layer whose outputs are nearest, in least squares, to each expert's on its own inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, dense, sum_scaled, total_weight
from unspoiled.merging._statistics import Statistic, StatisticsOf

_RANK = 1e-10  # eigenvalues smaller than this share of the largest are zero, where G may be singular


@method(
    "regmean",
    operands="tensors",
    whole=True,
    squares=8,
    statistics=[Statistic("input_gram", by_rows=False)],
    paper="Jin et al., Dataless Knowledge Fusion by Merging Weights (RegMean), arXiv 2212.09849",
    parameters=[
        Parameter("weight", default=1.0, low=0.0),
        Parameter("alpha", default=0.9, low=0.0, high=1.0, scope="merge"),
    ],
)
def regmean(
    base: Tensor | None,  # noqa: ARG001 - one signature for every method
    tensors: Sequence[Operand],
    *,
    statistics: Sequence[StatisticsOf],
    weight: Sequence[Number],
    alpha: Number,
) -> Tensor:
    """Return W = (Σ wᵢ Wᵢ Gᵢ)(Σ wᵢ Gᵢ)⁻¹, float32, of the models' shape; Σ wᵢ Wᵢ / Σ wᵢ where there is no Gᵢ.

    Gᵢ is the mean of x xᵀ over the inputs x of the layer in the expert's data, its entries off the diagonal multiplied
    by alpha. W minimises Σ wᵢ E‖W x − Wᵢ x‖² if alpha is 1. Inputs that are always zero leave their columns to the
    average; so do, with alpha 1, all directions without inputs. The solution is sought in float64.

    Args:
        base: Not used.
        tensors: One matrix [out, in] per model.
        statistics: Each model's `input_gram`, [in, in], for the weights of linear layers.
        weight: wᵢ ≥ 0; the paper's are all 1.
        alpha: In [0, 1]; the paper's 0.9 for most models, 0.1 for T5. At 0 only the inputs' sizes count.

    Raises:
        ConfigError: Some models have an `input_gram` for the tensor and others none, or the weights sum to zero.
    """
    total = total_weight(weight, "regmean")
    average = sum_scaled(None, tensors, [w / total for w in weight])
    pull, gram = torch.zeros_like(average, dtype=torch.float64), None
    found = 0
    for tensor, read, w in zip(tensors, statistics, weight, strict=True):
        own = read("input_gram")
        if own is None:
            continue
        found += 1
        own = own.to(average.device, torch.float64).mul_(w)
        diagonal = own.diagonal().clone()
        own.mul_(alpha).diagonal().copy_(diagonal)
        # of what lies beside the average: the same solution, with less to round
        pull.addmm_((dense(tensor) - average).double(), own)
        gram = (torch.zeros_like(own) if gram is None else gram).add_(own)
    if found not in (0, len(tensors)):
        raise ConfigError(
            f"regmean: {found} of {len(tensors)} models have an `input_gram` for a tensor of shape "
            f"{list(average.shape)}. Collect the statistics of every model anew, in the same way."
        )
    return average if gram is None else average.add_(_solve(gram, pull, alpha))


def _solve(gram: Tensor, pull: Tensor, alpha: Number) -> Tensor:
    """Return `pull` · G⁻¹, with zeros in the columns of inputs that are always zero."""
    size = gram.diagonal().clone()
    scale = torch.where(size > 0, size, 1.0).rsqrt_()  # to a diagonal of 1: inputs differ by orders of magnitude
    gram = gram.mul_(scale).mul_(scale[:, None])
    gram.diagonal().fill_(1.0)
    pull = pull * scale
    if alpha < 1:  # positive definite, the identity's share being 1 − alpha
        solved = torch.cholesky_solve(pull.T, torch.linalg.cholesky(gram)).T
    else:
        solved = pull @ torch.linalg.pinv(gram, hermitian=True, rtol=_RANK)
    return (solved * scale).float()
