"""Where each output tensor comes from: whole models tensor by tensor, or slices of layers stacked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unspoiled.checkpoints import ModelSource, is_input_side
from unspoiled.config import Recipe, SliceSource, layer_stack, stack_depths
from unspoiled.errors import ConfigError

if TYPE_CHECKING:
    from unspoiled.merging._plan import Models


@dataclass(frozen=True)
class Place:
    """One output tensor and the tensors that go into it.

    Attributes:
        name: Its name in the output.
        slice_index: The slice whose sources and parameters make it.
        layer: Its layer, counted from the first of the slice; None outside of layers.
        layers: The number of layers of the slice (of the stack, where whole models are merged).
        inputs: For each source of the slice, the name of the tensor there.
    """

    name: str
    slice_index: int
    layer: int | None
    layers: int
    inputs: tuple[str, ...]


def places(recipe: Recipe, models: Models) -> Iterator[Place]:
    """Yield the recipe's output tensors, sorted by name.

    Tensors outside of layers come from the first slice where they precede the layers (embeddings), and from the last
    where they follow (final norm, head), as mergekit has it.

    Raises:
        ConfigError: Slices of a model with several stacks of layers, or layers that a model doesn't have.
    """
    if not recipe.slices:
        yield from _whole_models(recipe, models)
        return
    found = [*_outside_layers(recipe, models), *_sliced(recipe, models)]
    yield from sorted(found, key=lambda place: place.name)


def layer_origins(recipe: Recipe) -> list[tuple[str, int]]:
    """Return, for each layer of a sliced merge, its slice's first source and the layer there."""
    return [(part.sources[0].model, layer) for part in recipe.slices for layer in range(*part.sources[0].layer_range)]


def _whole_models(recipe: Recipe, models: Models) -> Iterator[Place]:
    count = len(recipe.models)
    for name in models.output.shapes:
        stack, layer = models.positions[name]
        yield Place(name, 0, layer, models.depths[stack] if stack else 0, (name,) * count)


def _outside_layers(recipe: Recipe, models: Models) -> Iterator[Place]:
    last = len(recipe.slices) - 1
    names = {name for source in _sources(recipe, models) for name in source.tensors if layer_stack(name) is None}
    for name in names:
        index = 0 if is_input_side(name) else last
        part = recipe.slices[index]
        yield Place(name, index, None, part.layers, (name,) * len(part.sources))


def _sliced(recipe: Recipe, models: Models) -> Iterator[Place]:
    output_layer = 0
    for index, part in enumerate(recipe.slices):
        stacks = [_only_stack(source, models) for source in part.sources]
        names = _names_by_layer(models.sources[part.sources[0].model], stacks[0])
        for layer in range(part.layers):
            for rest in names[part.sources[0].layer_range[0] + layer]:
                inputs = tuple(
                    f"{stack}.{source.layer_range[0] + layer}{rest}"
                    for stack, source in zip(stacks, part.sources, strict=True)
                )
                yield Place(f"{stacks[0]}.{output_layer}{rest}", index, layer, part.layers, inputs)
            output_layer += 1


def _only_stack(source: SliceSource, models: Models) -> str:
    depths = stack_depths(models.sources[source.model].tensors)
    if len(depths) != 1:
        raise ConfigError(
            f"slices need a model with one stack of layers, and {source.model!r} has {len(depths)}: "
            f"{', '.join(depths) or 'none'}. Merge it whole, with `models`."
        )
    ((stack, depth),) = depths.items()
    if source.layer_range[1] > depth:
        raise ConfigError(
            f"layer_range {list(source.layer_range)} of {source.model!r}: the model has {depth} layers, so the range "
            f"may end at {depth}. Correct it."
        )
    return stack


def _names_by_layer(source: ModelSource, stack: str) -> Mapping[int, Sequence[str]]:
    """Return what follows the layer's number in the names of its tensors, by layer."""
    found: dict[int, list[str]] = {}
    for name in source.tensors:
        position = layer_stack(name)
        if position is not None and position[0] == stack:
            found.setdefault(position[1], []).append(name[len(f"{stack}.{position[1]}") :])
    return found


def _sources(recipe: Recipe, models: Models) -> list[ModelSource]:
    return [models.sources[name] for part in recipe.slices for name in dict.fromkeys(s.model for s in part.sources)]
