"""The registry of merge methods: a method is one pure function on tensors, registered by a decorator."""

from __future__ import annotations

import difflib
import inspect
import keyword
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._operands import Operand
from unspoiled.merging._pieces import pieces
from unspoiled.merging._statistics import Statistic, StatisticsOf

Value: TypeAlias = float | bool
Coefficients: TypeAlias = Mapping[str, object]


@dataclass(frozen=True)
class Parameter:
    """One coefficient of a method, as it is named in a recipe.

    Args:
        name: The name in mergekit's YAML.
        default: The value where a recipe is silent; None makes it required. True or false makes it a switch, an
            int makes it a whole number.
        low: Smallest allowed value (inclusive).
        high: Largest allowed value (inclusive).
        scope: `model` for one value per expert, `merge` for one value for all of them; either may differ
            between tensors, by gradients and filters.
        differentiable: Whether the merge has a derivative with respect to it that says something: not where it only
            decides (a cut, a draw, the end of a loop). Switches and whole numbers never have one.
    """

    name: str
    default: float | bool | None = None
    low: float = float("-inf")
    high: float = float("inf")
    scope: Literal["model", "merge"] = "model"
    differentiable: bool = True

    def __post_init__(self) -> None:
        """Take the derivative from what isn't a number."""
        object.__setattr__(self, "differentiable", self.differentiable and self.kind == "number")

    @property
    def kind(self) -> Literal["switch", "whole number", "number"]:
        """What values it takes."""
        if isinstance(self.default, bool):
            return "switch"
        return "whole number" if isinstance(self.default, int) else "number"

    @property
    def argument(self) -> str:
        """The name of the function's argument: the parameter's, with `_` behind one that Python keeps (`lambda_`)."""
        return self.name + "_" if keyword.iskeyword(self.name) else self.name


@dataclass(frozen=True)
class Block:
    """Some rows of one tensor, as every model of the merge has them.

    Attributes:
        base: The base's rows in storage dtype, or None where the merge has no base.
        operands: One task vector or tensor per expert, of the same rows.
        first: The place of the block's first element in the tensor, counted in elements.
        statistics: Each expert's statistics for these rows, where the method takes any.
    """

    base: Tensor | None
    operands: Sequence[Operand]
    first: int = 0
    statistics: Sequence[StatisticsOf] = ()


class TensorBlocks(Protocol):
    """One tensor of the merge, given a block of rows at a time; each iteration reads it anew.

    `name` is the tensor's name in the output, `shape` its shape. Blocks are matrices [rows, width] (the leading
    dimensions as one); a tensor of fewer than two dimensions is one row. How a tensor is cut depends on its shape
    alone, so that sums over blocks don't change with threads, memory or engine.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __iter__(self) -> Iterator[Block]: ...


@dataclass(frozen=True)
class BlockSource:
    """`TensorBlocks` from a function that is called for each pass over the tensor."""

    read: Callable[[], Iterable[Block]]
    shape: tuple[int, ...]
    name: str = ""

    def __iter__(self) -> Iterator[Block]:
        """Yield what `read` gives, called anew."""
        return iter(self.read())


class MergeFunction(Protocol):
    """The mathematics of a method, for one block of rows of one tensor.

    It is called with the base's rows (None where the merge has no base), the experts' operands (task vectors or
    tensors, as the method is registered; what `prepare` made of them, where there is one), and those of the following
    that it names: the coefficients by argument name, a sequence with a value per expert for `model` parameters, one
    value for `merge` parameters; `measured`, what the method's `measure` (and `decide`) returned for the whole tensor;
    `first`, the block's place in it (`Block.first`); `statistics` (`Block.statistics`). It returns a new float32 tensor
    and changes nothing it was given.
    """

    def __call__(self, base: Tensor | None, operands: Sequence[Operand], /, **coefficients: object) -> Tensor: ...


MeasureFunction: TypeAlias = Callable[..., object]
"""Called with `TensorBlocks` and the coefficients that it names, before the first block is merged: what a block needs
to know of the whole tensor (norms, thresholds, the random draws). What it returns is kept for as long as the models and
these coefficients stay, and moves to the next merge: it changes nothing that it was given before."""

DecideFunction: TypeAlias = Callable[..., object]
"""Called with what was measured, and those of the coefficients and the tensor's `name` that it names: little work, for
which no tensor is read (the weights that inner products lead to). Blocks then get what it returns as `measured`."""

PrepareFunction: TypeAlias = Callable[..., Sequence[Operand]]
"""Called with a block's operands, and those of `measured` (by `measure`, not by `decide`), `first` and the coefficients
that it names: what to merge in their place (dense task vectors, their kept entries), which is kept as what was measured
is."""


@dataclass(frozen=True)
class Method:
    """A registered merge method.

    Args:
        name: The name in a recipe.
        merge: The function on blocks of a tensor.
        measure: What it needs to know of the whole tensor first, or None.
        decide: What the coefficients make of what was measured, or None.
        prepare: What of the work on a block's operands doesn't depend on most of the coefficients, or None.
        in_pieces: Blocks are prepared and merged in pieces that stay in a core's cache: for formulas of many steps.
        parameters: Every coefficient that the method reads.
        operands: `deltas` if it merges task vectors (of the tensors themselves where there is no base), `tensors`
            if it merges the weights.
        base: Whether a recipe must, may or need not name a `base_model`; with `unused` the function gets None.
        experts: Least and greatest number of models to merge, the base not counted; None for no upper limit.
        whole: A block must be a whole matrix (of the last two dimensions), as for singular values.
        squares: About how many float32 matrices [width, width] it works with beside the rows, for the memory estimate.
        ignored: Parameters of mergekit's that change nothing here, accepted in recipes.
        statistics: What it needs to know of each expert's data: every model then names a `statistics` file.
        paper: Where the formula comes from.
        keeps_common: Given the resolved `merge` parameters, says whether a tensor that is the same in every
            input comes out unchanged, so that it can be copied.
    """

    name: str
    merge: MergeFunction
    parameters: tuple[Parameter, ...]
    operands: Literal["deltas", "tensors"]
    paper: str
    measure: MeasureFunction | None = None
    decide: DecideFunction | None = None
    prepare: PrepareFunction | None = None
    in_pieces: bool = False
    base: Literal["required", "optional", "unused"] = "unused"
    experts: tuple[int, int | None] = (1, None)
    whole: bool = False
    squares: int = 0
    ignored: tuple[str, ...] = ()
    keeps_common: Callable[[dict[str, Value]], bool] = lambda _: True
    statistics: tuple[Statistic, ...] = ()

    def __post_init__(self) -> None:
        """Refuse functions that name what there isn't, or that hide what they read behind `**`."""
        stages: tuple[Any, ...] = (self.measure, self.decide, self.prepare, self.merge)
        for stage in stages:
            if stage is None:
                continue
            known = {parameter.argument for parameter in self.parameters} | _CONTEXT
            if strangers := sorted(_named(stage) - known):
                raise ValueError(f"a function of merge method {self.name!r} takes {strangers}, which it is never given")
        if moving := [one.name for one in self.parameters if one.differentiable and one.argument in self.prepared_by]:
            raise ValueError(
                f"merge method {self.name!r} measures or prepares by {moving}, which no gradient reaches: leave that "
                "to `decide` or the merge, or declare the parameter with differentiable=False"
            )

    @cached_property
    def prepared_by(self) -> frozenset[str]:
        """The coefficients, by argument name, on which what is measured and prepared depends; no others do."""
        stages = [stage for stage in (self.measure, self.prepare) if stage is not None]
        return frozenset().union(*map(_named, stages)) - _CONTEXT

    def merge_blocks(self, tensor: TensorBlocks, coefficients: Coefficients) -> Iterator[tuple[int, Tensor]]:
        """Yield (place of the first element, merged float32 rows) for each block of a tensor, in order."""
        if 0 in tensor.shape:  # nothing to measure; it may have no block at all
            yield from ((block.first, torch.empty(tuple(block.operands[0].shape))) for block in tensor)
            return
        measured = self.measured(tensor, coefficients)
        decided = self.decided(measured, tensor.name, coefficients)
        for block in tensor:
            found = [
                self.merged(piece, decided, coefficients) for piece in self.prepared(block, measured, coefficients)
            ]
            yield block.first, found[0] if len(found) == 1 else torch.cat(found)

    def measured(self, tensor: TensorBlocks, coefficients: Coefficients) -> object:
        """Return what `measure` finds of a tensor; it depends on the coefficients `prepared_by` alone."""
        return None if self.measure is None else self.measure(tensor, **_chosen(self.measure, coefficients))

    def decided(self, measured: object, name: str, coefficients: Coefficients) -> object:
        """Return what the coefficients make of what was measured of the tensor of that name."""
        if self.decide is None:
            return measured
        return self.decide(measured, **_chosen(self.decide, {**coefficients, "name": name}))

    def prepared(self, block: Block, measured: object, coefficients: Coefficients) -> Iterator[Block]:
        """Yield a block, or its pieces, prepared: they depend on the coefficients `prepared_by` alone."""
        for piece in pieces(block) if self.in_pieces else (block,):
            if self.prepare is None:
                yield piece
                continue
            context = {**coefficients, "measured": measured, "first": piece.first}
            yield replace(piece, operands=self.prepare(piece.operands, **_chosen(self.prepare, context)))

    def merged(self, piece: Block, decided: object, coefficients: Coefficients) -> Tensor:
        """Return the merged rows of a prepared piece, float32."""
        context = {**coefficients, "measured": decided, "first": piece.first, "statistics": piece.statistics}
        return self.merge(piece.base, piece.operands, **_chosen(self.merge, context))

    def __call__(
        self,
        base: Tensor | None,
        operands: Sequence[Operand],
        /,
        *,
        name: str = "",
        statistics: Sequence[StatisticsOf] = (),
        **coefficients: object,
    ) -> Tensor:
        """Merge one whole tensor that is in memory.

        Args:
            base: The base's tensor, or None.
            operands: A task vector or tensor per expert, all matrices of one shape [rows, width].
            name: The tensor's name, from which random methods derive their draws.
            statistics: Each expert's statistics, where the method takes any.
            **coefficients: Every parameter of the method, by name.

        Returns:
            The merged tensor, float32.
        """
        block = Block(base, operands, 0, statistics)
        whole = BlockSource(lambda: [block], tuple(operands[0].shape), name)
        (merged,) = [rows for _, rows in self.merge_blocks(whole, coefficients)]
        return merged


_CONTEXT = frozenset({"measured", "first", "statistics", "name"})
"""What functions of a method may name beside the coefficients."""


@cache
def _named(function: Any) -> frozenset[str]:
    """Return the keyword-only arguments of a function.

    Raises:
        ValueError: It takes `**` too, so that it doesn't say what it depends on.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(f"{function!r} is a merge method's and takes `**`: name the arguments that it reads")
    return frozenset(parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY)


def _chosen(function: object, given: Mapping[str, object]) -> dict[str, object]:
    """Return those of the given arguments that the function names."""
    named = _named(function)
    return {name: value for name, value in given.items() if name in named}


_METHODS: dict[str, Method] = {}
F = TypeVar("F", bound=Callable[..., Tensor])


def method(
    name: str,
    *,
    parameters: Sequence[Parameter],
    operands: Literal["deltas", "tensors"],
    paper: str,
    measure: MeasureFunction | None = None,
    decide: DecideFunction | None = None,
    prepare: PrepareFunction | None = None,
    in_pieces: bool = False,
    base: Literal["required", "optional", "unused"] = "unused",
    experts: tuple[int, int | None] = (1, None),
    whole: bool = False,
    squares: int = 0,
    ignored: Sequence[str] = (),
    keeps_common: Callable[[dict[str, Value]], bool] = lambda _: True,
    statistics: Sequence[Statistic] = (),
) -> Callable[[F], F]:
    """Register the decorated function as the merge method `name`; see `Method` for the arguments."""

    def register(function: F) -> F:
        if name in _METHODS:
            raise ValueError(f"two merge methods are named {name!r}: rename one of them")
        _METHODS[name] = Method(
            name,
            function,
            tuple(parameters),
            operands,
            paper,
            measure=measure,
            decide=decide,
            prepare=prepare,
            in_pieces=in_pieces,
            base=base,
            experts=experts,
            whole=whole,
            squares=squares,
            ignored=tuple(ignored),
            keeps_common=keeps_common,
            statistics=tuple(statistics),
        )
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


def all_methods() -> tuple[Method, ...]:
    """Return every registered method, by name."""
    return tuple(_METHODS[name] for name in sorted(_METHODS))
