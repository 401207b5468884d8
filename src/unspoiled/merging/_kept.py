"""What a live model keeps of its merges from one recipe to the next, so that a trial redoes only what it moves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from unspoiled.checkpoints import available_memory
from unspoiled.merging._blocks import Input, PlannedTensor
from unspoiled.merging._device import free_memory
from unspoiled.merging._gradients import Gradients, gradients_of_prepared, zero_gradients
from unspoiled.merging._method import Block
from unspoiled.merging._rows import as_matrix

_UNKNOWN_MEMORY = 8 * 2**30  # bytes, taken where the system doesn't say how much it has

Mark: TypeAlias = tuple[object, ...]
"""Says what a piece of work was made of: equal marks, equal results, as long as the models stay open."""


def default_memory(device: torch.device) -> int:
    """Return a quarter of the memory that is free now, in bytes: a CUDA device's, else the system's."""
    if device.type == "cuda":
        return free_memory(device) // 4
    return (available_memory() or _UNKNOWN_MEMORY) // 4


def mark_of(tensor: PlannedTensor) -> Mark | None:
    """Return what a merged tensor is made of, all its coefficients included; None if that can't be told cheaply."""
    inputs = _inputs(tensor)
    return None if inputs is None else (*inputs, _said(tensor, tensor.coefficients))


@dataclass(frozen=True)
class _Work:
    """One tensor, measured and prepared.

    Attributes:
        mark: What it was made of.
        measured: What the method's `measure` returned.
        pieces: The prepared pieces, in order.
        nbytes: What of the budget it takes.
    """

    mark: Mark
    measured: object
    pieces: tuple[Block, ...]
    nbytes: int


class KeptWork:
    """Merges tensors, and keeps what was measured and prepared for them while the coefficients it depends on stay.

    The results are those of `Method.merge_blocks`, bit for bit: the same functions on the same blocks. Threads may
    merge different tensors at a time.

    Args:
        memory: How many bytes to keep in all, on the device where the merge is done. What the checkpoints' memory maps
            hold doesn't count. A tensor that doesn't fit is measured and prepared anew each time.
    """

    def __init__(self, memory: int) -> None:
        self._free = memory
        self._work: dict[str, _Work] = {}
        self._counting = Lock()

    def merged(self, tensor: PlannedTensor) -> Iterator[Tensor]:
        """Yield the merged float32 rows of a tensor that isn't copied, piece by piece."""
        if 0 in tensor.shape:
            return
        measured, pieces = self._prepared(tensor)
        decided = tensor.method.decided(measured, tensor.name, tensor.coefficients)
        for piece in pieces:
            yield tensor.method.merged(piece, decided, tensor.coefficients)

    def coefficient_gradients(self, tensor: PlannedTensor, gradient: Tensor, wanted: Collection[str]) -> Gradients:
        """Return what `PlannedTensor.coefficient_gradients` does, for a tensor that isn't copied."""
        if 0 in tensor.shape:
            return zero_gradients(tensor.coefficients, wanted)
        measured, pieces = self._prepared(tensor)
        rows = as_matrix(gradient)
        return gradients_of_prepared(tensor.method, tensor.name, measured, pieces, tensor.coefficients, rows, wanted)

    def _prepared(self, tensor: PlannedTensor) -> tuple[object, Iterator[Block]]:
        """Return what was measured of a tensor and its prepared pieces: what is kept, or else anew."""
        method, coefficients = tensor.method, tensor.coefficients
        inputs = _inputs(tensor)
        mark = None if inputs is None else (*inputs, _said(tensor, method.prepared_by))
        work = self._work.get(tensor.name)
        if work is None or work.mark != mark:
            self.forget(tensor.name)
            source = tensor.checked_once()
            measured = method.measured(source, coefficients)
            prepared = (piece for block in source for piece in method.prepared(block, measured, coefficients))
            return measured, prepared if mark is None else self._keeping(tensor, mark, measured, prepared)
        return work.measured, iter(work.pieces)

    @property
    def nbytes(self) -> int:
        """How many bytes are kept."""
        return sum(work.nbytes for work in self._work.values())

    def forget(self, name: str) -> None:
        """Let go of what is kept of a tensor, if anything."""
        work = self._work.pop(name, None)
        if work is not None:
            self._release(work.nbytes)

    def _keeping(
        self, tensor: PlannedTensor, mark: Mark, measured: object, prepared: Iterator[Block]
    ) -> Iterator[Block]:
        """Yield the prepared pieces, and keep them and what was measured once all are made, if they fit."""
        mapped = _mapped_storages(tensor)
        pieces: list[Block] = []
        taken = 0
        fits = True
        try:
            for given in chain((measured,), prepared):
                if fits:
                    more = _nbytes(given, mapped)
                    fits = self._take(more)
                    taken += more if fits else 0
                if isinstance(given, Block):
                    pieces += [given] if fits else []
                    yield given
            if fits:
                self._work[tensor.name] = _Work(mark, measured, tuple(pieces), taken)
                taken = 0
        finally:
            self._release(taken)

    def _take(self, nbytes: int) -> bool:
        with self._counting:
            fits = nbytes <= self._free
            self._free -= nbytes if fits else 0
        return fits

    def _release(self, nbytes: int) -> None:
        with self._counting:
            self._free += nbytes


def _inputs(tensor: PlannedTensor) -> Mark | None:
    """Return a tensor's method and where it comes from; opened models are told apart by identity, as they stay."""
    given = [tensor.base, *tensor.inputs]
    found: list[object] = [tensor.name, tensor.method.name, tensor.shape]
    for one in given:
        if one is not None and not isinstance(one, Input):
            return None  # an embedding's rows by a vocabulary that each plan makes anew
        found.append(None if one is None else (id(one.source), one.name))
    return (*found, *map(id, tensor.statistics))


def _said(tensor: PlannedTensor, names: Sequence[str] | frozenset[str] | Mapping[str, object]) -> str:
    """Return coefficients as text, in which -0.0 is not 0.0, and NaN is itself."""
    return repr([(name, tensor.coefficients[name]) for name in sorted(names)])


def _mapped_storages(tensor: PlannedTensor) -> set[int]:
    """Return the addresses of the memory that holds a tensor's inputs anyway."""
    found = set()
    for given in (tensor.base, *tensor.inputs):
        if isinstance(given, Input):
            delta = given.delta()
            parts = [given.source.read(given.name), *([] if delta is None else [delta.a, delta.b])]
            found |= {part.untyped_storage().data_ptr() for part in parts}
    return found


def _nbytes(given: object, mapped: set[int]) -> int:
    """Return how many bytes of memory tensors and arrays within `given` take, each memory counted once."""
    sizes: dict[int, int] = {}
    _add_sizes(given, sizes)
    return sum(size for address, size in sizes.items() if address not in mapped)


def _add_sizes(given: object, sizes: dict[int, int]) -> None:
    if isinstance(given, Tensor):
        storage = given.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    elif isinstance(given, np.ndarray):
        sizes[given.__array_interface__["data"][0]] = given.nbytes
    elif is_dataclass(given) and not isinstance(given, type):
        for field in fields(given):
            _add_sizes(getattr(given, field.name), sizes)
    elif isinstance(given, Mapping):
        for value in given.values():
            _add_sizes(value, sizes)
    elif isinstance(given, (list, tuple)):
        for value in given:
            _add_sizes(value, sizes)
