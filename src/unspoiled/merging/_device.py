"""Merging on an accelerator: rows travel there through pinned memory, each block while the one before is worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta, ModelSource
from unspoiled.errors import ConfigError, ResourceError
from unspoiled.merging._method import Block
from unspoiled.merging._operands import AdaptedTensor, DenseDelta, Operand

BLOCK = 2**22
"""Elements of a block on an accelerator: enough that an operation takes longer than to ask for it, and fewer than the
2^24 up to which float32 counts exactly."""


def open_device(name: str) -> torch.device:
    """Return the device of that name: `cpu`, `cuda` (torch's current one) or `cuda:N`.

    Raises:
        ConfigError: It is none of these.
        ResourceError: This machine doesn't have it, or this torch can't use it.
    """
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (name != kind and not (kind == "cuda" and number.isdecimal())):
        raise ConfigError(f"device is {name!r}: it must be cpu, cuda or cuda:N, such as cuda:0.")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        why = "finds no GPU that it can use" if torch.version.cuda else "was built without CUDA"
        raise ResourceError(
            f"device is {name!r}, and torch {torch.__version__} {why} on this machine. Merge with --device cpu, or "
            "install a torch build for this machine's CUDA driver: https://pytorch.org/get-started/locally."
        )
    index = int(number) if number else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise ResourceError(
            f"device is {name!r}, and torch finds {torch.cuda.device_count()} CUDA device(s) on this machine, "
            "counted from cuda:0. Choose one of them; CUDA_VISIBLE_DEVICES hides the others."
        )
    return torch.device("cuda", index)


def rows_on(name: str) -> DeviceRows | None:
    """Return what reads rows onto the device of that name; None for the CPU, where reading them is all.

    Raises:
        ConfigError, ResourceError: See `open_device`.
    """
    device = open_device(name)
    return None if device.type == "cpu" else DeviceRows(device)


def free_memory(device: torch.device) -> int:
    """Return how many bytes of a CUDA device are free, those that torch's allocator keeps for reuse included."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


@contextmanager
def full_float32() -> Iterator[None]:
    """Let products of matrices be float32 throughout, not TF32 (10 bits of mantissa), whatever was set before."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class DeviceRows:
    """Reads rows onto a device, as `RowReader`, and brings results back.

    Args:
        device: A CUDA device. With the CPU everything is done as for an accelerator, without pinned memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pinned = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if self._pinned else None  # type: ignore[no-untyped-call]

    def enter_thread(self) -> None:
        """Let the calling thread allocate for this device: else pinned memory would start up the first GPU as well."""
        if self._pinned:
            torch.cuda.set_device(self.device)

    def __call__(self, source: ModelSource, name: str, start: int, stop: int) -> Tensor:
        """Read rows [start, stop) of a model's tensor, taken as a matrix."""
        info = source.checkpoint.info(name)
        rows = torch.empty(stop - start, info.matrix[1], dtype=info.dtype, pin_memory=self._pinned)
        source.read_rows(name, start, stop, out=rows)
        return self.send(rows)

    def send(self, rows: Tensor) -> Tensor:
        """Return rows on the device; they may still be under way on the current stream.

        Pinned memory may be dropped meanwhile: torch's allocator gives it out again only after the copy.
        """
        return rows.to(self.device, non_blocking=True)

    def fetch(self, rows: Tensor) -> Tensor:
        """Return rows that have arrived in the CPU's memory."""
        if rows.is_cpu:
            return rows
        arrived = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=self._pinned)
        arrived.copy_(rows, non_blocking=True)
        if self._pinned:
            torch.cuda.current_stream(self.device).synchronize()
        return arrived

    def ahead(self, make: Callable[[int, int], Block], ranges: Sequence[tuple[int, int]]) -> Iterator[Block]:
        """Yield `make(start, stop)` for each range, in order, each made while the one before is worked on.

        `make` runs in a thread of its own and on a stream of its own, which the caller's stream waits for.
        """

        def prepared(start: int, stop: int) -> tuple[Block, torch.cuda.Event | None]:
            with self._copying():
                block = make(start, stop)
                return block, None if self._copies is None else self._copies.record_event()

        with ThreadPoolExecutor(1) as pool:
            coming: Future[tuple[Block, torch.cuda.Event | None]] | None = None
            for place in range(-1, len(ranges)):
                following = pool.submit(prepared, *ranges[place + 1]) if place + 1 < len(ranges) else None
                if coming is not None:
                    yield self._received(*coming.result())
                coming = following

    def _copying(self) -> AbstractContextManager[object]:
        return nullcontext() if self._copies is None else torch.cuda.stream(self._copies)

    def _received(self, block: Block, ready: torch.cuda.Event | None) -> Block:
        """Let the current stream use a block that was made on the other one."""
        if ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(ready)
            for tensor in _tensors(block):
                tensor.record_stream(stream)  # else its memory would be given out again while it is still read
        return block


def _tensors(block: Block) -> Iterator[Tensor]:
    if block.base is not None:
        yield block.base
    for operand in block.operands:
        yield from _parts(operand)


def _parts(operand: Operand) -> list[Tensor]:
    match operand:
        case LowRankDelta():
            return [operand.b, operand.a]
        case DenseDelta():
            return [operand.tensor, operand.base]
        case AdaptedTensor():
            return [operand.base, operand.delta.b, operand.delta.a]
        case _:
            return [operand]
