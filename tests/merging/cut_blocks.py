"""A tensor in memory that is merged some rows at a time, for the tests of methods."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unspoiled.merging import Block, DenseDelta, get_method


@dataclass(frozen=True)
class CutTensor:
    """The task vectors of `tensors` onto `base`, in blocks of `rows` rows."""

    base: Tensor
    tensors: Sequence[Tensor]
    rows: int
    name: str = "layers.0.weight"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.base.shape)

    def __iter__(self) -> Iterator[Block]:
        pieces = [tensor.split(self.rows) for tensor in self.tensors]
        for i, base in enumerate(self.base.split(self.rows)):
            yield Block(base, [DenseDelta(piece[i], base) for piece in pieces], i * self.rows * self.base.shape[1])


def merged_by_rows(name: str, base: Tensor, tensors: Sequence[Tensor], rows: int, **coefficients: object) -> Tensor:
    """Merge `rows` rows at a time by the method `name`."""
    blocks = get_method(name).merge_blocks(CutTensor(base, tensors, rows), coefficients)
    return torch.cat([merged for _, merged in blocks])


def merged_whole(name: str, base: Tensor, tensors: Sequence[Tensor], **coefficients: object) -> Tensor:
    """Merge all rows at once by the method `name`."""
    deltas = [DenseDelta(tensor, base) for tensor in tensors]
    return get_method(name)(base, deltas, name="layers.0.weight", **coefficients)


def random_models(experts: int, rows: int, width: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Return a base and experts near it, float32 [rows, width]."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, width, generator=generator)
    return base, [base + 0.1 * torch.randn(rows, width, generator=generator) for _ in range(experts)]
