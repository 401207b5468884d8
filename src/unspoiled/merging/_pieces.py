"""Blocks cut into pieces whose intermediate results stay in a core's own cache.

A block is as large as reading it wants. Formulas of ten or twenty steps are faster on less: their temporaries are then
neither fetched from afar nor given back to the system and cleared again at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.merging._method import Block, TensorBlocks
from unspoiled.merging._operands import AdaptedTensor, DenseDelta, Operand

_PIECE = 2**18  # elements: a megabyte in float32


@dataclass(frozen=True)
class InPieces:
    """A tensor whose blocks come in pieces: `TensorBlocks` again."""

    tensor: TensorBlocks

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.tensor.shape

    def __iter__(self) -> Iterator[Block]:
        """Yield the pieces of each block."""
        for block in self.tensor:
            yield from pieces(block)


def merge_in_pieces(
    base: Tensor, operands: Sequence[Operand], first: int, merge: Callable[[Tensor, Sequence[Operand], int], Tensor]
) -> Tensor:
    """Return a merged block, float32 [rows, width], made piece by piece.

    Args:
        base: The base's rows.
        operands: The experts' operands of the same rows.
        first: The place of the block's first element in the tensor.
        merge: Merges a piece, given its base, its operands and its place.
    """
    parts = list(pieces(Block(base, operands, first)))
    if len(parts) == 1:
        return merge(base, operands, first)
    merged = torch.empty(base.shape, dtype=torch.float32, device=base.device)
    recorded: list[Tensor] = []
    done = 0
    for piece in parts:
        assert piece.base is not None
        rows = merge(piece.base, piece.operands, piece.first)
        if rows.requires_grad:  # written into one tensor, every piece's gradient would take a copy of the block's
            recorded.append(rows)
        else:
            merged[done : done + len(rows)] = rows
        done += len(rows)
    return torch.cat(recorded) if recorded else merged


def pieces(block: Block) -> Iterator[Block]:
    """Yield whole rows of a block, few enough for the cache; all of them where the work isn't the CPU's."""
    base, operands = block.base, block.operands
    rows, width = operands[0].shape
    step = max(1, _PIECE // max(1, width))
    if rows <= step or (base is not None and not base.is_cpu):
        yield block
        return
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        part = None if base is None else base[start:stop]
        yield Block(part, [_rows(one, start, stop) for one in operands], block.first + start * width)


def _rows(operand: Operand, start: int, stop: int) -> Operand:
    match operand:
        case LowRankDelta():
            return LowRankDelta(operand.b[start:stop], operand.a, operand.scale)
        case DenseDelta():
            return DenseDelta(operand.tensor[start:stop], operand.base[start:stop])
        case AdaptedTensor():
            raise TypeError("a sparsification takes task vectors, and this operand is a model's weight")
        case _:
            return operand[start:stop]
