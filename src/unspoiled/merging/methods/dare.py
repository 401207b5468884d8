"""DARE: drop entries of the task vectors at random and scale up the rest."""

from collections.abc import Sequence
from functools import partial

from unspoiled.merging._draws import SEED
from unspoiled.merging._method import Parameter, TensorBlocks
from unspoiled.merging._sparsify import Sparse, keep_random
from unspoiled.merging._sparsifying import sparsifying

_dare = partial(
    sparsifying,
    normalize=False,
    rescale=True,
    paper="Yu et al., Language Models are Super Mario (DARE), arXiv 2311.03099",
    parameters=(Parameter("density", default=1.0, low=0.0, high=1.0, differentiable=False), SEED),
)


@_dare("dare_linear", agreeing=False)
@_dare("dare_ties", agreeing=True)
def drop_at_random(tensor: TensorBlocks, *, density: Sequence[float], rescale: bool, seed: int) -> list[Sparse]:
    """τ̂ᵢ keeps each entry of τᵢ with the probability density. With `rescale` the rest is scaled so that its L1 norm is
    that of τᵢ: mergekit's semantics. The paper divides by density, which is the same on average.

    Args:
        density: The probability with which an entry is kept, in [0, 1].
        rescale: Restore each task vector's L1 norm.
        seed: Of the draws, a whole number ≥ 0.
    """
    return keep_random(tensor, density, seed=seed, rescale=rescale)
