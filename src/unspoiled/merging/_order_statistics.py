"""Exact order statistics of whole tensors, from histograms that are filled block by block.

The bits of a non-negative float32, read as an integer, are in the order of the values. A histogram of the upper 16
bits finds the bucket of the k-th largest value, one of the lower 16 bits within that bucket the value itself: two
passes and half a megabyte, whatever the tensor's size, and about a fifth of the time that a partition takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

_BUCKETS = 2**15  # of the upper bits: the sign bit is never set
_FINE = 2**16

Columns: TypeAlias = Callable[[], Iterator[tuple[int, Callable[[int], Tensor]]]]
"""Gives (place of the first element, columns) for each block, anew at each call. `columns(i)` makes the block's values
of column i, ≥ 0 in float32 and contiguous, which may be overwritten."""
Counts: TypeAlias = Sequence[Callable[[int], Sequence[int]]]
"""For each column: how many of the largest are wanted, one or several numbers, given how many values aren't zero (or
below 2^-133, about 1e-40: so small a variance is rounding)."""


@dataclass(frozen=True)
class Cut:
    """The k largest of a tensor's values; of equal values at the edge, the earlier ones.

    Attributes:
        threshold: The k-th largest value, infinite for k = 0.
        end: Values equal to the threshold count where they lie before this place, in elements of the tensor; 0 for
            k = 0.
    """

    threshold: float
    end: int

    def keep(self, values: Tensor, first: int) -> Tensor:
        """Return a block of signed values with all but those of the k largest magnitudes set to zero.

        Args:
            values: float32, of any shape.
            first: The place of the block's first element in the tensor.
        """
        if first >= self.end:
            return hardshrink(values, self.threshold)
        if first + values.numel() <= self.end:
            return values if self.threshold == 0.0 else hardshrink(values, _below(self.threshold))
        flat, edge = values.reshape(-1), self.end - first
        parts = [self.keep(flat[:edge], first), self.keep(flat[edge:], self.end)]
        return torch.cat(parts).view(values.shape)


def cuts(columns: Columns, counts: Counts) -> list[list[Cut]]:
    """Return where the k largest values of each column end.

    Args:
        columns: The values; each call is one pass over the tensor, and two or three are made.
        counts: For each column, the numbers k wanted, each in [0, number of values].

    Returns:
        For each column, the cuts for its `counts`, in their order.
    """
    coarse, size, wanted = _coarse_histograms(columns, counts)
    if size == 0:
        return [[Cut(math.inf, 0) for _ in ks] for ks in wanted]
    buckets = [[_position(histogram, k) for k in ks] for histogram, ks in zip(coarse, wanted, strict=True)]
    fine = _fine_histograms(columns, [{bucket for bucket, _ in found} for found in buckets])
    found = [
        [_cut(k, bucket, rest, fine[column], size) for k, (bucket, rest) in zip(ks, buckets[column], strict=True)]
        for column, ks in enumerate(wanted)
    ]
    return _with_ends(columns, found)


@dataclass(frozen=True)
class _Found:
    """A threshold with the number of values equal to it that count: all of them (None), or the first `equal`."""

    threshold: float
    equal: int | None
    size: int


def _coarse_histograms(columns: Columns, counts: Counts) -> tuple[list[Tensor], int, list[Sequence[int]]]:
    """Return the histograms of the upper bits, the number of values in a column, and the counts wanted of each."""
    histograms = [torch.zeros(_BUCKETS, dtype=torch.int64) for _ in counts]
    size = 0
    for _, values in columns():
        for column, histogram in enumerate(histograms):
            bits = _bits(values(column))
            histogram += torch.bincount(bits.bitwise_right_shift_(16), minlength=_BUCKETS).cpu()
        size += len(bits)
    ks = [wanted(size - int(histogram[0])) for wanted, histogram in zip(counts, histograms, strict=True)]
    return histograms, size, ks


def _position(histogram: Tensor, k: int) -> tuple[int, int]:
    """Return the bucket of the k-th largest value, and the k' for which it is the k'-th largest within it."""
    above = histogram.flip(0).cumsum(0)  # above[i]: values in the i + 1 highest buckets
    place = int(torch.searchsorted(above, max(k, 1)))
    bucket = len(histogram) - 1 - min(place, len(histogram) - 1)
    return bucket, k - int(above[place] - histogram[bucket])


def _fine_histograms(columns: Columns, buckets: Sequence[set[int]]) -> list[dict[int, Tensor]]:
    histograms = [{bucket: torch.zeros(_FINE, dtype=torch.int64) for bucket in wanted} for wanted in buckets]
    for _, values in columns():
        for column, wanted in enumerate(histograms):
            bits = _bits(values(column))
            upper = bits >> 16
            for bucket, histogram in wanted.items():
                low = _chosen(bits, upper, bucket) - (bucket << 16)
                histogram += torch.bincount(low, minlength=_FINE).cpu()
    return histograms


def _cut(k: int, bucket: int, rest: int, fine: dict[int, Tensor], size: int) -> _Found:
    if k == 0:
        return _Found(math.inf, None, 0)
    low, equal = _position(fine[bucket], rest)
    threshold = torch.tensor((bucket << 16) + low, dtype=torch.int32).view(torch.float32).item()
    return _Found(threshold, None if equal == int(fine[bucket][low]) else equal, size)


def _with_ends(columns: Columns, found: list[list[_Found]]) -> list[list[Cut]]:
    """Walk through the tensor once more, as far as needed, where only some of several equal values count."""
    ends = [[one.size for one in wanted] for wanted in found]
    left = {
        (i, j): one.equal for i, wanted in enumerate(found) for j, one in enumerate(wanted) if one.equal is not None
    }
    for first, values in columns() if left else ():
        for (i, j), equal in list(left.items()):
            flat = values(i).reshape(-1)
            here = torch.eq(flat, found[i][j].threshold, out=flat)
            count = int(here.sum(dtype=torch.float64))
            if count >= equal:  # the places cost more than the count, and only this block's are needed
                ends[i][j] = first + int(np.flatnonzero(here.cpu().numpy() != 0)[equal - 1]) + 1
                del left[i, j]
            else:
                left[i, j] = equal - count
        if not left:
            break
    return [[Cut(one.threshold, end) for one, end in zip(*pair, strict=True)] for pair in zip(found, ends, strict=True)]


def _bits(values: Tensor) -> Tensor:
    return values.reshape(-1).view(torch.int32)


def _chosen(bits: Tensor, upper: Tensor, bucket: int) -> Tensor:
    """Return the entries of `bits` whose entry of `upper` is `bucket`."""
    if not bits.is_cpu:
        return bits[upper == bucket]
    # NumPy's compress is several times as fast as a boolean mask of torch's.
    return torch.from_numpy(bits.numpy().compress(upper.numpy() == bucket))


def _below(value: float) -> float:
    return torch.nextafter(torch.tensor(value), torch.tensor(0.0)).item()
