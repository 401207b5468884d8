"""Statistics of an expert's data (its Fisher information, its inputs' products), from a safetensors file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from unspoiled.checkpoints import TensorInfo, read_header, require_finite
from unspoiled.errors import CheckpointError, ConfigError

StatisticsOf: TypeAlias = Callable[[str], Tensor | None]
"""Returns one expert's statistic of a kind for the rows at hand; None where its file has none and needs none."""


@dataclass(frozen=True)
class Statistic:
    """A kind of statistic that a method takes.

    Attributes:
        kind: Its name.
        by_rows: It has the tensor's shape, so that a block of rows has its own part, and every tensor has it; else it
            is given whole, to those tensors that have it.
    """

    kind: str
    by_rows: bool = True


def statistic_name(kind: str, tensor: str) -> str:
    """Return what a statistics file calls the statistic of that kind for a tensor."""
    return f"{kind}:{tensor}"


@dataclass(frozen=True)
class StatisticsFile:
    """An opened statistics file, as `unspoiled statistics` writes it: float32 tensors named `KIND:TENSOR`.

    Attributes:
        path: The file.
        tensors: What it holds, by name.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]

    @classmethod
    def open(cls, path: Path) -> StatisticsFile:
        """Open a file; nothing is loaded but the header.

        Raises:
            ConfigError: It isn't there.
            CheckpointError: It isn't a safetensors file, or damaged.
        """
        if not path.is_file():
            raise ConfigError(
                f"the statistics file {str(path)!r} does not exist. Collect it with `unspoiled statistics`, or correct "
                "the model's `statistics`."
            )
        return cls(path, read_header(path))

    def require(self, kinds: Sequence[str]) -> None:
        """Refuse a file without a statistic of one of the kinds.

        Raises:
            ConfigError: One is missing.
        """
        held = {name.partition(":")[0] for name in self.tensors}
        if missing := [kind for kind in kinds if kind not in held]:
            raise ConfigError(
                f"the statistics file {str(self.path)!r} has no {missing[0]!r} (it has: {', '.join(sorted(held))}). "
                "Collect that kind with `unspoiled statistics`."
            )

    def read_rows(self, kind: str, tensor: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Return elements [start, stop) of the statistic of that kind for a tensor of that shape, float32.

        Raises:
            ConfigError: The file has none for the tensor.
            CheckpointError: As in `read`.
        """
        found = self.read(kind, tensor, shape=shape, start=start, stop=stop)
        if found is None:
            raise ConfigError(
                f"the statistics file {str(self.path)!r} has no {statistic_name(kind, tensor)!r}. Collect the "
                "statistics of this very model; one whose output head is tied has none for an untied head."
            )
        return found

    def read(
        self, kind: str, tensor: str, *, shape: tuple[int, ...] | None = None, start: int = 0, stop: int | None = None
    ) -> Tensor | None:
        """Return the statistic of that kind for a tensor, or some of its elements; None if the file has none.

        Args:
            kind: The kind.
            tensor: The tensor's name in the model.
            shape: The shape that it must have; None takes any.
            start: The first element to read, counted in elements.
            stop: The element after the last, by default the end.

        Returns:
            float32: of the statistic's shape, or [stop - start] if only some elements are read.

        Raises:
            CheckpointError: It has another shape or dtype, or NaN or Inf, or the file has become shorter.
        """
        name = statistic_name(kind, tensor)
        info = self.tensors.get(name)
        if info is None:
            return None
        if info.dtype != torch.float32 or shape not in (None, info.shape):
            raise CheckpointError(
                f"{str(self.path)!r}: {name!r} is {info.dtype} {list(info.shape)}, which does not fit the model's "
                f"{list(shape or info.shape)}. Collect the statistics of this model anew."
            )
        count = (info.numel if stop is None else stop) - start
        found = np.fromfile(self.path, np.float32, count, offset=info.start + 4 * start)
        if len(found) < count:
            raise CheckpointError(
                f"{str(self.path)!r} ends within {name!r}, which it held when it was opened. Collect the statistics "
                "anew, and leave the file alone until the command has ended."
            )
        values = torch.from_numpy(found)
        require_finite(values, model=str(self.path), name=name)
        return values.view(info.shape) if stop is None else values
