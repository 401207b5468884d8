"""Write a checkpoint tensor by tensor, in any order, from several threads, without holding it in memory."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from unspoiled.checkpoints._header import DTYPE_NAMES
from unspoiled.checkpoints._reader import INDEX_NAME, WEIGHTS_NAME, listed
from unspoiled.errors import CheckpointError, ResourceError
from unspoiled.files import write_json_atomic


@dataclass(frozen=True)
class _Slot:
    shard: int
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape)


class CheckpointWriter:
    """Write tensors into safetensors files whose layout is fixed in advance.

    Every file gets its header and its full size before the first tensor, so that a full disk shows at once,
    tensors go straight to their place, and the order of writing doesn't change a byte.

    ```python
    with CheckpointWriter(staging, layout) as writer:
        for name in layout:
            writer.write(name, merged(name))
    ```
    """

    def __init__(
        self,
        staging: Path,
        layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
        *,
        shard_size: int = 5_000_000_000,
    ) -> None:
        """Lay out the files.

        Args:
            staging: An existing directory, from `staged_directory`.
            layout: Tensor name → (dtype, shape). A merge gets it from `output_layout`.
            shard_size: The size in bytes at which a new file begins; a larger tensor has a file to itself.

        Raises:
            CheckpointError: an empty layout, or a dtype that we don't write.
        """
        if not layout:
            raise CheckpointError(f"{staging}: there is no tensor to write.")
        for name, (dtype, _) in layout.items():
            if dtype not in DTYPE_NAMES:
                raise CheckpointError(
                    f"Tensor {name!r} can't be written in {dtype}. Choose one of bfloat16, float16, float32."
                )
        self._staging = staging
        shards = _split(layout, shard_size)
        self._names = [WEIGHTS_NAME] if len(shards) == 1 else [
            f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)
        ]  # fmt: skip
        self._slots: dict[str, _Slot] = {}
        self._headers: list[bytes] = []
        for index, names in enumerate(shards):
            header, slots = _lay_out(index, names, layout)
            self._headers.append(header)
            self._slots.update(slots)
        self._missing = {name: prod(slot.shape) for name, slot in self._slots.items()}  # elements not written yet
        self._lock = Lock()
        self._descriptors: list[int] = []

    def __enter__(self) -> Self:
        """Create the files at full size.

        Raises:
            ResourceError: the disk is too full for them.
        """
        try:
            for index, name in enumerate(self._names):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                self._descriptors.append(os.open(self._staging / name, flags, 0o644))
                size = len(self._headers[index]) + sum(
                    slot.nbytes for slot in self._slots.values() if slot.shard == index
                )
                os.posix_fallocate(self._descriptors[index], 0, size)
                _write_all(self._descriptors[index], memoryview(self._headers[index]), 0)
        except OSError as error:
            self._close()
            raise self._disk_error(error) from error
        return self

    def write(self, name: str, tensor: Tensor, *, first: int = 0) -> None:
        """Put a tensor, or a contiguous piece of one, in its place; safe to call from several threads.

        Args:
            name: A name of the layout.
            tensor: Of the layout's dtype, on any device; each element of the laid-out tensor is written once.
            first: Where the piece begins, in elements of the flattened tensor.

        Raises:
            CheckpointError: unknown name, wrong dtype, a piece that leaves the tensor, or more than its elements.
            ResourceError: the disk is full.
        """
        slot = self._slots.get(name)
        if slot is None:
            raise CheckpointError(f"Tensor {name!r} is not in the layout of {self._staging}.")
        size = prod(slot.shape)
        if tensor.dtype != slot.dtype or first < 0 or first + tensor.numel() > size:
            raise CheckpointError(
                f"Tensor {name!r} was laid out as {slot.dtype} {list(slot.shape)} "
                f"and came as {tensor.dtype} {list(tensor.shape)} from element {first} on."
            )
        with self._lock:
            missing = self._missing[name] - tensor.numel()
            if missing < 0:
                raise CheckpointError(f"Tensor {name!r} was written twice.")
            self._missing[name] = missing
        data = memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        try:
            _write_all(self._descriptors[slot.shard], data, slot.start + first * slot.dtype.itemsize)
        except OSError as error:
            raise self._disk_error(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush the files and write the index.

        Raises:
            CheckpointError: tensors of the layout were not written.
        """
        if error is not None:
            self._close()
            return
        try:
            if missing := sorted(name for name, elements in self._missing.items() if elements):
                raise CheckpointError(f"{self._staging}: tensors were not written: {listed(missing)}.")
            for descriptor in self._descriptors:
                os.fsync(descriptor)
        finally:
            self._close()
        if len(self._names) > 1:
            total = sum(slot.nbytes for slot in self._slots.values())
            weight_map = {name: self._names[slot.shard] for name, slot in sorted(self._slots.items())}
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            write_json_atomic(self._staging / INDEX_NAME, index)

    def _close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def _disk_error(self, error: OSError) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            total = sum(slot.nbytes for slot in self._slots.values())
            return ResourceError(
                f"{self._staging}: {error.strerror} while writing a checkpoint of {total / 1e9:.2f} GB. "
                "Free space or choose an output directory on another disk; nothing was published."
            )
        return error


def _split(layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], shard_size: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, (dtype, shape) in sorted(layout.items()):
        size = dtype.itemsize * prod(shape)
        if shards[-1] and filled + size > shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _lay_out(
    shard: int, names: list[str], layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
) -> tuple[bytes, dict[str, _Slot]]:
    """Return a file's first bytes and its tensors' places; wide dtypes first keeps every tensor aligned."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets: dict[str, int] = {}
    position = 0
    for name in sorted(names, key=lambda name: (-layout[name][0].itemsize, name)):
        dtype, shape = layout[name]
        end = position + dtype.itemsize * prod(shape)
        entries[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        offsets[name] = position
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    slots = {
        name: _Slot(shard, len(header) + offset, layout[name][0], tuple(layout[name][1]))
        for name, offset in offsets.items()
    }
    return header, slots


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
