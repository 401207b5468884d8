"""The registry of merge methods: a method is one pure function on tensors, registered by a decorator."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from torch import Tensor

from unspoiled.errors import ConfigError


@dataclass(frozen=True)
class Parameter:
    """One coefficient of a method, as it is named in a recipe.

    Args:
        name: The name in mergekit's YAML.
        default: The value where a recipe is silent; None makes it required, true or false makes it a switch.
        low: Smallest allowed value (inclusive).
        high: Largest allowed value (inclusive).
        scope: `model` for one value per expert, `merge` for one value for all of them; either may differ
            between tensors, by gradients and filters.
    """

    name: str
    default: float | bool | None = None
    low: float = float("-inf")
    high: float = float("inf")
    scope: Literal["model", "merge"] = "model"

    @property
    def is_switch(self) -> bool:
        """Whether the value is true or false."""
        return isinstance(self.default, bool)


class MergeFunction(Protocol):
    """The mathematics of a method, for one tensor.

    It is called with the base's tensor (None where the method takes no base), the experts' operands
    (task vectors or tensors, as the method is registered), and the coefficients by name: a sequence with
    a value per expert for `model` parameters, one value for `merge` parameters. It returns a new float32
    tensor and changes nothing it was given.
    """

    def __call__(self, base: Tensor | None, operands: Sequence[object], /, **coefficients: object) -> Tensor: ...


@dataclass(frozen=True)
class Method:
    """A registered merge method.

    Args:
        name: The name in a recipe.
        merge: The function on tensors.
        parameters: Every coefficient that the method reads.
        operands: `deltas` if it merges task vectors onto a base, `tensors` if it merges the weights themselves.
        paper: Where the formula comes from.
        keeps_common: Given the resolved `merge` parameters, says whether a tensor that is the same in every
            input comes out unchanged, so that it can be copied.
    """

    name: str
    merge: MergeFunction
    parameters: tuple[Parameter, ...]
    operands: Literal["deltas", "tensors"]
    paper: str
    keeps_common: Callable[[dict[str, float | bool]], bool]

    @property
    def needs_base(self) -> bool:
        """Whether a recipe must name a `base_model`."""
        return self.operands == "deltas"


_METHODS: dict[str, Method] = {}
F = TypeVar("F", bound=Callable[..., Tensor])


def method(
    name: str,
    *,
    parameters: Sequence[Parameter],
    operands: Literal["deltas", "tensors"],
    paper: str,
    keeps_common: Callable[[dict[str, float | bool]], bool] = lambda _: True,
) -> Callable[[F], F]:
    """Register the decorated function as the merge method `name`; see `Method` for the arguments."""

    def register(function: F) -> F:
        if name in _METHODS:
            raise ValueError(f"two merge methods are named {name!r}: rename one of them")
        _METHODS[name] = Method(name, function, tuple(parameters), operands, paper, keeps_common)
        return function

    return register


def get_method(name: str) -> Method:
    """Return the method registered as `name`.

    Raises:
        ConfigError: There is none; the message lists those there are.
    """
    if name not in _METHODS:
        close = difflib.get_close_matches(name, _METHODS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"unknown merge_method {name!r}.{hint} This version merges by: {', '.join(sorted(_METHODS))}."
        )
    return _METHODS[name]


def methods() -> tuple[Method, ...]:
    """Return every registered method, by name."""
    return tuple(_METHODS[name] for name in sorted(_METHODS))
