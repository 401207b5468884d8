"""Sparsification: which entries of a task vector are kept, decided over the whole tensor, applied block by block."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._draws import draw_bits, thresholds_of
from unspoiled.merging._method import TensorBlocks
from unspoiled.merging._operands import Operand, dense
from unspoiled.merging._order_statistics import Cut, cuts
from unspoiled.merging._pieces import all_pieces

_NO_NORM = 1e-7  # an L1 norm this small is that of a zero task vector: nothing to rescale


class Kept(Protocol):
    """The entries of one expert's task vector that a sparsification keeps."""

    def of(self, delta: Tensor, first: int) -> Tensor:
        """Return a block of the task vector, float32, with the other entries set to zero.

        Args:
            delta: The block, float32 [rows, width]; it is returned itself where everything is kept.
            first: The place of its first element in the tensor.
        """
        ...


@dataclass(frozen=True)
class Everything:
    """Nothing is dropped."""

    def of(self, delta: Tensor, first: int) -> Tensor:
        """Return the block itself."""
        return delta


@dataclass(frozen=True)
class ByMagnitude:
    """Kept are the largest entries down to `smallest`, without those up to `largest`."""

    smallest: Cut
    largest: Cut | None = None

    def of(self, delta: Tensor, first: int) -> Tensor:
        """Return the block with the entries between the cuts."""
        kept = self.smallest.keep(delta, first)
        return kept if self.largest is None else kept - self.largest.keep(delta, first)


@dataclass(frozen=True)
class ByChance:
    """Kept are the entries that were drawn; a bit for each element, by the place of the part drawn at once."""

    bits: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def draw(self, mask: NDArray[np.bool_], first: int) -> None:
        """Remember the draws of a part; parts come in the order of their places."""
        self.bits[first] = np.packbits(mask)

    def of(self, delta: Tensor, first: int) -> Tensor:
        """Return the drawn entries of a block that lies within one of the parts."""
        places = list(self.bits)
        place = places[bisect_right(places, first) - 1]
        start, skipped = divmod(first - place, 8)
        bits = self.bits[place][start:]
        if 8 * len(bits) < skipped + delta.numel():  # unpacking would fill up with zeros
            raise ValueError(f"the {delta.numel()} elements at {first} reach beyond those drawn at {place}")
        mask = np.unpackbits(bits, count=skipped + delta.numel())[skipped:]
        return delta * torch.from_numpy(mask).to(delta.device).view(delta.shape).float()


@dataclass(frozen=True)
class Sparse:
    """One expert's sparsified task vector: what is kept, and the factor that restores its size."""

    kept: Kept
    scale: float = 1.0


def kept_entries(operands: Sequence[Operand], *, measured: Sequence[Sparse], first: int) -> list[Operand]:
    """Return a block of each expert's task vector with its kept entries alone, not scaled.

    Where everything is kept that is the operand itself: a low-rank task vector stays low-rank.

    Args:
        operands: The task vectors' rows.
        measured: What of each is kept.
        first: The place of the block's first element in the tensor.
    """
    return [
        operand if isinstance(one.kept, Everything) else one.kept.of(dense(operand), first)
        for operand, one in zip(operands, measured, strict=True)
    ]


def keep_largest(tensor: TensorBlocks, density: Sequence[float], *, rescale: bool) -> list[Sparse]:
    """Keep each task vector's max(1, ⌊density · n⌋) entries of the largest magnitude; a density of 0 keeps none.

    Args:
        tensor: The task vectors.
        density: The share to keep, by expert, in [0, 1].
        rescale: Restore the L1 norm.
    """
    size = math.prod(tensor.shape)
    least = min(1, size)
    counts = [[max(least, int(share * size)) if share > 0 else 0] if share < 1 else [] for share in density]
    found = _magnitude_cuts(tensor, counts)
    return _scaled(tensor, [ByMagnitude(*cut) if cut else Everything() for cut in found], rescale=rescale)


def drop_outliers(
    tensor: TensorBlocks, density: Sequence[float], gamma: Sequence[float], *, rescale: bool
) -> list[Sparse]:
    """Drop each task vector's ⌊gamma · n⌋ largest entries, then the smallest until ⌊density · n⌋ are left.

    Where both don't fit, fewer of the largest are dropped. A density of 1 drops nothing.

    Args:
        tensor: The task vectors.
        density: The share to keep, by expert, in [0, 1].
        gamma: The share of largest entries to drop, by expert, in [0, 1].
        rescale: Restore the L1 norm.
    """
    size = math.prod(tensor.shape)
    counts = []
    for share, outliers in zip(density, gamma, strict=True):
        target = int(share * size)
        largest = min(int(outliers * size), size - target)
        counts.append([largest + target, largest] if share < 1 else [])
    found = _magnitude_cuts(tensor, counts)
    return _scaled(tensor, [ByMagnitude(*cut) if cut else Everything() for cut in found], rescale=rescale)


def keep_random(tensor: TensorBlocks, density: Sequence[float], *, seed: int, rescale: bool) -> list[Sparse]:
    """Keep each entry with the probability `density`.

    Args:
        tensor: The task vectors.
        density: The probability, by expert, in [0, 1].
        seed: Of the draws; see `draw_bits`.
        rescale: Restore the L1 norm.
    """

    def chosen(delta: Tensor, expert: int, first: int) -> NDArray[np.bool_]:
        bits = draw_bits(seed, tensor.name, expert, first, delta.numel())
        threshold = thresholds_of(density[expert])
        return bits < threshold

    return _drawn(tensor, density, chosen, rescale=rescale)


def keep_by_rank(
    tensor: TensorBlocks, density: Sequence[float], epsilon: Sequence[float], *, seed: int, rescale: bool
) -> list[Sparse]:
    """Keep each entry with a probability that grows with its magnitude's rank in its row.

    From density − epsilon for a row's smallest entry to density + epsilon for its largest, linearly in the rank; of
    equal entries the later has the higher rank. No row is sorted for it: the share of the other entries of the row that
    are below an entry is its rank's place in the range, and so is the probability that one drawn from them is. A draw
    that falls into the range of the probabilities therefore keeps the entry if it is above one other, which the draw
    also chooses.

    Args:
        tensor: The task vectors.
        density: The mean probability, by expert, in [0, 1]; 0 keeps nothing, 1 everything.
        epsilon: Half the range of the probabilities, by expert.
        seed: Of the draws; see `draw_bits`.
        rescale: Restore the L1 norm.

    Raises:
        ConfigError: density ± epsilon is not between 0 and 1.
    """
    for share, spread in zip(density, epsilon, strict=True):
        if 0 < share < 1 and not (share - spread > 0 and share + spread < 1):
            raise ConfigError(
                f"della: density {share} ± epsilon {spread} leaves the range between 0 and 1. Choose a smaller epsilon."
            )

    def chosen(delta: Tensor, expert: int, first: int) -> NDArray[np.bool_]:
        draws = draw_bits(seed, tensor.name, expert, first, delta.numel())
        if density[expert] <= 0:
            return np.zeros(len(draws), dtype=np.bool_)
        if delta.shape[1] == 1:
            return draws < thresholds_of(density[expert])
        return _above_another(delta, draws, density[expert] - epsilon[expert], 2 * epsilon[expert])

    return _drawn(tensor, density, chosen, rescale=rescale)


def _above_another(delta: Tensor, draws: NDArray[np.uint32], least: float, span: float) -> NDArray[np.bool_]:
    """Return which entries are kept: with the probability `least`, and with `span` more if above another of the row.

    Args:
        delta: float32 [rows, width], width > 1.
        draws: One for each entry, in the order of their places; what lies above `least` chooses the other entry.
        least: The probability with which every entry is kept.
        span: The range of the probabilities.
    """
    width = delta.shape[1]
    low, range_ = int(thresholds_of(least)), int(thresholds_of(span))
    kept = draws < np.uint32(low)
    contested = np.flatnonzero((draws - np.uint32(low)) < np.uint32(range_))  # wraps around for draws below `low`
    row = contested // width
    column = contested - row * width
    other = ((draws[contested] - np.uint32(low)) * ((width - 1) / max(range_, 1))).astype(np.int64)  # of width - 1
    other += other >= column
    magnitudes = delta.cpu().contiguous().numpy().view(np.int32).reshape(-1) & 0x7FFFFFFF
    own, others = magnitudes[contested], magnitudes[row * width + other]
    kept[contested] = (others < own) | ((others == own) & (other < column))
    return kept


def _drawn(
    tensor: TensorBlocks,
    density: Sequence[float],
    chosen: Callable[[Tensor, int, int], NDArray[np.bool_]],
    *,
    rescale: bool,
) -> list[Sparse]:
    kept = [ByChance() if share < 1 else Everything() for share in density]
    sums = _Sums(len(kept))
    for block in all_pieces(tensor) if any(isinstance(one, ByChance) for one in kept) else ():
        for expert, one in enumerate(kept):
            if isinstance(one, ByChance):
                delta = dense(block.operands[expert])
                one.draw(chosen(delta, expert, block.first), block.first)
                if rescale:
                    sums.add(expert, delta, one.of(delta, block.first))
    return [Sparse(one, sums.scale(expert)) for expert, one in enumerate(kept)]


def _scaled(tensor: TensorBlocks, kept: Sequence[Kept], *, rescale: bool) -> list[Sparse]:
    sums = _Sums(len(kept))
    if rescale and not all(isinstance(one, Everything) for one in kept):
        for block in all_pieces(tensor):
            for expert, one in enumerate(kept):
                delta = dense(block.operands[expert])
                sums.add(expert, delta, one.of(delta, block.first))
    return [Sparse(one, sums.scale(expert)) for expert, one in enumerate(kept)]


class _Sums:
    """The L1 norms of task vectors before and after sparsification."""

    def __init__(self, experts: int) -> None:
        self._before = [0.0] * experts
        self._after = [0.0] * experts

    def add(self, expert: int, delta: Tensor, kept: Tensor) -> None:
        self._before[expert] += float(delta.abs().sum())
        self._after[expert] += float(kept.abs().sum())

    def scale(self, expert: int) -> float:
        before, after = self._before[expert], self._after[expert]
        return 1.0 if before < _NO_NORM or after < _NO_NORM else before / after


def _magnitude_cuts(tensor: TensorBlocks, counts: Sequence[Sequence[int]]) -> list[list[Cut]]:
    """Return the cuts of each expert's magnitudes; experts with no counts aren't read."""
    wanted = [expert for expert, found in enumerate(counts) if found]
    if not wanted:
        return [[] for _ in counts]

    def constant(numbers: Sequence[int]) -> Callable[[int], Sequence[int]]:
        return lambda _: numbers

    def columns() -> Iterator[tuple[int, Callable[[int], Tensor]]]:
        for block in all_pieces(tensor):
            yield block.first, partial(_magnitudes, [block.operands[expert] for expert in wanted])

    found: Mapping[int, list[Cut]] = dict(
        zip(wanted, cuts(columns, [constant(counts[i]) for i in wanted]), strict=True)
    )
    return [found.get(expert, []) for expert in range(len(counts))]


def _magnitudes(operands: Sequence[Operand], column: int) -> Tensor:
    values = dense(operands[column])
    return values.abs() if isinstance(operands[column], Tensor) else values.abs_()
