"""Model Stock: the experts' average, drawn to the base as far as their task vectors disagree."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._inner_products import gram, row_gram
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand, dense, sum_scaled

_SMALLEST = 1e-6  # least product of norms that is divided by, as in mergekit
_SINGULAR = 1e-6  # 1 + (N − 1) cos this small has no ratio, as in mergekit


def _measure(tensor: TensorBlocks, *, filter_wise: bool) -> float | None:
    return None if filter_wise else float(_ratio(gram(tensor)))


@method(
    "model_stock",
    operands="deltas",
    base="required",
    experts=(2, None),
    paper="Jang et al., Model Stock: All we need is just a few fine-tuned models, arXiv 2403.19522",
    parameters=[Parameter("filter_wise", default=False, scope="merge")],
    measure=_measure,
)
def model_stock(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: float | None,
) -> Tensor:
    """Return θ = θ_base + t · mean(τᵢ), t = N cos / (1 + (N − 1) cos), float32, of the base's shape.

    cos is the mean cosine of the angles between pairs of the N task vectors: t is 1 where they agree, 0 where they
    are orthogonal. Where 1 + (N − 1) cos = 0, t is 0.

    Args:
        base: The base's tensor.
        deltas: Two task vectors or more.
        measured: t of the whole tensor; with `filter_wise` None, for one t for each row.
    """
    count = len(deltas)
    if measured is not None:
        return sum_scaled(base, deltas, [measured / count] * count)
    vectors = [dense(delta) for delta in deltas]
    ratio = (_ratio(row_gram(vectors)) / count).float().unsqueeze(-1)
    total = sum_scaled(None, vectors, [1.0] * count)
    return total.mul_(ratio).add_(base)


def _ratio(products: Tensor) -> Tensor:
    """Return t for inner products [..., N, N]."""
    count = products.shape[-1]
    norms = products.diagonal(dim1=-2, dim2=-1).clamp(min=0.0).sqrt()
    i, j = torch.triu_indices(count, count, 1, device=products.device)
    cosine = products[..., i, j] / (norms[..., i] * norms[..., j]).clamp(min=_SMALLEST)
    mean = cosine.clamp(-1.0, 1.0).mean(-1)
    below = 1.0 + (count - 1) * mean
    singular = below.abs() < _SINGULAR
    return torch.where(singular, 0.0, count * mean / torch.where(singular, 1.0, below))
