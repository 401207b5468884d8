"""Model Breadcrumbs: drop the smallest entries of the task vectors, and the largest."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._consensus import merge_agreeing, merge_sparse
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand
from unspoiled.merging._sparsify import Sparse, drop_outliers


def _measure(
    tensor: TensorBlocks,
    *,
    density: Sequence[float],
    gamma: Sequence[float],
    rescale: bool,
    **_others: object,
) -> list[Sparse]:
    return drop_outliers(tensor, density, gamma, rescale=rescale)


_PARAMETERS = (
    Parameter("weight"),
    Parameter("density", default=1.0, low=0.0, high=1.0),
    Parameter("gamma", default=0.01, low=0.0, high=1.0),
)


@method(
    "breadcrumbs",
    operands="deltas",
    base="required",
    measure=_measure,
    ignored=("int8_mask",),
    paper="Davari and Belilovsky, Model Breadcrumbs, arXiv 2312.06795",
    parameters=[
        *_PARAMETERS,
        Parameter("normalize", default=False, scope="merge"),
        Parameter("rescale", default=False, scope="merge"),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def breadcrumbs(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: Sequence[Sparse],
    first: int,
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
    **_decided_when_measured: object,
) -> Tensor:
    """Return θ = θ_base + λ · Σ wᵢ τ̂ᵢ, float32, of the base's shape.

    τ̂ᵢ drops the ⌊gamma · n⌋ largest entries of τᵢ, then the smallest until ⌊density · n⌋ are left, n being the size of
    the tensor: mergekit's semantics.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: What of each task vector is kept.
        first: The place of the block's first element in the tensor.
        weight: wᵢ, any real number.
        normalize: Divide by Σ wᵢ, in `breadcrumbs_ties` by that of the agreeing.
        lambda_: λ, any real number.
        **_decided_when_measured: `density`, the share of entries to keep, in [0, 1]; `gamma`, the share of largest
            entries to
            drop, in [0, 1]; `rescale`, restore each task vector's L1 norm.

    Raises:
        ConfigError: `normalize` is set and the weights sum to zero.
    """
    return merge_sparse(
        base, deltas, measured, first, weight=weight, normalize=normalize, lambda_=lambda_, method="breadcrumbs"
    )


@method(
    "breadcrumbs_ties",
    operands="deltas",
    base="required",
    measure=_measure,
    ignored=("int8_mask",),
    paper="Davari and Belilovsky, Model Breadcrumbs, arXiv 2312.06795",
    parameters=[
        *_PARAMETERS,
        Parameter("normalize", default=False, scope="merge"),
        Parameter("rescale", default=False, scope="merge"),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def breadcrumbs_ties(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: Sequence[Sparse],
    first: int,
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
    **_decided_when_measured: object,
) -> Tensor:
    """Return θ = θ_base + λ · Σ_{i agrees} wᵢ τ̂ᵢ, float32, of the base's shape.

    τ̂ᵢ drops the ⌊gamma · n⌋ largest entries of τᵢ, then the smallest until ⌊density · n⌋ are left, n being the size of
    the tensor: mergekit's semantics.
    An entry agrees if it has the sign of Σ wᵢ τ̂ᵢ, as in `ties`.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: What of each task vector is kept.
        first: The place of the block's first element in the tensor.
        weight: wᵢ, any real number.
        normalize: Divide by Σ wᵢ, in `breadcrumbs_ties` by that of the agreeing.
        lambda_: λ, any real number.
        **_decided_when_measured: `density`, the share of entries to keep, in [0, 1]; `gamma`, the share of largest
            entries to
            drop, in [0, 1]; `rescale`, restore each task vector's L1 norm.
    """
    return merge_agreeing(base, deltas, measured, first, weight=weight, normalize=normalize, lambda_=lambda_)
