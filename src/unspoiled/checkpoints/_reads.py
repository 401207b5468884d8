"""The two ways to a tensor's bytes: a memory map of its file, or positioned reads into memory of the process.

A map copies nothing, but its pages count as this process's memory, and each costs a page fault. A positioned read
copies just the bytes that were asked for and leaves nothing behind.
"""

import mmap
import os
import weakref
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from unspoiled.checkpoints._header import TensorInfo
from unspoiled.errors import CheckpointError

_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class MappedFiles:
    """The memory maps of a checkpoint's files, each opened at the first read."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}
        self._lock = Lock()

    def read(self, info: TensorInfo) -> Tensor:
        """Return the tensor that `info` describes as a view of the file."""
        if info.numel == 0:
            return torch.empty(info.shape, dtype=info.dtype)
        mapped = self._map(info.file)
        if info.start % info.dtype.itemsize:  # old writers didn't align; torch wants aligned memory
            copy = bytearray(mapped[info.start : info.start + info.nbytes])
            return torch.frombuffer(copy, dtype=info.dtype).view(info.shape)
        flat = torch.frombuffer(mapped, dtype=info.dtype, count=info.numel, offset=info.start)
        return flat.view(info.shape)

    def _map(self, file: Path) -> mmap.mmap:
        with self._lock:
            if file not in self._maps:
                with file.open("rb") as stream:
                    # Private: a stray in-place operation can't reach the file. Without reserve: a mapping
                    # larger than memory and swap is refused otherwise.
                    self._maps[file] = mmap.mmap(
                        stream.fileno(),
                        0,
                        flags=mmap.MAP_PRIVATE | _MAP_NORESERVE,
                        prot=mmap.PROT_READ | mmap.PROT_WRITE,
                    )
            return self._maps[file]


class PositionedFiles:
    """A checkpoint's files, each opened at the first read and closed when this object is collected."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._lock = Lock()
        weakref.finalize(self, _close_all, self._descriptors)

    def read_rows(self, info: TensorInfo, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Return rows [start, stop) of the tensor that `info` describes; see `Checkpoint.read_rows`."""
        rows, width = info.matrix
        if not 0 <= start <= stop <= rows:
            raise ValueError(f"rows {start} to {stop} are not among the tensor's {rows}")
        shape = (stop - start, width)
        if out is None:
            out = torch.empty(shape, dtype=info.dtype)
        elif out.shape != shape or out.dtype != info.dtype or not out.is_contiguous() or out.device.type != "cpu":
            raise ValueError(f"out must be contiguous {info.dtype} {list(shape)}, not {out.dtype} {list(out.shape)}")
        row_bytes = width * info.dtype.itemsize
        target = out.detach().reshape(-1).view(torch.uint8).numpy().data
        position = info.start + start * row_bytes
        descriptor = self._descriptor(info.file)
        while target:  # one call gives 2 GiB at most
            count = os.preadv(descriptor, [target], position)
            if count == 0:
                raise CheckpointError(
                    f"{info.file} ends at byte {os.fstat(descriptor).st_size}, before a tensor that it held when it "
                    f"was opened (bytes {info.start} to {info.start + info.nbytes}): it was changed while it was "
                    "read. Get the file again, and leave it alone until the command has ended."
                )
            target, position = target[count:], position + count
        return out

    def _descriptor(self, file: Path) -> int:
        with self._lock:
            if file not in self._descriptors:
                self._descriptors[file] = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            return self._descriptors[file]


def _close_all(descriptors: dict[Path, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
