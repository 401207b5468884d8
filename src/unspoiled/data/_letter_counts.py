"""Find the few texts that can be similar to one, among many: similar texts hold nearly the same letters.

Inserting or deleting a character changes one letter's count by one. The Indel distance of two texts is therefore at
least the sum of the differences of their letters' counts, so that a filter on the counts loses no similar text,
unlike hashing (MinHash), and leaves about one text in a thousand to be compared in full.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int16]

_BINS = 32  # the Latin letters have a bin each; other characters share them, which can only make texts more alike
_MOST = 255  # of one letter; capping brings counts closer, too, and keeps their sum within 16 bits
_LENGTHS = 16  # texts of this many lengths are in one block
_FIRST_ROOM = 16


class LetterCounts:
    """The letter counts of many texts.

    Args:
        similarity: The least Indel similarity that counts as similar, above 0 and below 1.
    """

    def __init__(self, similarity: float) -> None:
        self._difference = 1 - similarity
        self._blocks: dict[int, _Block] = {}
        self._size = 0

    def add(self, text: str) -> None:
        """Remember a text under the next number: 0, 1, 2 ..."""
        self._blocks.setdefault(len(text) // _LENGTHS, _Block()).add(_count(text), self._size)
        self._size += 1

    def candidates(self, text: str) -> list[int]:
        """Return the numbers of the texts that may be similar to `text`, ascending; every similar one is among them."""
        counts, found = _count(text)[:, None], list[int]()
        # |m − n| ≤ d·(m + n) bounds the length n of what is similar to a text of length m.
        shortest = len(text) * (1 - self._difference) / (1 + self._difference)
        longest = len(text) * (1 + self._difference) / (1 - self._difference)
        for number in range(int(shortest) // _LENGTHS, int(longest + 1) // _LENGTHS + 1):
            if (block := self._blocks.get(number)) is not None:
                both = len(text) + (number + 1) * _LENGTHS
                found += block.within(counts, int(self._difference * both) + 1)
        return sorted(found)


class _Block:
    """The counts of texts of about one length, a column each, in an array that grows by doubling."""

    def __init__(self) -> None:
        self._counts: Counts = np.empty((_BINS, _FIRST_ROOM), np.int16)
        self._numbers: list[int] = []

    def add(self, counts: Counts, number: int) -> None:
        size = len(self._numbers)
        if size == self._counts.shape[1]:
            self._counts = np.concatenate([self._counts, np.empty_like(self._counts)], axis=1)
        self._counts[:, size] = counts
        self._numbers.append(number)

    def within(self, counts: Counts, distance: int) -> list[int]:
        differences = np.abs(self._counts[:, : len(self._numbers)] - counts).sum(axis=0, dtype=np.int16)
        return [self._numbers[column] for column in np.flatnonzero(differences <= distance)]


def _count(text: str) -> Counts:
    code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.minimum(np.bincount(code_points % _BINS, minlength=_BINS), _MOST).astype(np.int16)
