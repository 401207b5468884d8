"""The plan of a merge: which tensors come out of a recipe, and how each is made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from unspoiled.checkpoints import Checkpoint, ModelRef, ModelSource, OutputLayout, open_model, output_layout
from unspoiled.config import Recipe, count_layers, layer_index
from unspoiled.errors import ConfigError, PreflightError
from unspoiled.merging._blocks import Input, PlannedTensor, RowReader, mapped_rows
from unspoiled.merging._method import Method, Parameter, Value, get_method

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


class MergePlan:
    """A recipe bound to its opened models: says what each output tensor is, one tensor at a time.

    Args:
        recipe: What to merge.
        models: The opened models, which must include all that the recipe names.
        read: How rows of the models' tensors are read.

    Raises:
        ConfigError: The method, a model or a parameter is unknown, or a parameter is missing or out of range for a
            tensor.
        PreflightError: The models' tensors don't have the same names and shapes.
    """

    def __init__(self, recipe: Recipe, models: Models, *, read: RowReader = mapped_rows) -> None:
        self.recipe = recipe
        self.method = get_method(recipe.merge_method)
        if self.method.base == "required" and recipe.base_model is None:
            raise ConfigError(f"merge_method {self.method.name!r} needs a base_model: name the common ancestor.")
        _require_opened(recipe, models)
        self._base = models.sources[recipe.base_model] if recipe.base_model else None
        takes_base = self.method.base != "unused"
        self._entries = [
            (index, entry.model)
            for index, entry in enumerate(recipe.models)
            if not (takes_base and entry.model == recipe.base_model)
        ]
        _require_experts(self.method, [model for _, model in self._entries])
        self._inputs = [models.sources[model] for _, model in self._entries]
        self.reference = self._base or self._inputs[0]
        self.output = models.output
        self._layers = models.layers
        self._layer_count = models.layer_count
        self._require_known_parameters()
        self._require_same_tensors()
        self._one_checkpoint = len({source.directory for source in [self.reference, *self._inputs]}) == 1
        self.tensors = {name: self._plan(name, read) for name in self.output.shapes}

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

    def _plan(self, name: str, read: RowReader) -> PlannedTensor:
        merge: dict[str, Value] = {}
        coefficients: dict[str, Value | list[Value]] = {}
        for parameter in self.method.parameters:
            if parameter.scope == "merge":
                merge[parameter.name] = coefficients[parameter.argument] = self._value(parameter, None, name)
            else:
                coefficients[parameter.argument] = [self._value(parameter, i, name) for i, _ in self._entries]
        base = Input(self._base, name) if self._base is not None and self.method.base != "unused" else None
        return PlannedTensor(
            name,
            self.output.shapes[name],
            self.dtype,
            self.method,
            coefficients,
            base,
            tuple(Input(source, name) for source in self._inputs),
            copied=self._one_checkpoint
            and self.method.keeps_common(merge)
            and all(source.delta(name) is None for source in [self.reference, *self._inputs]),
            read=read,
        )

    def _value(self, parameter: Parameter, index: int | None, name: str) -> Value:
        value = self.recipe.parameter(
            parameter.name, index, tensor=name, layer=self._layers.get(name), layers=self._layer_count
        )
        where = f"parameter {parameter.name!r} of {self.method.name!r} for tensor {name!r}"
        if value is None:
            if parameter.default is None:
                model = "" if index is None else f" for model {self.recipe.models[index].model!r}"
                raise ConfigError(f"{where} is missing{model}: set it under the model's or the recipe's `parameters`.")
            return parameter.default
        return _checked_value(parameter, value, where)

    def _require_known_parameters(self) -> None:
        known = {parameter.name: parameter for parameter in self.method.parameters}
        ignored = self.method.ignored
        for place, given in [
            ("the recipe", self.recipe.parameters),
            *((f"model {entry.model!r}", entry.parameters) for entry in self.recipe.models),
        ]:
            for name in given:
                if name in ignored:
                    continue
                if name not in known:
                    close = difflib.get_close_matches(name, known, n=1)
                    hint = f" Did you mean {close[0]!r}?" if close else ""
                    raise ConfigError(
                        f"{place} sets {name!r}, which {self.method.name!r} does not take.{hint} "
                        f"It takes: {', '.join(known) or 'no parameters'}."
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


def _require_experts(method: Method, models: list[str]) -> None:
    least, most = method.experts
    if len(models) < least or (most is not None and len(models) > most):
        wanted = f"{least}" if most == least else f"{least} or more" if most is None else f"{least} to {most}"
        raise ConfigError(
            f"{method.name!r} merges {wanted} model{'s' if wanted != '1' else ''}"
            f"{' beside the base' if method.base == 'required' else ''}, and the recipe names "
            f"{', '.join(map(repr, models)) or 'none'}. Change `models`, or the method."
        )


def _checked_value(parameter: Parameter, value: Value, where: str) -> Value:
    if parameter.kind == "switch":
        if value not in (0, 1):
            raise ConfigError(f"{where} is {value!r}: it must be true or false.")
        return bool(value)
    if isinstance(value, bool):
        raise ConfigError(f"{where} is {str(value).lower()}: it must be a number.")
    if parameter.kind == "whole number":
        if value != int(value):
            raise ConfigError(f"{where} is {value!r}: it must be a whole number.")
        value = int(value)
    if not parameter.low <= value <= parameter.high:
        raise ConfigError(f"{where} is {value!r}: it must lie between {parameter.low} and {parameter.high}.")
    return value
