"""TIES: trim each task vector, elect a sign for each entry, merge the entries that agree."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._consensus import merge_agreeing
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand
from unspoiled.merging._sparsify import Sparse, keep_largest


def _measure(tensor: TensorBlocks, *, density: Sequence[float], rescale: bool, **_others: object) -> list[Sparse]:
    return keep_largest(tensor, density, rescale=rescale)


@method(
    "ties",
    operands="deltas",
    base="required",
    measure=_measure,
    ignored=("int8_mask",),
    paper="Yadav et al., TIES-Merging, arXiv 2306.01708",
    parameters=[
        Parameter("weight"),
        Parameter("density", default=1.0, low=0.0, high=1.0),
        Parameter("normalize", default=True, scope="merge"),
        Parameter("rescale", default=False, scope="merge"),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def ties(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: Sequence[Sparse],
    first: int,
    weight: Sequence[float],
    density: Sequence[float],  # noqa: ARG001 - decided when measured
    normalize: bool,
    rescale: bool,  # noqa: ARG001
    lambda_: float,
) -> Tensor:
    """Return θ = θ_base + λ · Σ_{i agrees} wᵢ τ̂ᵢ / Σ_{i agrees} wᵢ, float32, of the base's shape.

    τ̂ᵢ keeps the max(1, ⌊density · n⌋) entries of τᵢ that are largest in magnitude (none if density is 0), n being the
    size of the tensor; of equal magnitudes the earlier.
    An entry agrees if it isn't zero and has the sign of Σ wᵢ τ̂ᵢ, a sum of zero counting
    as positive. These are mergekit's semantics; the paper's code elects by Σ τ̂ᵢ, without the weights.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: What of each task vector is kept.
        first: The place of the block's first element in the tensor.
        weight: wᵢ, any real number.
        density: The share of each task vector to keep, in [0, 1].
        normalize: Divide by the agreeing weights, so that a lone one cancels out.
        rescale: Restore each trimmed task vector's L1 norm.
        lambda_: λ, any real number.
    """
    return merge_agreeing(base, deltas, measured, first, weight=weight, normalize=normalize, lambda_=lambda_)
