"""RESTA: give a compromised model its safety back by adding a safety vector."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._draws import SEED
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled
from unspoiled.merging._roles import SAFETY, roles
from unspoiled.merging._sparsify import Sparse, keep_random, kept_entries


def _measure(tensor: TensorBlocks, *, density: Sequence[float], safety: Sequence[int], seed: int) -> list[Sparse]:
    kept = [share if role == 0 else 1.0 for share, role in zip(density, safety, strict=True)]
    found = keep_random(tensor, kept, seed=seed, rescale=False)
    return [Sparse(one.kept, 1 / share if share > 0 else 1.0) for one, share in zip(found, kept, strict=True)]


@method(
    "resta",
    operands="deltas",
    base="required",
    experts=(2, None),
    measure=_measure,
    prepare=kept_entries,
    in_pieces=True,
    paper="Bhardwaj et al., Language Models are Homer Simpson! (RESTA), arXiv 2402.11746",
    parameters=[
        SAFETY,
        Parameter("weight", default=1.0),
        Parameter("density", default=1.0, low=0.0, high=1.0, differentiable=False),  # decides draws
        Parameter("gamma", default=1.0, scope="merge"),
        SEED,
    ],
)
def resta(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: Sequence[Sparse],
    safety: Sequence[int],
    weight: Sequence[Number],
    gamma: Number,
) -> Tensor:
    """Return θ = θ_base + Σ wᵢ DARE(τᵢ) + γ (θ_aligned − θ_unaligned), float32, of the base's shape.

    The paper has one expert, and leaves out DARE (`density` 1) or drops the entries of the expert's task vector at
    random and divides the rest by density. The base is what the experts were tuned from; it may be the aligned or the
    unaligned model itself, which then isn't listed among the models.

    Args:
        base: The base's rows, any floating dtype.
        deltas: The kept entries of one task vector per model, of the base's shape. `density` is the probability with
            which an entry of a task expert is kept, in [0, 1]; `seed` that of the draws, ≥ 0.
        measured: What of each task vector is kept, and the factor that makes up for it.
        safety: The models' roles: 1 for the aligned model, -1 for the unaligned one, 0 for a task expert.
        weight: wᵢ of the task experts, any real number; not used for the others.
        gamma: γ, any real number.

    Raises:
        ConfigError: There is no aligned or unaligned model beside the base, or more than one of either.
    """
    found = roles(safety, "resta", experts=None, safe=None, unsafe=None)
    if not found.safe + found.unsafe or len(found.safe) > 1 or len(found.unsafe) > 1:
        raise ConfigError(
            f"resta adds the difference between one aligned model (`safety: 1`) and one unaligned model (`safety: -1`) "
            f"of which the base may be one, and the recipe's models have the roles {list(safety)}. Set `safety` under "
            "their `parameters`."
        )
    weights = [gamma * role if role else w * one.scale for one, role, w in zip(measured, safety, weight, strict=True)]
    return sum_scaled(base, deltas, weights)
