"""TIES: trim each task vector, elect a sign for each entry, merge the entries that agree."""

from collections.abc import Sequence

from unspoiled.merging._method import Parameter, TensorBlocks
from unspoiled.merging._sparsify import Sparse, keep_largest
from unspoiled.merging._sparsifying import sparsifying


@sparsifying(
    "ties",
    agreeing=True,
    normalize=True,
    rescale=False,
    paper="Yadav et al., TIES-Merging, arXiv 2306.01708",
    parameters=[Parameter("density", default=1.0, low=0.0, high=1.0, differentiable=False)],
)
def trim(tensor: TensorBlocks, *, density: Sequence[float], rescale: bool) -> list[Sparse]:
    """τ̂ᵢ keeps the max(1, ⌊density · n⌋) entries of τᵢ that are largest in magnitude (none if density is 0), n being
    the size of the tensor; of equal magnitudes the earlier.

    Args:
        density: The share of each task vector to keep, in [0, 1].
        rescale: Restore each trimmed task vector's L1 norm.
    """
    return keep_largest(tensor, density, rescale=rescale)
