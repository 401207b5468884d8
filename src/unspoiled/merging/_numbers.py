"""Coefficients as a method gets them: floats, or under autograd scalars that record what is made of them.

A merge calls a method with floats. Where gradients of its coefficients are wanted it calls the same function with
0-dim tensors in their place. Most formulas are the same for both; what isn't has its one place here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Number: TypeAlias = float | Tensor
"""A coefficient that gradients may be asked of: a float, or a 0-dim tensor on the CPU that requires grad."""


def value_of(number: Number) -> float:
    """Return the value, for what only decides: a comparison, a message."""
    return float(number.detach()) if isinstance(number, Tensor) else float(number)


def is_left_out(weight: Number) -> bool:
    """Tell whether a term of this weight needs no adding; one of zero that a gradient is wanted of does."""
    return not isinstance(weight, Tensor) and weight == 0.0


def vector(numbers: Sequence[Number]) -> Tensor:
    """Return numbers as a float64 tensor [n] on the CPU."""
    if any(isinstance(number, Tensor) for number in numbers):
        return torch.stack([torch.as_tensor(number, dtype=torch.float64) for number in numbers])
    return torch.tensor(numbers, dtype=torch.float64)


def numbers_of(values: Tensor) -> list[Number]:
    """Return the entries of a tensor [n]: floats, or scalars where it requires grad."""
    return list(values.unbind()) if values.requires_grad else values.tolist()


def sine(number: Number) -> Number:
    """Return sin x."""
    return torch.sin(number) if isinstance(number, Tensor) else math.sin(number)


def cosine(number: Number) -> Number:
    """Return cos x."""
    return torch.cos(number) if isinstance(number, Tensor) else math.cos(number)


def length(coefficients: Tensor, products: Tensor) -> Number:
    """Return ‖Σ cᵢ xᵢ‖ for inner products ⟨xᵢ, xⱼ⟩; where it is zero, so is its gradient.

    Args:
        coefficients: cᵢ, float64 [n].
        products: float64 [n, n].
    """
    square = coefficients @ products @ coefficients
    if not square.requires_grad:
        return math.sqrt(max(0.0, float(square)))
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)
