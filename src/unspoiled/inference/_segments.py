"""Token sequences as a tree of segments: what several sequences begin with is one segment, computed once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Tokens = tuple[int, ...]

_WORTH_SHARING = 4  # tokens; a shorter segment costs more in attention's bookkeeping than it saves


@dataclass(frozen=True)
class Segment:
    """Tokens that follow the parent's in every sequence that passes through here.

    Args:
        tokens: At least one.
        start: The position of the first token in its sequences.
        parent: The index of the segment before it; None at the beginning of sequences.
    """

    tokens: Tokens
    start: int
    parent: int | None


def segment_tree(sequences: Sequence[Tokens]) -> tuple[list[Segment], list[int]]:
    """Cut sorted sequences into segments, so that those that begin alike share their beginning.

    Args:
        sequences: In ascending order, none empty; equal ones and ones that begin others are welcome.

    Returns:
        The segments, parents before children, and the index of each sequence's last segment.
    """
    unique = list(dict.fromkeys(sequences))
    shared = [common_length(one, other) for one, other in itertools.pairwise(unique)]
    segments: list[Segment] = []
    ends: dict[Tokens, int] = {}
    waiting: list[tuple[int, int, int, int | None]] = [(0, len(unique), 0, None)]
    while waiting:  # the sequences first..last have all their tokens before `start` in `parent` and its ancestors
        first, last, start, parent = waiting.pop()
        for low, high in _runs(shared, first, last, start + _WORTH_SHARING):
            stop = min(shared[low : high - 1], default=len(unique[low]))
            if stop == start:  # a sequence of which nothing is left ends with the parent
                assert parent is not None
                ends[unique[low]] = parent
                continue
            segments.append(Segment(unique[low][start:stop], start, parent))
            if high - low == 1:
                ends[unique[low]] = len(segments) - 1
            else:
                waiting.append((low, high, stop, len(segments) - 1))
    return segments, [ends[sequence] for sequence in sequences]


def _runs(shared: Sequence[int], first: int, last: int, least: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of neighbours that have their first `least` tokens in common, or of one sequence each."""
    low = first
    for i in range(first, last):
        if i + 1 == last or shared[i] < least:
            yield low, i + 1
            low = i + 1


def tree_size(sequences: Sequence[Tokens]) -> int:
    """Return how many tokens the tree of sorted sequences has."""
    return sum(len(segment.tokens) for segment in segment_tree(sequences)[0])


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with alike."""
    length = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        length += 1
    return length


def batches(sequences: Sequence[Tokens], most: int) -> list[list[int]]:
    """Divide sequences into batches of about `most` tokens, those that begin alike side by side.

    Args:
        sequences: In any order.
        most: Most tokens of a batch, what its sequences share counted once; one sequence may have more.

    Returns:
        Batches of indices, each in ascending order of its sequences. They depend on the sequences, not on their order.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    found: list[list[int]] = []
    held = 0
    for place, index in enumerate(order):
        size = len(sequences[index])
        shared = common_length(sequences[order[place - 1]], sequences[index]) if place else 0
        new = size - (shared if shared >= _WORTH_SHARING else 0)
        if not found or held + new > most:
            found.append([])
            held, new = 0, size
        found[-1].append(index)
        held += new
    return found
