"""Model Breadcrumbs: drop the smallest entries of the task vectors, and the largest."""

from collections.abc import Sequence
from functools import partial

from unspoiled.merging._method import Parameter, TensorBlocks
from unspoiled.merging._sparsify import Sparse, drop_outliers
from unspoiled.merging._sparsifying import sparsifying

_breadcrumbs = partial(
    sparsifying,
    normalize=False,
    rescale=False,
    paper="Davari and Belilovsky, Model Breadcrumbs, arXiv 2312.06795",
    parameters=(
        Parameter("density", default=1.0, low=0.0, high=1.0, differentiable=False),
        Parameter("gamma", default=0.01, low=0.0, high=1.0, differentiable=False),
    ),
)


@_breadcrumbs("breadcrumbs", agreeing=False)
@_breadcrumbs("breadcrumbs_ties", agreeing=True)
def drop_both_ends(
    tensor: TensorBlocks, *, density: Sequence[float], gamma: Sequence[float], rescale: bool
) -> list[Sparse]:
    """τ̂ᵢ drops the ⌊gamma · n⌋ largest entries of τᵢ, then the smallest until ⌊density · n⌋ are left, n being the size
    of the tensor: mergekit's semantics.

    Args:
        density: The share of entries to keep, in [0, 1].
        gamma: The share of largest entries to drop, in [0, 1].
        rescale: Restore each task vector's L1 norm.
    """
    return drop_outliers(tensor, density, gamma, rescale=rescale)
