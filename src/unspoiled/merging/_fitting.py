"""Do the models of a merge fit together: whole models tensor by tensor, slices layer by layer."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from unspoiled.checkpoints import ModelSource, tensor_problems
from unspoiled.config import Recipe, layer_stack, stack_depths
from unspoiled.errors import PreflightError, RunDirectoryError
from unspoiled.merging._method import get_method
from unspoiled.merging._places import Place

_Shape = tuple[int, ...]


def require_same_tensors(models: Mapping[str, ModelSource], reference: str, base: ModelSource, *, mapped: bool) -> None:
    """Refuse whole models that differ from the reference in their tensors' names, shapes or integer buffers.

    Args:
        models: The models to merge, by name.
        reference: The name of the model to compare with.
        base: That model.
        mapped: Vocabularies are mapped, so that embeddings may have different numbers of rows.

    Raises:
        PreflightError: They differ; the message names each model with what is different.
    """
    problems = [
        problem
        for name, model in models.items()
        if name != reference
        for problem in tensor_problems(name, base, model, rows_differ=mapped)
    ]
    if problems:
        raise PreflightError("\n".join(problems) + "\nMerge models of one architecture and vocabulary.")


def require_apart(sources: Mapping[str, ModelSource], destination: Path) -> None:
    """Refuse an output directory that is an input's, or holds one, or lies in one.

    Raises:
        RunDirectoryError: The message names the input.
    """
    output = destination.resolve()
    for name, source in sources.items():
        for used in [source.directory, *([source.adapter.directory] if source.adapter else [])]:
            place = used.resolve()
            if place.is_relative_to(output):
                raise RunDirectoryError(
                    f"{destination} is or holds the input {name!r}, which the merge would replace. "
                    "Choose another output path."
                )
            if output.is_relative_to(place):
                raise RunDirectoryError(
                    f"{destination} lies within the input {name!r}, which a merge leaves as it is. "
                    "Choose another output path."
                )


def require_fitting_slices(
    recipe: Recipe, sources: Mapping[str, ModelSource], found: Sequence[Place], *, mapped: Container[str]
) -> None:
    """Refuse slices whose models lack a tensor or have it in another shape, and layers that can't be stacked.

    Args:
        recipe: A recipe of slices.
        sources: The opened models that it names.
        found: The tensors of the merge.
        mapped: The names of the tensors whose rows are mapped to a new vocabulary.

    Raises:
        PreflightError: They don't fit; the message names the slice, the tensor and the models.
    """
    shapes = {place.name: _shape(recipe, sources, place, mapped) for place in found}
    _require_one_width(recipe, sources, found, shapes, mapped)
    _require_like_layers(recipe, sources, found, shapes)


def _shape(recipe: Recipe, sources: Mapping[str, ModelSource], place: Place, mapped: Container[str]) -> _Shape:
    """Return the shape of a merged tensor, which all sources of its slice must have (rows by token aside)."""
    parts = recipe.slice_sources(place.slice_index)
    named = [(part.model, name) for part, name in zip(parts, place.inputs, strict=True)]
    base = recipe.slice_base(place.slice_index)
    if (
        base is not None
        and base not in {model for model, _ in named}
        and get_method(recipe.merge_method).base != "unused"
    ):
        named.append((base, place.inputs[0]))
    shapes = {}
    for model, name in named:
        checkpoint = sources[model].checkpoint
        if name not in checkpoint.tensors and name not in checkpoint.aliases:
            raise PreflightError(
                f"slice {place.slice_index}: {model!r} lacks {name!r}, which {parts[0].model!r} "
                "has. Merge models of one architecture."
            )
        shape = checkpoint.info(name).shape
        shapes[model] = shape[1:] if place.name in mapped else shape
    if len(set(shapes.values())) > 1:
        raise PreflightError(
            f"slice {place.slice_index}: {place.name!r} has different shapes, "
            f"{', '.join(f'{list(shape)} in {model!r}' for model, shape in shapes.items())}. "
            "Merge models of one architecture and vocabulary."
        )
    return next(iter(shapes.values()))


def _require_one_width(
    recipe: Recipe,
    sources: Mapping[str, ModelSource],
    found: Sequence[Place],
    shapes: Mapping[str, _Shape],
    mapped: Container[str],
) -> None:
    """Refuse a stack of models that differ in a tensor outside of layers: they differ in width or vocabulary."""
    for place in found:
        if place.layer is not None:
            continue
        giver = recipe.slice_sources(place.slice_index)[0].model
        for model in {source.model: None for part in recipe.slices for source in part.sources}:
            checkpoint = sources[model].checkpoint
            if place.name not in checkpoint.tensors and place.name not in checkpoint.aliases:
                continue
            shape = checkpoint.info(place.name).shape
            if (shape[1:] if place.name in mapped else shape) != shapes[place.name]:
                raise PreflightError(
                    f"{place.name!r} has different shapes, {list(shapes[place.name])} in {giver!r} and {list(shape)} "
                    f"in {model!r}. Stack models of one architecture and vocabulary."
                )


def _require_like_layers(
    recipe: Recipe, sources: Mapping[str, ModelSource], found: Sequence[Place], shapes: Mapping[str, _Shape]
) -> None:
    """Refuse a layer without what every layer of the first model has, with what none has, or in other shapes.

    The config holds for all layers, so transformers would fill the first with random values and drop the second. Where
    the layers of the first model differ among themselves, its config knows why, and they are not compared.
    """
    first = recipe.slice_sources(0)[0].model
    layers = _tensors_by_layer(sources[first])
    usual = {rest: {layer.get(rest) for layer in layers} for rest in set().union(*layers)}
    stacked: dict[tuple[int, int], dict[str, Place]] = {}
    for place in found:
        if place.layer is not None:
            stacked.setdefault((place.slice_index, place.layer), {})[_rest(place.name)] = place
    for (index, _), layer in stacked.items():
        model = recipe.slice_sources(index)[0].model
        for rest in sorted(usual.keys() | layer.keys()):
            shape = shapes[layer[rest].name] if rest in layer else None
            wanted = usual.get(rest, {None})
            if len(wanted) == 1 and shape not in wanted:
                raise PreflightError(
                    f"slice {index}: layers of {model!r} have *{rest} {_said(shape)}, and those of {first!r} "
                    f"{_said(next(iter(wanted)))}. Stack models of one architecture."
                )


def _tensors_by_layer(source: ModelSource) -> list[dict[str, _Shape]]:
    layers: list[dict[str, _Shape]] = [{} for _ in range(max(stack_depths(source.tensors).values()))]
    for name, info in source.tensors.items():
        if (position := layer_stack(name)) is not None:
            layers[position[1]][_rest(name)] = info.shape
    return layers


def _rest(name: str) -> str:
    """Return what follows the layer's number in a tensor's name."""
    position = layer_stack(name)
    assert position is not None
    return name[len(f"{position[0]}.{position[1]}") :]


def _said(shape: _Shape | None) -> str:
    return "nowhere" if shape is None else str(list(shape))
