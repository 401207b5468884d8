"""Random numbers that depend on a seed and on where they are used, not on the order of the work.

Each (seed, tensor, expert) has a stream of its own, and each element of the tensor its place in that stream. So a
random merge is the same with any number of threads, any order of the tensors and any cut into blocks.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unspoiled.merging._method import Parameter

SEED = Parameter("seed", default=0, low=0, high=2**53 - 1, scope="merge")
"""The seed of random methods. A recipe's numbers are float64, in which larger whole numbers run into each other."""


def draw_bits(seed: int, tensor: str, expert: int, first: int, count: int) -> NDArray[np.uint32]:
    """Return uniform 32-bit numbers for the elements [first, first + count) of a tensor.

    Args:
        seed: The recipe's seed, ≥ 0.
        tensor: The tensor's name in the output.
        expert: The expert's place among the merged models.
        first: The first element's place in the tensor.
        count: How many elements.

    Source: PCG64 (O'Neill 2014), whose stream NumPy keeps from version to version.
    """
    name = int.from_bytes(hashlib.sha256(tensor.encode()).digest()[:16], "little")
    generator = np.random.PCG64(np.random.SeedSequence([seed, name, expert]))
    generator.advance(first // 2)  # each step of the generator gives two numbers
    skipped = first % 2
    steps = (skipped + count + 1) // 2
    return generator.random_raw(steps).view(np.uint32)[skipped : skipped + count]


def thresholds_of(probability: ArrayLike) -> NDArray[np.uint32]:
    """Return the numbers below which a draw falls with those probabilities, in [0, 2³² − 1]."""
    return np.clip(np.round(np.asarray(probability) * 2**32), 0, 2**32 - 1).astype(np.uint32)
