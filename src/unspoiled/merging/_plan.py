"""The plan of a merge: which tensors come out of a recipe, and how each is made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from unspoiled.checkpoints import Checkpoint, ModelRef, ModelSource, OutputLayout, open_model, output_layout
from unspoiled.config import Recipe, count_layers, layer_index
from unspoiled.errors import ConfigError, PreflightError
from unspoiled.merging._method import Parameter, get_method
from unspoiled.merging._operands import AdaptedTensor, Delta, DenseDelta, Weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Models:
    """The opened models that recipes merge, by the strings that name them in the recipes."""

    sources: dict[str, ModelSource]

    @classmethod
    def open(cls, recipes: Sequence[Recipe], directory: Path) -> Models:
        """Open every model that the recipes name; relative paths are relative to `directory`."""
        for recipe in recipes:
            get_method(recipe.merge_method)  # a misspelt method is said before anything is downloaded
        cache: dict[Path, Checkpoint] = {}
        names = {entry.model for recipe in recipes for entry in recipe.models}
        names |= {recipe.base_model for recipe in recipes if recipe.base_model}
        return cls(
            {name: open_model(ModelRef.parse(name, relative_to=directory), cache=cache) for name in sorted(names)}
        )

    @cached_property
    def output(self) -> OutputLayout:
        """The tensors of a merge of these models."""
        return output_layout(self.sources.values())

    @cached_property
    def layers(self) -> dict[str, int | None]:
        """The layer of every tensor of a merge, None for embeddings, the final norm and the head."""
        return {name: layer_index(name) for name in self.output.shapes}

    @cached_property
    def layer_count(self) -> int:
        """The number of layers of the architecture."""
        return count_layers(self.output.shapes)


@dataclass(frozen=True)
class _Coefficients:
    """What the recipe says for one tensor: a value per merge, or one per merged model."""

    merge: dict[str, float | bool]
    model: dict[str, list[float | bool]]


class MergePlan:
    """A recipe bound to its opened models: says what each output tensor is, one tensor at a time.

    Args:
        recipe: What to merge.
        models: The opened models, which must include all that the recipe names.

    Raises:
        ConfigError: The method, a model or a parameter is unknown, or a parameter is missing or out of range for a
            tensor.
        PreflightError: The models' tensors don't have the same names and shapes.
    """

    def __init__(self, recipe: Recipe, models: Models) -> None:
        self.recipe = recipe
        self.method = get_method(recipe.merge_method)
        if self.method.needs_base and recipe.base_model is None:
            raise ConfigError(f"merge_method {self.method.name!r} needs a base_model: name the common ancestor.")
        _require_opened(recipe, models)
        self._base = models.sources[recipe.base_model] if recipe.base_model else None
        self._entries = [
            (index, entry.model)
            for index, entry in enumerate(recipe.models)
            if not (self.method.needs_base and entry.model == recipe.base_model)
        ]
        if not self._entries:
            raise ConfigError(f"the recipe names no model to merge by {self.method.name!r}: add one to `models`.")
        self._inputs = [models.sources[model] for _, model in self._entries]
        self.reference = self._base or self._inputs[0]
        self.output = models.output
        self._layers = models.layers
        self._layer_count = models.layer_count
        self._require_known_parameters()
        self._require_same_tensors()
        self._coefficients = {name: self._resolve(name) for name in self.output.shapes}
        self._one_checkpoint = len({source.directory for source in [self.reference, *self._inputs]}) == 1

    @cached_property
    def names(self) -> list[str]:
        """The output's tensor names, sorted."""
        return list(self.output.shapes)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The output's dtype: the recipe's `out_dtype`, else `dtype`, else that of most of the base's weights."""
        stated = self.recipe.out_dtype or self.recipe.dtype
        if stated is not None:
            return DTYPES[stated]
        sizes: dict[torch.dtype, int] = {}
        for info in self.reference.tensors.values():
            sizes[info.dtype] = sizes.get(info.dtype, 0) + math.prod(info.shape)
        return max(sizes, key=lambda dtype: sizes[dtype])

    def is_common(self, name: str) -> bool:
        """Say whether every input holds the same tensor and the method passes it through unchanged."""
        return (
            self._one_checkpoint
            and self.method.keeps_common(self._coefficients[name].merge)
            and all(source.delta(name) is None for source in [self.reference, *self._inputs])
        )

    def merge(self, name: str) -> Tensor:
        """Return the merged tensor `name` in float32, before the cast to the output's dtype."""
        if self.is_common(name):
            return self.reference.read(name).float()
        found = self._coefficients[name]
        coefficients: dict[str, object] = {**found.merge, **found.model}
        if self.method.operands == "tensors":
            return self.method.merge(None, [_weights(source, name) for source in self._inputs], **coefficients)
        assert self._base is not None
        base = dense_weights(self._base, name)
        deltas = [self._delta(source, name, base) for source in self._inputs]
        return self.method.merge(base, deltas, **coefficients)

    def _delta(self, source: ModelSource, name: str, base: Tensor) -> Delta:
        assert self._base is not None
        low_rank = source.delta(name)
        same_checkpoint = source.directory == self._base.directory and self._base.delta(name) is None
        if low_rank is not None and same_checkpoint:
            return low_rank
        return DenseDelta(dense_weights(source, name), base)

    def _resolve(self, name: str) -> _Coefficients:
        merge: dict[str, float | bool] = {}
        model: dict[str, list[float | bool]] = {}
        for parameter in self.method.parameters:
            if parameter.scope == "merge":
                merge[parameter.name] = self._value(parameter, None, name)
            else:
                model[parameter.name] = [self._value(parameter, index, name) for index, _ in self._entries]
        return _Coefficients(merge, model)

    def _value(self, parameter: Parameter, index: int | None, name: str) -> float | bool:
        value = self.recipe.parameter(
            parameter.name, index, tensor=name, layer=self._layers.get(name), layers=self._layer_count
        )
        where = f"parameter {parameter.name!r} of {self.method.name!r} for tensor {name!r}"
        if value is None:
            if parameter.default is None:
                model = "" if index is None else f" for model {self.recipe.models[index].model!r}"
                raise ConfigError(f"{where} is missing{model}: set it under the model's or the recipe's `parameters`.")
            return parameter.default
        if parameter.is_switch:
            if value not in (0, 1):
                raise ConfigError(f"{where} is {value!r}: it must be true or false.")
            return bool(value)
        if isinstance(value, bool):
            raise ConfigError(f"{where} is {str(value).lower()}: it must be a number.")
        if not parameter.low <= value <= parameter.high:
            raise ConfigError(f"{where} is {value!r}: it must lie between {parameter.low} and {parameter.high}.")
        return value

    def _require_known_parameters(self) -> None:
        known = {parameter.name: parameter for parameter in self.method.parameters}
        for place, given in [
            ("the recipe", self.recipe.parameters),
            *((f"model {entry.model!r}", entry.parameters) for entry in self.recipe.models),
        ]:
            for name in given:
                if name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    hint = f" Did you mean {close[0]!r}?" if close else ""
                    raise ConfigError(
                        f"{place} sets {name!r}, which {self.method.name!r} does not take.{hint} "
                        f"It takes: {', '.join(known)}."
                    )
                if known[name].scope == "merge" and given is not self.recipe.parameters:
                    raise ConfigError(f"{place} sets {name!r}, which holds for the whole merge: move it to the top.")

    def _require_same_tensors(self) -> None:
        wanted = self.output.shapes
        sources = [*zip([label for _, label in self._entries], self._inputs, strict=True)]
        if self._base is not None and self.recipe.base_model is not None:
            sources.append((self.recipe.base_model, self._base))
        for label, source in sources:
            missing = sorted(wanted.keys() - source.tensors.keys() - source.checkpoint.aliases.keys())
            shapes = sorted(n for n in wanted.keys() & source.tensors if wanted[n] != source.tensors[n].shape)
            if missing or shapes:
                raise PreflightError(
                    f"{label!r} does not fit the other models: it lacks the tensors {missing[:5]} and has other "
                    f"shapes for {shapes[:5]}. Merge models of one architecture and vocabulary."
                )


def _require_opened(recipe: Recipe, models: Models) -> None:
    named = [*([recipe.base_model] if recipe.base_model else []), *(entry.model for entry in recipe.models)]
    if strangers := [name for name in named if name not in models.sources]:
        raise ConfigError(
            f"the recipe names {strangers[0]!r}, which is not among the models that are open: "
            f"{', '.join(map(repr, models.sources))}. If the models moved since the recipe was made, put them back, or "
            "make it anew."
        )


def _weights(source: ModelSource, name: str) -> Weights:
    delta = source.delta(name)
    return source.read(name) if delta is None else AdaptedTensor(source.read(name), delta)


def _dense(weights: Weights) -> Tensor:
    return weights.dense() if isinstance(weights, AdaptedTensor) else weights


def dense_weights(source: ModelSource, name: str) -> Tensor:
    """Return one model's own tensor, its adapter added in float32 (in storage dtype where there is none)."""
    return _dense(_weights(source, name))
