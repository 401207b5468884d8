"""DELLA: drop entries of the task vectors at random, small ones more often."""

from collections.abc import Sequence
from functools import partial

from unspoiled.merging._draws import SEED
from unspoiled.merging._method import Parameter, TensorBlocks
from unspoiled.merging._sparsify import Sparse, keep_by_rank
from unspoiled.merging._sparsifying import sparsifying

_della = partial(
    sparsifying,
    rescale=True,
    paper="Deep et al., DELLA-Merging, arXiv 2406.11617",
    parameters=(
        Parameter("density", default=1.0, low=0.0, high=1.0, differentiable=False),
        Parameter("epsilon", default=0.15, low=0.0, high=0.5, differentiable=False),
        SEED,
    ),
)


@_della("della_linear", agreeing=False, normalize=False)
@_della("della", agreeing=True, normalize=True)
def drop_by_rank(
    tensor: TensorBlocks, *, density: Sequence[float], epsilon: Sequence[float], rescale: bool, seed: int
) -> list[Sparse]:
    """τ̂ᵢ keeps an entry of τᵢ with a probability from density − epsilon for the smallest magnitude of its row to
    density + epsilon for the largest, linear in the rank. With `rescale` the rest is scaled so that its L1 norm is that
    of τᵢ: mergekit's semantics. The paper divides each entry by its probability.

    Args:
        density: The mean probability with which an entry is kept, in [0, 1].
        epsilon: Half the range of the probabilities.
        rescale: Restore each task vector's L1 norm.
        seed: Of the draws, a whole number ≥ 0.
    """
    return keep_by_rank(tensor, density, epsilon, seed=seed, rescale=rescale)
