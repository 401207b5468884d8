"""A part of a sequence that stands for the whole of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread_evenly(items: Sequence[Item], most: int | None) -> list[Item]:
    """Return at most so many of the items, in their order, spread evenly over all of them.

    Args:
        items: Any sequence.
        most: How many, at least 0; None for all.
    """
    count = len(items) if most is None else min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]
