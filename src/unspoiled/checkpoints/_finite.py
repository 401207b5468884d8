"""The check that keeps NaN and Inf out of a merge."""

import torch
from torch import Tensor

from unspoiled.errors import CheckpointError


def require_finite(tensor: Tensor, *, model: str, name: str) -> None:
    """Refuse NaN and Inf.

    Args:
        tensor: Any floating-point tensor.
        model: The model that it came from, or "the merge".
        name: The tensor's name.

    Raises:
        CheckpointError: names model, tensor, how many values are bad, and the first one's index.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    # The extremes are finite exactly if everything is: one pass, without a mask as large as the tensor.
    low, high = torch.aminmax(tensor.detach())
    if torch.isfinite(low) and torch.isfinite(high):
        return
    bad = ~torch.isfinite(tensor.detach())
    index = [int(i) for i in bad.nonzero()[0]]
    raise CheckpointError(
        f"{model}: tensor {name!r} has {int(bad.sum())} NaN or Inf values of {tensor.numel()}, the first "
        f"at {index} "
        f"({tensor[tuple(index)].item()}). The checkpoint is broken (a diverged training, or an overflow "
        "in float16); "
        "leave this model out or get it again."
    )
