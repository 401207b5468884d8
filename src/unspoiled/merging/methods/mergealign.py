"""MergeAlign: interpolate between a domain expert's task vector and an aligned model's."""

from collections.abc import Sequence

from torch import Tensor

from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, sum_scaled
from unspoiled.merging._roles import SAFETY, roles


@method(
    "mergealign",
    operands="deltas",
    base="required",
    experts=(2, 2),
    paper="Thakkar et al., Combining Domain and Alignment Vectors, arXiv 2411.06824",
    parameters=[SAFETY, Parameter("t", default=0.5, low=0.0, high=1.0, scope="merge")],
)
def mergealign(base: Tensor, deltas: Sequence[Operand], *, safety: Sequence[int], t: Number) -> Tensor:
    """Return θ = θ_base + (1 − t) τ_domain + t τ_aligned, float32, of the base's shape.

    Args:
        base: The rows of the pretrained model that both models come from, any floating dtype.
        deltas: The domain vector and the alignment vector, in any order.
        safety: The models' roles: 0 for the domain expert, 1 for the aligned model.
        t: The alignment vector's share, in [0, 1].

    Raises:
        ConfigError: There isn't one model of each role.
    """
    found = roles(safety, "mergealign", experts=1, safe=1, unsafe=0)
    return sum_scaled(base, [deltas[found.experts[0]], deltas[found.safe[0]]], [1 - t, t])
