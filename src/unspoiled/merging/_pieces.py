"""Blocks cut into pieces whose intermediate results stay in a core's own cache.

A block is as large as reading it wants. Formulas of ten or twenty steps are faster on less: their temporaries are then
neither fetched from afar nor given back to the system and cleared again at each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from unspoiled.merging._operands import device_of, rows_of

if TYPE_CHECKING:
    from unspoiled.merging._method import Block

_PIECE = 2**18  # elements: a megabyte in float32


def pieces(block: Block) -> Iterator[Block]:
    """Yield whole rows of a block, few enough for the cache; all of them where the work isn't the CPU's."""
    base, operands = block.base, block.operands
    rows, width = operands[0].shape
    step = max(1, _PIECE // max(1, width))
    if rows <= step or device_of(operands[0]).type != "cpu":
        yield block
        return
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        part = None if base is None else base[start:stop]
        cut = [rows_of(one, start, stop) for one in operands]
        yield replace(block, base=part, operands=cut, first=block.first + start * width)


def all_pieces(tensor: Iterable[Block]) -> Iterator[Block]:
    """Yield the pieces of all blocks of a tensor."""
    for block in tensor:
        yield from pieces(block)
