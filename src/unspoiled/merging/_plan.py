"""The plan of a merge: which tensors come out of a recipe, and how each is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from unspoiled.checkpoints import (
    Checkpoint,
    ModelRef,
    ModelSource,
    OutputLayout,
    TensorInfo,
    config_of_layers,
    embedding_names,
    open_model,
    output_layout,
)
from unspoiled.config import ModelEntry, Recipe, SliceSource, layer_stack, stack_depths
from unspoiled.errors import ConfigError, PreflightError
from unspoiled.merging._blocks import Input, PlannedTensor
from unspoiled.merging._embeddings import MappedEmbedding, MappedInput, recipe_vocabulary
from unspoiled.merging._fitting import require_fitting_slices, require_same_tensors
from unspoiled.merging._method import Method, Parameter, Value
from unspoiled.merging._parameters import checked_value, require_known_names
from unspoiled.merging._places import Place, layer_origins, places
from unspoiled.merging._rows import RowReader, mapped_rows
from unspoiled.merging._statistics import StatisticsFile

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Models:
    """The opened models that recipes merge, by the strings that name them in the recipes.

    Attributes:
        sources: Every model that a recipe names, those that only give tokens included.
        token_donors: The names of those whose tokens are all that is taken.
        statistics: The statistics files, by their paths in the recipes.
    """

    sources: dict[str, ModelSource]
    token_donors: frozenset[str] = frozenset()
    statistics: Mapping[str, StatisticsFile] = field(default_factory=dict)

    @classmethod
    def open(cls, recipes: Sequence[Recipe], directory: Path) -> Models:
        """Open every model that the recipes name; relative paths are relative to `directory`."""
        for recipe in recipes:
            require_known_names(recipe)  # what is misspelt is said before anything is downloaded
        cache: dict[Path, Checkpoint] = {}
        names = sorted({name for recipe in recipes for name in recipe.model_names})
        sources = {name: open_model(ModelRef.parse(name, relative_to=directory), cache=cache) for name in names}
        donors = frozenset(names).difference(name for recipe in recipes for name in merged_names(recipe))
        files = {entry.statistics for recipe in recipes for entry in recipe.models if entry.statistics is not None}
        return cls(sources, donors, {path: StatisticsFile.open(directory / path) for path in sorted(files)})

    @cached_property
    def output(self) -> OutputLayout:
        """The tensors of a merge of these models, whole."""
        return output_layout(source for name, source in self.sources.items() if name not in self.token_donors)

    @cached_property
    def positions(self) -> dict[str, tuple[str | None, int | None]]:
        """The stack of layers and the layer of every tensor of a merge; None for those outside of layers."""
        return {name: layer_stack(name) or (None, None) for name in self.output.shapes}

    @cached_property
    def depths(self) -> dict[str, int]:
        """The number of layers of every stack."""
        return stack_depths(self.output.shapes)

    @property
    def layer_count(self) -> int:
        """The number of layers of the deepest stack."""
        return max(self.depths.values(), default=0)


def merged_names(recipe: Recipe) -> list[str]:
    """Return the models whose weights a recipe reads, each once: the bases and the sources of its slices."""
    named = [
        name
        for index in range(recipe.slice_count)
        for name in (recipe.slice_base(index), *(source.model for source in recipe.slice_sources(index)))
    ]
    return list(dict.fromkeys(name for name in named if name is not None))


class MergePlan:
    """A recipe bound to its opened models: says what each output tensor is, one tensor at a time.

    Args:
        recipe: What to merge.
        models: The opened models, which must include all that the recipe names.
        read: How rows of the models' tensors are read.

    Attributes:
        tensors: The output's tensors, by name, sorted.
        vocabulary: The merged vocabulary, or None where the models' tokens stay as they are.
        reference: The model whose config the merge takes: the base, or else the first model.

    Raises:
        ConfigError: The method, a model or a parameter is unknown, or a parameter is missing or out of range for a
            tensor.
        PreflightError: The models' tensors don't have the same names and shapes.
    """

    def __init__(self, recipe: Recipe, models: Models, *, read: RowReader = mapped_rows) -> None:
        self.recipe = recipe
        self.method = require_known_names(recipe)
        _require_opened(recipe, models)
        self._slices = [_SliceModels.of(recipe, index, self.method, models) for index in range(recipe.slice_count)]
        self.reference = models.sources[recipe.base_model or recipe.slice_sources(0)[0].model]
        self.vocabulary = recipe_vocabulary(recipe, models.sources)
        reference = recipe.base_model or recipe.slice_sources(0)[0].model
        require_same_tensors(
            {entry.model: models.sources[entry.model] for entry in recipe.models},
            reference,
            models.sources[reference],
            mapped=self.vocabulary is not None,
        )
        found = list(places(recipe, models))
        self._mapped = self._mapped_embeddings(models, [place.name for place in found])
        if recipe.slices:
            require_fitting_slices(recipe, models.sources, found, mapped=self._mapped.keys())
        self.tensors = {place.name: self._plan(place, read) for place in found}
        self.tied = models.output.tied
        self._models = models

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config of the merged model: the reference's, with the merge's layers and vocabulary; {} for raw files."""
        config = dict(self.reference.checkpoint.config)
        if config and self.recipe.slices:
            sources = {name: source.checkpoint.config for name, source in self._models.sources.items()}
            config = config_of_layers(config, [(sources[name], layer) for name, layer in layer_origins(self.recipe)])
        if config and self.vocabulary is not None:
            config = self.vocabulary.config(config, self._models.sources[self.vocabulary.donor].checkpoint.config)
        return config

    @cached_property
    def nbytes(self) -> int:
        """The size of the output's tensors in bytes."""
        return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in self.tensors.values())

    @cached_property
    def dtype(self) -> torch.dtype:
        """The output's dtype: the recipe's `out_dtype`, else `dtype`, else that of most of the base's weights.

        Whole numbers (index buffers, say) keep their own and don't count. float64 becomes float32, in which the
        arithmetic is.
        """
        stated = self.recipe.out_dtype or self.recipe.dtype
        if stated is not None:
            return DTYPES[stated]
        sizes: dict[torch.dtype, int] = {}
        for info in self.reference.tensors.values():
            if info.dtype in DTYPES.values():
                sizes[info.dtype] = sizes.get(info.dtype, 0) + math.prod(info.shape)
        return max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)

    def _mapped_embeddings(self, models: Models, names: Sequence[str]) -> dict[str, MappedEmbedding]:
        if self.vocabulary is None:
            return {}
        if any(statistic.by_rows for statistic in self.method.statistics):
            raise ConfigError(
                f"{self.method.name!r} reads statistics row by row, and this merge moves the rows of the embeddings: "
                "the vocabularies differ, or `tokenizer` changes them. Merge models of one vocabulary."
            )
        sources = {name: models.sources[name] for name in self.recipe.model_names}
        return {name: MappedEmbedding(self.vocabulary, sources, name) for name in embedding_names(names)}

    def _plan(self, place: Place, read: RowReader) -> PlannedTensor:
        part = self._slices[place.slice_index]
        inputs = [Input(source, place.inputs[index]) for index, (_, source) in part.experts.items()]
        base = None if part.base is None else Input(part.base[1], place.inputs[part.base_index])
        info = _info(base or inputs[0])
        everything = [*([base] if base else []), *inputs]
        merge: dict[str, Value] = {}
        coefficients: dict[str, Value | list[Value]] = {}
        for parameter in self.method.parameters:
            if parameter.scope == "merge":
                merge[parameter.name] = coefficients[parameter.argument] = self._value(parameter, None, place)
            else:
                coefficients[parameter.argument] = [self._value(parameter, index, place) for index in part.experts]
        if whole_numbers := not info.dtype.is_floating_point:
            _require_equal(everything)
        planned = PlannedTensor(
            place.name,
            info.shape,
            info.dtype if whole_numbers else self.dtype,
            self.method,
            coefficients,
            base,
            tuple(inputs),
            copied=whole_numbers or (self.method.keeps_common(merge) and _is_common(everything)),
            read=read,
            statistics=tuple(part.statistics) if info.dtype.is_floating_point else (),
        )
        mapped = self._mapped.get(place.name)
        if mapped is None:
            return planned
        return replace(
            planned,
            shape=mapped.shape,
            base=None if part.base is None else MappedInput(part.base[1], place.name, part.base[0], mapped),
            inputs=tuple(MappedInput(source, place.name, model, mapped) for model, source in part.experts.values()),
            copied=False,
        )

    def _value(self, parameter: Parameter, index: int | None, place: Place) -> Value:
        tensor = place.name if index is None else place.inputs[index]
        value = self.recipe.parameter(
            parameter.name,
            index,
            tensor=tensor,
            layer=place.layer,
            layers=place.layers,
            slice_index=place.slice_index,
        )
        where = f"parameter {parameter.name!r} of {self.method.name!r} for tensor {tensor!r}"
        if value is None:
            if parameter.default is None:
                model = "" if index is None else self.recipe.slice_sources(place.slice_index)[index].model
                raise ConfigError(
                    f"{where} is missing{f' for model {model!r}' if model else ''}: set it under the model's or the "
                    "recipe's `parameters`."
                )
            return parameter.default
        return checked_value(parameter, value, where)


@dataclass(frozen=True)
class _SliceModels:
    """The models of one slice (whole models are one slice), as the method takes them.

    Attributes:
        base: The base and its name, or None where the method takes none.
        base_index: Where the base's tensor names are among those of the slice's sources: its own place, or, if it
            isn't one of them, that of the first source, whose names it then shares.
        experts: The models to merge with their names, by their place among the slice's sources.
        statistics: Each expert's statistics file; empty where the method takes none.
    """

    base: tuple[str, ModelSource] | None
    base_index: int
    experts: dict[int, tuple[str, ModelSource]]
    statistics: Sequence[StatisticsFile]

    @classmethod
    def of(cls, recipe: Recipe, index: int, method: Method, models: Models) -> _SliceModels:
        """Return the models of the recipe's slice `index`.

        Raises:
            ConfigError: The method takes no base or another number of models; or a slice doesn't say
                which of the base's layers it is about.
        """
        base = recipe.slice_base(index)
        sources = recipe.slice_sources(index)
        if method.base == "unused":
            # mergekit adds the base to whole models alone; of slices it is the config and tokenizer only
            if base is not None and not recipe.slices and base not in {source.model for source in sources}:
                raise ConfigError(
                    f"{method.name!r} takes no base, and base_model {base!r} is not among the models to merge: "
                    "mergekit would merge it as one more. List it if you want that; else remove base_model, and name "
                    "the tokenizer's model under tokenizer_source."
                )
            base = None
        experts = {
            i: (source.model, models.sources[source.model]) for i, source in enumerate(sources) if source.model != base
        }
        _require_experts(method, [model for model, _ in experts.values()])
        base_index = next((i for i, source in enumerate(sources) if source.model == base), 0)
        if recipe.slices and base is not None and sources[base_index].model != base:
            ranges = {source.layer_range for source in recipe.slices[index].sources}
            if len(ranges) > 1:
                raise ConfigError(
                    f"slice {index} merges different layers {sorted(map(list, ranges))}, and doesn't say which of the "
                    f"base's: list {base!r} among its sources, with its layer_range."
                )
        statistics = _statistics(method, [sources[i] for i in experts], models)
        return cls((base, models.sources[base]) if base else None, base_index, experts, statistics)


def _statistics(method: Method, sources: Sequence[ModelEntry | SliceSource], models: Models) -> list[StatisticsFile]:
    """Return the statistics files of the experts, which all name one or none as the method has it."""
    found: list[StatisticsFile] = []
    for source in sources:
        path = source.statistics if isinstance(source, ModelEntry) else None
        if bool(method.statistics) != (path is not None):
            kinds = ", ".join(statistic.kind for statistic in method.statistics)
            raise ConfigError(
                f"{method.name!r} needs the statistics ({kinds}) of each expert's data, and model {source.model!r} "
                "names no `statistics` file. Collect them with `unspoiled statistics`; slices can't have any."
                if method.statistics
                else f"model {source.model!r} names a `statistics` file, which {method.name!r} does not use: remove it."
            )
        if path is not None:
            found.append(models.statistics[path])
            found[-1].require([statistic.kind for statistic in method.statistics])
    return found


def _require_opened(recipe: Recipe, models: Models) -> None:
    if strangers := [name for name in recipe.model_names if name not in models.sources]:
        raise ConfigError(
            f"the recipe names {strangers[0]!r}, which is not among the models that are open: "
            f"{', '.join(map(repr, models.sources))}. If the models moved since the recipe was made, put them back, or "
            "make it anew."
        )


def _info(given: Input) -> TensorInfo:
    return given.source.checkpoint.info(given.name)


def _is_common(inputs: Sequence[Input]) -> bool:
    """Tell whether all inputs are one stored tensor that no adapter changes."""
    first = inputs[0]
    return all(
        given.delta() is None and given.source.directory == first.source.directory and given.name == first.name
        for given in inputs
    )


def _require_equal(inputs: Sequence[Input]) -> None:
    first = inputs[0].source.read(inputs[0].name)
    for given in inputs[1:]:
        if not torch.equal(first, given.source.read(given.name)):
            raise PreflightError(
                f"{given.name!r} holds whole numbers, which can't be averaged, and they differ between "
                f"{str(inputs[0].source.ref)!r} and {str(given.source.ref)!r}. Merge models with the same buffers."
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
