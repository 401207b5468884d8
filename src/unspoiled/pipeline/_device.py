"""Which device a config means on this machine."""

from __future__ import annotations

import torch

from unspoiled.config import RunConfig
from unspoiled.errors import ConfigError


def device_of(config: RunConfig) -> str:
    """Return the torch device that `runtime.device` means here."""
    wanted = config.runtime.device
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def on_gpu(config: RunConfig) -> bool:
    """Say whether `runtime.device` means a GPU here."""
    return device_of(config).startswith("cuda")


def require_device(config: RunConfig) -> None:
    """Check that torch knows the device and this machine has it.

    Raises:
        ConfigError: It doesn't.
    """
    device = config.runtime.device
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # torch raises all three
        reason = str(error).splitlines()[0]
        raise ConfigError(f"runtime.device: torch can't use {device!r} here ({reason}): write auto or cpu.") from None
