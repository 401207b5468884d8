"""Tensors as matrices, read some rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from unspoiled.checkpoints import ModelSource

RowReader = Callable[[ModelSource, str, int, int], Tensor]
"""Reads rows [start, stop) of a model's tensor, taken as a matrix: `ModelSource.read_rows`, or one of these."""


def mapped_rows(source: ModelSource, name: str, start: int, stop: int) -> Tensor:
    """Read rows through the checkpoint's memory map, which keeps them in memory: for work that comes back."""
    return as_matrix(source.read(name))[start:stop]


def as_matrix(tensor: Tensor) -> Tensor:
    """Return a tensor as [rows, width], its leading dimensions as one; [1, n] for one of fewer than two."""
    return tensor.reshape(matrix_shape(tensor.shape))


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return the (rows, width) of a tensor of that shape as a matrix; a vector or scalar is a single row."""
    return (1, math.prod(shape)) if len(shape) < 2 else (math.prod(shape[:-1]), shape[-1])
