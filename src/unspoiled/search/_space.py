"""The genome of a search: which coefficients move, and the recipe that a genome stands for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from unspoiled.config import (
    Dtype,
    FilteredValue,
    ModelEntry,
    ParameterValue,
    Recipe,
    interpolation,
    layer_stack,
)
from unspoiled.errors import ConfigError
from unspoiled.merging import Parameter, get_method

Granularity = Literal["model", "group", "smooth", "layer", "module", "tensor"]
TensorGradients = Mapping[str, Mapping[str, float | Sequence[float]]]
"""By tensor and argument of the method: ∂loss/∂coefficient, one per expert for a parameter of models."""


@dataclass(frozen=True)
class Range:
    """Where a coefficient may go, from `low` to `high`, and where it starts."""

    low: float
    high: float
    start: float


@dataclass(frozen=True)
class SearchSpace:
    """The coefficients of a merge as a flat vector: by parameter, expert, module kind, and from first to last layer.

    Args:
        method: The merge method.
        base: The `base_model`, as recipes name it; not used by a method that takes none.
        experts: The experts' model strings by name, in order.
        layers: Number of layers of the architecture, at least 1.
        ranges: The parameters that move, by name.
        fixed: The method's other parameters, where they shall differ from their defaults.
        granularity: One value per expert (`model`); per expert and group of layers (`group`) or layer (`layer`); per
            expert, layer and module kind (`module`) or tensor (`tensor`); or per expert and knot, in between
            interpolated linearly over depth (`smooth`). Tensors of no layer (embeddings, final norm, head) take the
            first layer's.
        groups: Number of layer groups for `group`, of knots for `smooth`; from 1 to `layers`.
        kinds: For `module` and `tensor`: texts by kind, one of which is part of the name of every tensor of that kind
            (`module_kinds`, `tensor_kinds`). Kinds outside of layers (`embeddings`) have one value per expert.
        dtype: The recipes' output dtype, in mergekit's words.

    Raises:
        ConfigError: The method has no such parameter, a range is empty, or `groups` is out of range.
    """

    method: str
    base: str
    experts: Mapping[str, str]
    layers: int
    ranges: Mapping[str, Range]
    fixed: Mapping[str, float | bool] = field(default_factory=dict)
    granularity: Granularity = "model"
    groups: int = 1
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dtype: Dtype = "bfloat16"

    def __post_init__(self) -> None:
        if self.granularity in {"group", "smooth"} and not 1 <= self.groups <= self.layers:
            raise ConfigError(
                f"search.layer_groups is {self.groups}: choose 1 to {self.layers}, the model's number of layers."
            )
        if not self.ranges:
            raise ConfigError(f"no parameter of {self.method!r} moves: name at least one under search.parameters.")
        for name in [*self.ranges, *self.fixed]:
            if name not in self._parameters:
                raise ConfigError(
                    f"{self.method!r} has no parameter {name!r} to search: choose from {', '.join(self._parameters)}."
                )
        for name, wanted in self.ranges.items():
            parameter = self._parameters[name]
            if parameter.kind == "switch" or not parameter.low <= wanted.low < wanted.high <= parameter.high:
                allowed = "a switch" if parameter.kind == "switch" else f"in [{parameter.low:g}, {parameter.high:g}]"
                raise ConfigError(
                    f"search.parameters.{name} is [{wanted.low:g}, {wanted.high:g}], which is no range for "
                    f"{self.method!r}: {name} is {allowed}."
                )

    @cached_property
    def size(self) -> int:
        """The number of coefficients."""
        return sum(part.size for part in self._parts)

    @cached_property
    def labels(self) -> list[str]:
        """A name per coefficient: `EXPERT`, `/KIND`, `:PARAMETER` if it isn't the weight, `/FIRST-LAST` layer."""
        return [label for part in self._parts for label in part.labels]

    @cached_property
    def low(self) -> tuple[float, ...]:
        """The smallest value of each coefficient."""
        return tuple(self.ranges[part.parameter].low for part in self._parts for _ in range(part.size))

    @cached_property
    def high(self) -> tuple[float, ...]:
        """The largest value of each coefficient."""
        return tuple(self.ranges[part.parameter].high for part in self._parts for _ in range(part.size))

    @cached_property
    def start(self) -> tuple[float, ...]:
        """The genome that searches start from: every coefficient at its range's `start`."""
        return tuple(self.ranges[part.parameter].start for part in self._parts for _ in range(part.size))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the method's arguments that move."""
        return tuple(self._parameters[name].argument for name in self.ranges)

    def constant(self, weights: Sequence[float]) -> tuple[float, ...]:
        """Return the genome with one weight per expert for all layers, and every other parameter at its start.

        A parameter of the whole merge isn't a weight; where there is no `weight`, this is `start`.
        """
        by_expert = dict(zip(self.experts, weights, strict=True))
        return tuple(
            by_expert[part.expert]
            if part.parameter == "weight" and part.expert is not None
            else self.ranges[part.parameter].start
            for part in self._parts
            for _ in range(part.size)
        )

    def same(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Return the genome with one value per parameter for all experts and layers; others are at their start."""
        return tuple(
            values.get(part.parameter, self.ranges[part.parameter].start)
            for part in self._parts
            for _ in range(part.size)
        )

    def named(self, genome: Sequence[float]) -> dict[str, float]:
        """Return a genome's values by label."""
        return dict(zip(self.labels, map(float, genome), strict=True))

    def recipe(self, genome: Sequence[float]) -> Recipe:
        """Return the recipe that a genome (of length `size`) stands for."""
        if len(genome) != self.size:
            raise ValueError(f"the genome has {len(genome)} values, the space {self.size}")
        genome = list(map(float, genome))
        return Recipe(
            merge_method=self.method,
            base_model=self.base if get_method(self.method).base != "unused" else None,
            models=tuple(
                ModelEntry(model=model, parameters=self._values(expert, genome))
                for expert, model in self.experts.items()
            ),
            parameters={**self.fixed, **self._values(None, genome)},
            dtype=self.dtype,
        )

    def gradient(self, by_tensor: TensorGradients, depths: Mapping[str, int]) -> tuple[float, ...]:
        """Return ∂loss/∂genome, of length `size`, by the chain rule through the recipe.

        Args:
            by_tensor: The gradients with respect to each output tensor's own coefficients.
            depths: The number of layers of every stack of the model.
        """
        total = [0.0] * self.size
        for tensor, arguments in by_tensor.items():
            stack, layer = layer_stack(tensor) or (None, None)
            layers = 0 if stack is None else depths[stack]
            for (name, expert), parts in self._groups.items():
                found = arguments[self._parameters[name].argument]
                value = found if isinstance(found, float | int) else found[self._order[expert]]
                part = next((part for part in parts if part.applies_to(tensor)), None)
                if part is None:
                    continue
                for entry, share in interpolation(len(part.entries), layer, layers):
                    total[part.offset + part.entries[entry]] += share * value
        return tuple(total)

    @property
    def blocks(self) -> list[range]:
        """The runs of layers that share a value, first to last; all layers as one where values are interpolated."""
        count = {"model": 1, "group": self.groups, "smooth": 1}.get(self.granularity, self.layers)
        edges = [i * self.layers // count for i in range(count + 1)]
        return [range(a, b) for a, b in itertools.pairwise(edges)]

    @property
    def _parameters(self) -> dict[str, Parameter]:
        return {parameter.name: parameter for parameter in get_method(self.method).parameters}

    @property
    def _order(self) -> dict[str | None, int]:
        return {expert: index for index, expert in enumerate(self.experts)}

    @cached_property
    def _parts(self) -> tuple[_Part, ...]:
        """The runs of the genome that are one list of values in a recipe."""
        parts: list[_Part] = []
        for name in self.ranges:
            owners: list[str | None] = [*self.experts] if self._parameters[name].scope == "model" else [None]
            for expert in owners:
                for kind, filters, entries, ends in self._lists():
                    offset = parts[-1].offset + parts[-1].size if parts else 0
                    prefix = "/".join(filter(None, [expert or "merge", kind])) + (
                        "" if name == "weight" else f":{name}"
                    )
                    labels = [f"{prefix}/{end}" if end else prefix for end in ends]
                    parts.append(_Part(name, expert, filters, entries, offset, tuple(labels)))
        return tuple(parts)

    @cached_property
    def _groups(self) -> dict[tuple[str, str | None], list[_Part]]:
        """The parts by parameter and expert."""
        found: dict[tuple[str, str | None], list[_Part]] = {}
        for part in self._parts:
            found.setdefault((part.parameter, part.expert), []).append(part)
        return found

    def _lists(self) -> list[tuple[str, tuple[str, ...], tuple[int, ...], list[str]]]:
        """Return the kind, filters, entries and ends of labels of the lists that one parameter of one expert has."""
        if self.granularity == "model":
            return [("", (), (0,), [""])]
        if self.granularity == "smooth":
            return [("", (), tuple(range(self.groups)), [f"knot {i}" for i in range(self.groups)])]
        entries = tuple(index for index, block in enumerate(self.blocks) for _ in block)
        ends = [block_label(block) for block in self.blocks]
        if self.granularity not in {"module", "tensor"}:
            return [("", (), entries, ends)]
        return [
            (kind, tuple(filters), (0,), [""]) if kind == EMBEDDINGS else (kind, tuple(filters), entries, ends)
            for kind, filters in self.kinds.items()
        ]

    def _values(self, expert: str | None, genome: Sequence[float]) -> dict[str, ParameterValue]:
        """Return what a recipe has as one expert's parameters, or as those of the whole merge."""
        found: dict[str, ParameterValue] = {}
        for (name, owner), parts in self._groups.items():
            if owner != expert:
                continue
            if parts[0].filters:
                rules = [FilteredValue(filter=text, value=p.value(genome)) for p in parts for text in p.filters]
                found[name] = (*rules, FilteredValue(value=self.ranges[name].start))
            else:
                found[name] = parts[0].value(genome)
        return found


EMBEDDINGS = "embeddings"


@dataclass(frozen=True)
class _Part:
    """A run of the genome that is one value, or one list of values over the layers, in a recipe.

    Attributes:
        parameter: The method's parameter.
        expert: Whose; None for the whole merge.
        filters: Texts of which a tensor's name has one; empty for all tensors.
        entries: For each entry of the recipe's list, which of the part's values it is.
        offset: Where the part begins in the genome.
        labels: A name per value.
    """

    parameter: str
    expert: str | None
    filters: tuple[str, ...]
    entries: tuple[int, ...]
    offset: int
    labels: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.labels)

    def value(self, genome: Sequence[float]) -> float | tuple[float, ...]:
        values = tuple(genome[self.offset + entry] for entry in self.entries)
        return values[0] if len(values) == 1 else values

    def applies_to(self, tensor: str) -> bool:
        return not self.filters or any(text in tensor for text in self.filters)


def module_kinds(tensors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sort a model's tensors into attention, MLP, norms and embeddings, by their names.

    Args:
        tensors: The names of the tensors whose coefficients are to move.

    Returns:
        By kind, in a fixed order, the texts that mark its tensors in a recipe's `filter`; only kinds that occur.
    """
    found: dict[str, set[str]] = {"norms": set(), "attention": set(), "mlp": set(), "other": set(), EMBEDDINGS: set()}
    for tensor in tensors:
        stack = layer_stack(tensor)
        if stack is None:
            module = tensor.rsplit(".", 1)[0]
            found["norms" if _is_norm(module) else EMBEDDINGS].add(module)
            continue
        inside = tensor.removeprefix(f"{stack[0]}.{stack[1]}.").split(".")
        module = inside[0]
        low = module.lower()
        if _is_norm(module) or (len(inside) > 2 and _is_norm(inside[-2])):
            found["norms"].add(f".{module}." if _is_norm(module) else f".{inside[-2]}.")
        elif "attn" in low or "attention" in low:
            found["attention"].add(f".{module}.")
        elif any(word in low for word in ("mlp", "ffn", "feed_forward", "moe", "experts")):
            found["mlp"].add(f".{module}.")
        else:
            found["other"].add(f".{module}.")
    return {kind: tuple(sorted(texts)) for kind, texts in found.items() if texts}


def tensor_kinds(tensors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sort a model's tensors by the module that holds them (`q_proj`, `up_proj` ...), so that each has its own value.

    Args:
        tensors: The names of the tensors whose coefficients are to move.

    Returns:
        By module, in their names' order, the text that marks it in a recipe's `filter`; `embeddings` for all outside of
        layers.
    """
    inside = {tensor.split(".")[-2] for tensor in tensors if layer_stack(tensor) is not None}
    outside = {tensor.rsplit(".", 1)[0] for tensor in tensors if layer_stack(tensor) is None}
    kinds = {module: (f".{module}.",) for module in sorted(inside)}
    return kinds | ({EMBEDDINGS: tuple(sorted(outside))} if outside else {})


def _is_norm(module: str) -> bool:
    name = module.rsplit(".", 1)[-1].lower()
    return "norm" in name or name in {"ln_1", "ln_2", "ln_f", "ln"}


def block_label(block: range) -> str:
    """Return `FIRST-LAST`, or one number for a block of one layer."""
    return str(block[0]) if len(block) == 1 else f"{block[0]}-{block[-1]}"
