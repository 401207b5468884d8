"""DELLA: drop entries of the task vectors at random, small ones more often."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._consensus import merge_agreeing, merge_sparse
from unspoiled.merging._draws import SEED
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand
from unspoiled.merging._sparsify import Sparse, keep_by_rank


def _measure(
    tensor: TensorBlocks,
    *,
    density: Sequence[float],
    epsilon: Sequence[float],
    rescale: bool,
    seed: int,
    **_others: object,
) -> list[Sparse]:
    return keep_by_rank(tensor, density, epsilon, seed=seed, rescale=rescale)


_PARAMETERS = (
    Parameter("weight"),
    Parameter("density", default=1.0, low=0.0, high=1.0),
    Parameter("epsilon", default=0.15, low=0.0, high=0.5),
    SEED,
)


@method(
    "della_linear",
    operands="deltas",
    base="required",
    measure=_measure,
    ignored=("int8_mask",),
    paper="Deep et al., DELLA-Merging, arXiv 2406.11617",
    parameters=[
        *_PARAMETERS,
        Parameter("normalize", default=False, scope="merge"),
        Parameter("rescale", default=True, scope="merge"),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def della_linear(
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

    τ̂ᵢ keeps an entry of τᵢ with a probability from density − epsilon for the smallest magnitude of its row to
    density + epsilon for the largest, linear in the rank. With `rescale` the rest is scaled so that its L1 norm is that
    of τᵢ: mergekit's semantics. The paper divides each entry by its probability.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: What of each task vector is kept.
        first: The place of the block's first element in the tensor.
        weight: wᵢ, any real number.
        normalize: Divide by Σ wᵢ, in `della` by that of the agreeing.
        lambda_: λ, any real number.
        **_decided_when_measured: `density`, the mean probability with which an entry is kept, in [0, 1]; `epsilon`,
            half the
            range of the probabilities; `rescale`, restore each task vector's L1 norm; `seed`, of the draws, a whole
            number ≥ 0.

    Raises:
        ConfigError: `normalize` is set and the weights sum to zero.
    """
    return merge_sparse(
        base, deltas, measured, first, weight=weight, normalize=normalize, lambda_=lambda_, method="della_linear"
    )


@method(
    "della",
    operands="deltas",
    base="required",
    measure=_measure,
    ignored=("int8_mask",),
    paper="Deep et al., DELLA-Merging, arXiv 2406.11617",
    parameters=[
        *_PARAMETERS,
        Parameter("normalize", default=True, scope="merge"),
        Parameter("rescale", default=True, scope="merge"),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def della(
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

    τ̂ᵢ keeps an entry of τᵢ with a probability from density − epsilon for the smallest magnitude of its row to
    density + epsilon for the largest, linear in the rank. With `rescale` the rest is scaled so that its L1 norm is that
    of τᵢ: mergekit's semantics. The paper divides each entry by its probability.
    An entry agrees if it has the sign of Σ wᵢ τ̂ᵢ, as in `ties`.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: What of each task vector is kept.
        first: The place of the block's first element in the tensor.
        weight: wᵢ, any real number.
        normalize: Divide by Σ wᵢ, in `della` by that of the agreeing.
        lambda_: λ, any real number.
        **_decided_when_measured: `density`, the mean probability with which an entry is kept, in [0, 1]; `epsilon`,
            half the
            range of the probabilities; `rescale`, restore each task vector's L1 norm; `seed`, of the draws, a whole
            number ≥ 0.
    """
    return merge_agreeing(base, deltas, measured, first, weight=weight, normalize=normalize, lambda_=lambda_)
