"""What a method merges: tensors and task vectors, dense or low-rank, accumulated in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

import torch
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.errors import ConfigError
from unspoiled.merging._numbers import Number, is_left_out, value_of

_CANCELLED = 1e-9  # a sum this small beside its terms is rounding: 0.1 + 0.2 - 0.3 is 6e-17, not 0


@dataclass(frozen=True)
class DenseDelta:
    """The task vector of a full checkpoint for one tensor: τ = tensor − base.

    `tensor` and `base` have the same shape, any floating dtype; the difference is taken in float32.
    """

    tensor: Tensor
    base: Tensor

    @property
    def shape(self) -> torch.Size:
        """The tensors' shape."""
        return self.tensor.shape

    def dense(self) -> Tensor:
        """Return τ in float32, of the tensors' shape."""
        return self.tensor.to(torch.float32, copy=True).sub_(self.base)


@dataclass(frozen=True)
class AdaptedTensor:
    """The weight of a LoRA expert for one tensor, θ = base + τ, with τ kept low-rank."""

    base: Tensor
    delta: LowRankDelta

    @property
    def shape(self) -> torch.Size:
        """The base's shape."""
        return self.base.shape

    def dense(self) -> Tensor:
        """Return θ in float32, of the base's shape."""
        return sum_scaled(self.base, [self.delta], [1.0])


Delta: TypeAlias = DenseDelta | LowRankDelta
Weights: TypeAlias = Tensor | AdaptedTensor
Operand: TypeAlias = Delta | Weights


def dense(operand: Operand) -> Tensor:
    """Return an operand as a float32 tensor, which may be the operand itself: not to be changed in place."""
    return operand.float() if isinstance(operand, Tensor) else operand.dense()


def add_scaled(total: Tensor, operand: Operand, weight: Number) -> Tensor:
    """Add `weight · operand` to `total`, which is float32, and return it.

    A low-rank operand is added by one product of its factors, without a dense copy of it; the weight's gradient then
    goes through them as well.
    """
    match operand:
        case LowRankDelta():
            return total.addmm_(operand.b.float() * (operand.scale * weight), operand.a.float())
        case AdaptedTensor():
            return add_scaled(add_scaled(total, operand.base, weight), operand.delta, weight)
        case _ if isinstance(weight, Tensor):
            return total.add_(dense(operand) * weight)
        case _:
            return total.add_(dense(operand), alpha=weight)


def add_scaled_product(total: Tensor, one: Tensor, other: Tensor, weight: Number) -> Tensor:
    """Add `weight · one · other`, entry by entry, to `total`, and return it; all are float32 and of one shape."""
    if isinstance(weight, Tensor):
        return total.add_((one * other) * weight)
    return total.addcmul_(one, other, value=weight)


def sum_scaled(start: Tensor | None, operands: Sequence[Operand], weights: Sequence[Number]) -> Tensor:
    """Return `start + Σ weightᵢ · operandᵢ` in float32 as a new tensor; None starts from zero."""
    if start is None:
        total = torch.zeros(tuple(operands[0].shape), dtype=torch.float32, device=device_of(operands[0]))
    else:
        total = start.to(torch.float32, copy=True)
    for operand, weight in zip(operands, weights, strict=True):
        if not is_left_out(weight):
            total = add_scaled(total, operand, weight)
    return total


def total_weight(weights: Sequence[Number], method: str) -> Number:
    """Return Σ weightᵢ, by which `normalize` divides.

    Raises:
        ConfigError: The weights sum to zero, up to rounding.
    """
    values = [value_of(weight) for weight in weights]
    total = math.fsum(values)
    if abs(total) <= _CANCELLED * math.fsum(map(abs, values)):
        raise ConfigError(
            f"{method} with normalize: the weights {values} sum to 0. Change them, or set normalize: false."
        )
    return sum(weights) if any(isinstance(weight, Tensor) for weight in weights) else total


def device_of(operand: Operand) -> torch.device:
    """Return where an operand's tensors are."""
    match operand:
        case LowRankDelta():
            return operand.a.device
        case DenseDelta():
            return operand.tensor.device
        case AdaptedTensor():
            return operand.base.device
        case _:
            return operand.device


@overload
def rows_of(operand: LowRankDelta, start: int, stop: int) -> LowRankDelta: ...
@overload
def rows_of(operand: Operand, start: int, stop: int) -> Operand: ...
def rows_of(operand: Operand, start: int, stop: int) -> Operand:
    """Return rows [start, stop) of an operand, views of its tensors; a low-rank one stays low-rank."""
    match operand:
        case LowRankDelta():
            return LowRankDelta(operand.b[start:stop], operand.a, operand.scale)
        case DenseDelta():
            return DenseDelta(operand.tensor[start:stop], operand.base[start:stop])
        case AdaptedTensor():
            return AdaptedTensor(operand.base[start:stop], rows_of(operand.delta, start, stop))
        case _:
            return operand[start:stop]


def all_dense(operands: Sequence[Operand]) -> list[Operand]:
    """Return operands as float32 tensors: the preparation of methods that need every entry."""
    return [dense(operand) for operand in operands]
