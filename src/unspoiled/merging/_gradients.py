"""Gradients of a merge's coefficients: a merged tensor's gradient, taken back through the method."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._method import Block, Coefficients, Method, TensorBlocks

Gradients: TypeAlias = dict[str, float | list[float]]
"""dL/dc by argument of the method: a value per expert for `model` parameters, one for `merge` parameters."""


def require_differentiable(method: Method, wanted: Collection[str]) -> None:
    """Refuse arguments that the method doesn't have, or has no derivative with respect to.

    Raises:
        ConfigError: The message names the method and its differentiable coefficients.
    """
    possible = [parameter.argument for parameter in method.parameters if parameter.differentiable]
    for argument in sorted(wanted):
        if argument not in possible:
            known = argument in {parameter.argument for parameter in method.parameters}
            raise ConfigError(
                f"a gradient of {argument!r} is wanted, {'in which' if known else 'which'} {method.name!r} "
                f"{'is not differentiable' if known else 'does not take'}. Its differentiable coefficients are: "
                f"{', '.join(possible) or 'none; search this method without gradients'}."
            )


def zero_gradients(coefficients: Coefficients, wanted: Collection[str]) -> Gradients:
    """Return zeros for the wanted arguments."""
    return {
        argument: [0.0] * len(value) if isinstance(value := coefficients[argument], list) else 0.0
        for argument in wanted
    }


def coefficient_gradients(
    method: Method, tensor: TensorBlocks, coefficients: Coefficients, gradient: Tensor, wanted: Collection[str]
) -> Gradients:
    """Return dL/dc of the wanted coefficients, given dL/dθ of the merged tensor.

    Args:
        method: The merge method.
        tensor: What it merges.
        coefficients: Its arguments, floats, for this tensor.
        gradient: dL/dθ as a matrix [rows, width], any floating dtype.
        wanted: The arguments to differentiate by; the method must be differentiable in them.
    """
    if 0 in tensor.shape:
        return zero_gradients(coefficients, wanted)
    measured = method.measured(tensor, coefficients)
    pieces = (piece for block in tensor for piece in method.prepared(block, measured, coefficients))
    return gradients_of_prepared(method, tensor.name, measured, pieces, coefficients, gradient, wanted)


def gradients_of_prepared(
    method: Method,
    name: str,
    measured: object,
    pieces: Iterable[Block],
    coefficients: Coefficients,
    gradient: Tensor,
    wanted: Collection[str],
) -> Gradients:
    """Return what `coefficient_gradients` does, for a tensor that is measured and prepared already.

    Args:
        method: The merge method.
        name: The tensor's name.
        measured: What the method measured of it.
        pieces: Its prepared blocks, or pieces of them, in order.
        coefficients: The method's arguments, floats, for this tensor.
        gradient: dL/dθ as a matrix [rows, width], any floating dtype.
        wanted: The arguments to differentiate by; the method must be differentiable in them.
    """
    leaves = {argument: _leaves(coefficients[argument]) for argument in wanted}
    given = dict(coefficients)
    for argument, scalars in leaves.items():
        given[argument] = scalars if isinstance(coefficients[argument], list) else scalars[0]
    every = [scalar for scalars in leaves.values() for scalar in scalars]
    sums = [0.0] * len(every)
    with torch.enable_grad():  # backward passes, and the hooks in them, run without
        decided = method.decided(measured, name, given)
    done = 0
    for piece in pieces:
        with torch.enable_grad():
            rows = method.merged(piece, decided, given)
        own = gradient[done : done + len(rows)]
        done += len(rows)
        if not rows.requires_grad:  # the coefficients have no part in it: nothing of it is kept, say
            continue
        parts = torch.autograd.grad(
            rows,
            every,
            own.to(rows.device, torch.float32),
            retain_graph=method.decide is not None,  # what it decided belongs to the graph of every piece
            allow_unused=True,
        )
        del rows  # before the next piece's graph is made
        sums = [total if part is None else total + float(part) for total, part in zip(sums, parts, strict=True)]
    found = iter(sums)
    return {
        argument: [next(found) for _ in scalars] if isinstance(coefficients[argument], list) else next(found)
        for argument, scalars in leaves.items()
    }


@dataclass(frozen=True)
class CoefficientGradients:
    """Gradients of the coefficients of a merge, summed over backward passes.

    Attributes:
        by_tensor: Output tensor → argument of the method → dL/dc: a value per expert for `model` parameters, one for
            `merge` parameters. Zero where no gradient arrived, and for tensors that are copied.
    """

    by_tensor: Mapping[str, Gradients]

    def add(self, tensor: str, more: Gradients) -> None:
        """Add the gradients of another backward pass for a tensor."""
        own = self.by_tensor[tensor]
        for argument, values in more.items():
            before = own[argument]
            if isinstance(before, list) and isinstance(values, list):
                own[argument] = [one + other for one, other in zip(before, values, strict=True)]
            else:
                assert isinstance(before, float)
                assert isinstance(values, float)
                own[argument] = before + values


def _leaves(value: object) -> list[Tensor]:
    return [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in _numbers(value)]


def _numbers(value: object) -> Iterator[float]:
    for number in value if isinstance(value, list) else [value]:
        assert isinstance(number, int | float)
        yield float(number)
