"""A device without hardware: tensors that lie on the CPU and behave as if they lay elsewhere.

They claim torch's device type "lazy", whose backend isn't there, and every operation on them is carried out on the
CPU, except those that a real device refuses: such as mix tensors of two devices, or want NumPy's view of the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

AWAY = torch.device("lazy")
_TRANSFERS = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class AwayTensor(Tensor):
    """A tensor on the pretended device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> AwayTensor:
        made: AwayTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=AWAY,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """Return the values; torch copies them to the CPU for any tensor but a subclass."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation on tensors."""
        return _run(func, args, kwargs or {})


class PretendDevice(TorchDispatchMode):
    """Let tensors be made on the pretended device, and moved there, in a `with` block."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out an operation."""
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    tensors = [given for given in tree_leaves((args, kwargs)) if isinstance(given, Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, AwayTensor)]
    moves = func in _TRANSFERS
    if away and not moves and any(tensor.is_cpu and tensor.dim() for tensor in tensors):  # a scalar may be anywhere
        raise RuntimeError(f"{func} was given tensors of two devices, the CPU and another")
    device = kwargs.get("device")
    here = [tree_map(lambda one: one.inner if isinstance(one, AwayTensor) else one, given) for given in (args, kwargs)]
    if device is not None:
        here[1] = {**here[1], "device": torch.device("cpu")}
    result = func(*here[0], **here[1])
    stays = device.type == "cpu" if device is not None else args[0].is_cpu if moves else not away
    if stays:
        return result
    known = {id(tensor.inner): tensor for tensor in away}  # what an operation in place returns is what it was given
    return tree_map(lambda one: known.get(id(one), AwayTensor(one)) if isinstance(one, Tensor) else one, result)
