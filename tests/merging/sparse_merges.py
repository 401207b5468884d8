"""Tensors for the tests of sparsified merges: in memory, cut into blocks as wanted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unspoiled.merging import DenseDelta, get_method
from unspoiled.merging._method import Block


@dataclass(frozen=True)
class CutTensor:
    """A base and its experts, float [rows, width], in blocks of `step` rows."""

    base: Tensor
    experts: Sequence[Tensor]
    step: int
    name: str = "weight"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.base.shape)

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, len(self.base), self.step):
            rows = slice(start, start + self.step)
            deltas = [DenseDelta(expert[rows], self.base[rows]) for expert in self.experts]
            yield Block(self.base[rows], deltas, start * self.base.shape[1])


def deltas_only(*deltas: Tensor, step: int | None = None, name: str = "weight") -> CutTensor:
    """Return task vectors on a base of zeros."""
    return CutTensor(torch.zeros_like(deltas[0]), deltas, step or max(1, len(deltas[0])), name)


def merged(method: str, tensor: CutTensor, **coefficients: Any) -> Tensor:
    return torch.cat([rows for _, rows in get_method(method).merge_blocks(tensor, coefficients)])


def normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def experts_on_a_base(rows: int = 12, width: int = 40, count: int = 3, step: int | None = None) -> CutTensor:
    """Return a base and experts in bfloat16, as they are stored: many task vector entries are equal in size."""
    base = normal(rows, width, seed=0, scale=0.02).bfloat16()
    experts = [(base.float() + normal(rows, width, seed=i + 1, scale=0.002)).bfloat16() for i in range(count)]
    return CutTensor(base, experts, step or rows)


def by_the_book(
    base: Tensor, vectors: Sequence[Tensor], weight: Sequence[float], *, normalize: bool, lambda_: float = 1.0
) -> Tensor:
    """Return the merge of sparsified task vectors whose signs agree, entry by entry in Python's floats."""
    result = base.double().reshape(-1).clone()
    columns = zip(*(vector.double().reshape(-1).tolist() for vector in vectors), strict=True)
    for place, column in enumerate(columns):
        weighted = [w * value for w, value in zip(weight, column, strict=True)]
        elected = 1 if sum(weighted) >= 0 else -1
        agreeing = [i for i, value in enumerate(weighted) if value * elected > 0]
        total = sum(weighted[i] for i in agreeing)
        by = sum(weight[i] for i in agreeing) if normalize else 1.0
        result[place] += lambda_ * total / (by or 1.0)
    return result.reshape(base.shape)


def largest(vector: Tensor, count: int) -> Tensor:
    """Return the vector with all but its `count` largest magnitudes set to zero, found by sorting."""
    flat = vector.double().reshape(-1)
    order = sorted(range(len(flat)), key=lambda place: (-abs(flat[place].item()), place))[:count]
    result = torch.zeros_like(flat)
    result[order] = flat[order]
    return result.reshape(vector.shape)
