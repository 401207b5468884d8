"""One tensor of a merge, read and merged a block of rows at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta, ModelSource, require_finite
from unspoiled.merging._device import BLOCK, DeviceRows
from unspoiled.merging._embeddings import MappedInput
from unspoiled.merging._gradients import (
    Gradients,
    coefficient_gradients,
    require_differentiable,
    zero_gradients,
)
from unspoiled.merging._method import Block, BlockSource, Method, TensorBlocks, Value
from unspoiled.merging._operands import AdaptedTensor, DenseDelta, Operand, all_dense, rows_of
from unspoiled.merging._rows import RowReader, as_matrix, mapped_rows, matrix_shape
from unspoiled.merging._statistics import StatisticsFile, StatisticsOf

_BLOCK = 2**19  # elements: float32 copies of a few experts' blocks stay in a core's share of the cache


@dataclass(frozen=True)
class Input:
    """Where a model has the tensor that goes into an output tensor.

    Attributes:
        source: The opened model.
        name: The tensor's name there.
    """

    source: ModelSource
    name: str

    def delta(self) -> LowRankDelta | None:
        """Return what the model's adapter adds to the tensor, or None."""
        return self.source.delta(self.name)

    def rows(self, read: RowReader, start: int, stop: int) -> Tensor | AdaptedTensor:
        """Return rows [start, stop) of the model's weight, the adapter's part kept low-rank."""
        base = read(self.source, self.name, start, stop)
        delta = self.delta()
        return base if delta is None else AdaptedTensor(base, _on(rows_of(delta, start, stop), base.device))


@dataclass(frozen=True)
class PlannedTensor:
    """One output tensor: where it comes from, by which method, with which coefficients.

    Iterating reads it block by block, as `Method.measure` wants it.

    Attributes:
        name: Its name in the output.
        shape: Its shape.
        dtype: Its dtype in the output.
        method: The merge method.
        coefficients: The method's arguments, resolved for this tensor.
        base: Where the base has it, or None.
        inputs: Where the experts have it.
        copied: Every input holds the same tensor and the method passes it through: it is read, not merged.
        read: How rows are read, and onto which device.
        statistics: Each expert's statistics file, where the method takes any.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    method: Method
    coefficients: dict[str, Value | list[Value]]
    base: Input | MappedInput | None
    inputs: tuple[Input | MappedInput, ...]
    copied: bool
    read: RowReader = mapped_rows
    statistics: tuple[StatisticsFile, ...] = ()

    def row_ranges(self) -> list[tuple[int, int]]:
        """Return the [start, stop) of each block, in rows of the matrix; by the shape and the kind of device alone."""
        rows, width = matrix_shape(self.shape)
        matrix = self.shape[-2] if len(self.shape) >= 2 else 1
        size = BLOCK if isinstance(self.read, DeviceRows) else _BLOCK
        step = max(1, matrix if self.method.whole else size // max(1, width))
        return [(start, min(start + step, rows)) for start in range(0, rows, step)]

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks, read anew; onto a device, each while the one before is worked on."""
        return self.blocks(check=False)

    def blocks(self, *, check: bool) -> Iterator[Block]:
        """Yield the blocks, as iterating does.

        Args:
            check: Whether to refuse inputs that aren't finite, also where the method would make nothing of them.

        Raises:
            CheckpointError: With `check`; the message names the model and the tensor.
        """
        make = partial(self._block, check=check)
        if isinstance(self.read, DeviceRows):
            yield from self.read.ahead(make, self.row_ranges())
            return
        for start, stop in self.row_ranges():
            yield make(start, stop)

    def merged_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (place of the first element, merged rows) for each block, in order.

        The rows are matrices in float32, on the device that is read to; those of a copied tensor are in its storage
        dtype, on the CPU.
        """
        if self.copied:
            width = matrix_shape(self.shape)[1]
            source = self.base or self.inputs[0]
            read = ModelSource.read_rows if isinstance(self.read, DeviceRows) else self.read
            for start, stop in self.row_ranges():
                yield start * width, read(source.source, source.name, start, stop)
            return
        yield from self.method.merge_blocks(self.checked_once(), self.coefficients)

    def checked_once(self) -> TensorBlocks:
        """Return the tensor with its inputs checked when they are first read, to be measured or to be merged."""
        fresh = True

        def read() -> Iterator[Block]:
            nonlocal fresh
            check, fresh = fresh, False
            return self.blocks(check=check)

        if self.method.measure is None or len(self.row_ranges()) != 1:
            return BlockSource(read, self.shape, self.name)
        (block,) = read()  # read and subtracted once, not twice
        ready = replace(block, operands=all_dense(block.operands))
        return BlockSource(lambda: [ready], self.shape, self.name)

    def merged(self) -> Tensor:
        """Return the whole merged tensor, of `shape`: float32, or the storage dtype of what isn't floating point."""
        with one_thread() if self.method.whole else nullcontext():
            blocks = [rows for _, rows in self.merged_blocks()] or [torch.empty(0)]
        whole = (blocks[0] if len(blocks) == 1 else torch.cat(blocks)).reshape(self.shape)
        return whole.float() if whole.is_floating_point() else whole

    def coefficient_gradients(self, gradient: Tensor, wanted: Collection[str]) -> Gradients:
        """Return dL/dc of the wanted coefficients c, given dL/dθ of this tensor.

        The merge is made once more, a block at a time, so that only one block's graph is alive. The products are
        float32, the sums over blocks float64.

        Args:
            gradient: dL/dθ, of `shape`, any floating dtype and device; not changed.
            wanted: Names of arguments of the method, as in `coefficients`.

        Returns:
            By argument, a value per expert where `coefficients` has a list, else one. All are zero if the tensor is
            copied.

        Raises:
            ConfigError: One is unknown, or not differentiable.
        """
        require_differentiable(self.method, wanted)
        if self.copied:
            return zero_gradients(self.coefficients, wanted)
        rows = as_matrix(gradient)
        with one_thread() if self.method.whole else nullcontext():
            return coefficient_gradients(self.method, self.checked_once(), self.coefficients, rows, wanted)

    def _block(self, start: int, stop: int, *, check: bool) -> Block:
        first = start * matrix_shape(self.shape)[1]
        read = partial(self._rows, start=start, stop=stop, check=check)
        base = None if self.base is None else _weights(read(self.base))
        statistics = [
            self._statistics_of(file, given, start, stop)
            for file, given in zip(self.statistics, self.inputs, strict=bool(self.statistics))
        ]
        if self.method.operands == "tensors" or base is None:
            return Block(base, [read(given) for given in self.inputs], first, statistics)
        return Block(base, [self._delta(given, base, start, stop, check) for given in self.inputs], first, statistics)

    def _rows(self, given: Input | MappedInput, start: int, stop: int, check: bool) -> Tensor | AdaptedTensor:
        rows = given.rows(self.read, start, stop)
        if check:
            _require_finite(given, *((rows,) if isinstance(rows, Tensor) else (rows.base, rows.delta.b, rows.delta.a)))
        return rows

    def _statistics_of(self, file: StatisticsFile, given: Input | MappedInput, start: int, stop: int) -> StatisticsOf:
        """Return a reader of the expert's statistics for rows [start, stop), which reads each when it is asked for."""
        by_rows = {statistic.kind: statistic.by_rows for statistic in self.method.statistics}
        width = matrix_shape(self.shape)[1]

        def read(kind: str) -> Tensor | None:
            if not by_rows[kind]:
                return file.read(kind, given.name)
            found = file.read_rows(kind, given.name, self.shape, start * width, stop * width)
            return found.view(stop - start, width)

        return read

    def _delta(self, given: Input | MappedInput, base: Tensor, start: int, stop: int, check: bool) -> Operand:
        assert self.base is not None
        low_rank = given.delta()
        if low_rank is not None and self.base.delta() is None and _same_tensor(given, self.base):
            rows = _on(rows_of(low_rank, start, stop), base.device)
            if check:
                _require_finite(given, rows.b, rows.a)
            return rows
        return DenseDelta(_weights(self._rows(given, start, stop, check)), base)


def _require_finite(given: Input | MappedInput, *parts: Tensor) -> None:
    for part in parts:
        require_finite(part, model=str(given.source.ref), name=given.name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work in this thread alone, as `stream` does: decompositions round otherwise with other threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _same_tensor(first: Input | MappedInput, second: Input | MappedInput) -> bool:
    """Tell whether two inputs are the same stored tensor, their adapters left aside."""
    return first.source.directory == second.source.directory and first.name == second.name


def _on(delta: LowRankDelta, device: torch.device) -> LowRankDelta:
    return LowRankDelta(delta.b.to(device), delta.a.to(device), delta.scale)


def _weights(rows: Tensor | AdaptedTensor) -> Tensor:
    return rows.dense() if isinstance(rows, AdaptedTensor) else rows
