"""Which device a config means on this machine."""

from __future__ import annotations

import torch

from unspoiled.config import Dtype, RuntimeConfig
from unspoiled.errors import ConfigError


def device_of(runtime: RuntimeConfig) -> str:
    """Return the torch device that `runtime.device` means here."""
    wanted = runtime.device
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def compute_dtype(runtime: RuntimeConfig, weights: Dtype) -> Dtype:
    """Return the dtype that models compute in here, by `runtime.dtype` and the dtype of the weights measured."""
    wanted = runtime.dtype
    if wanted != "auto":
        return wanted
    fast = on_gpu(runtime) or (weights == "bfloat16" and _has_bfloat16_instructions())
    return weights if fast else "float32"


def _has_bfloat16_instructions() -> bool:
    """Say whether this CPU multiplies matrices in bfloat16; one that emulates it takes ten times as long (measured)."""
    known = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(supported() for supported in known if supported is not None)


def on_gpu(runtime: RuntimeConfig) -> bool:
    """Say whether `runtime.device` means a GPU here."""
    return device_of(runtime).startswith("cuda")


def require_device(runtime: RuntimeConfig) -> None:
    """Check that torch knows the device and this machine has it.

    Raises:
        ConfigError: It doesn't.
    """
    device = runtime.device
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # torch raises all three
        reason = str(error).splitlines()[0]
        raise ConfigError(f"runtime.device: torch can't use {device!r} here ({reason}): write auto or cpu.") from None
