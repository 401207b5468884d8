"""Recipes of several stages: each merge's output is a model of the later ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from unspoiled.checkpoints import Checkpoint, ModelRef, open_model
from unspoiled.config import Recipe, recipes_to_yaml, stage_name
from unspoiled.files import scratch_directory
from unspoiled.merging._device import open_device
from unspoiled.merging._fitting import require_apart
from unspoiled.merging._parameters import require_known_names
from unspoiled.merging._plan import Models
from unspoiled.merging.stream import MEMORY, SHARD_SIZE, merge_to_directory


def merge_stages(
    recipes: Sequence[Recipe],
    directory: Path,
    destination: Path,
    *,
    shard_size: int = SHARD_SIZE,
    threads: int | None = None,
    memory: int = MEMORY,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> tuple[str, ...]:
    """Merge stage after stage, and write what the last one makes to `destination`.

    The earlier stages' models are kept beside it meanwhile, and removed in the end.

    Args:
        recipes: The stages, each after those it uses (as `read_recipes` gives them); one recipe is one stage.
        directory: What relative model paths are relative to.
        destination: As in `merge_to_directory`, as are `shard_size`, `threads`, `memory` and `device`.
        shard_size: Largest size of one safetensors file, in bytes.
        threads: Tensors in flight.
        memory: Bytes that the tensors in flight may take.
        device: Where to merge.
        progress: Called with (stage, bytes done, bytes in all).

    Returns:
        The notes of all stages; see `merge_to_directory`.

    Raises:
        RunDirectoryError: `destination` is the directory of an input, or holds one: it would be replaced.
        UnspoiledError: What `merge_to_directory` raises; nothing is written then. A method or model that isn't there
            is said before the first stage, whichever stage names it.
    """
    open_device(device)  # refused before anything is downloaded
    if len(recipes) > 1:  # a single merge says it all by itself, before it writes
        _require_ready(recipes, directory, destination)
    written = recipes_to_yaml(recipes)
    notes: list[str] = []
    made: dict[str, Path] = {}
    with scratch_directory(destination) as scratch:
        for number, recipe in enumerate(recipes, start=1):
            used = {model: stage_name(model) for model in recipe.model_names if stage_name(model) in made}
            ready = recipe.with_models({model: model.replace(name, str(made[name]), 1) for model, name in used.items()})
            output = destination if number == len(recipes) else scratch / str(recipe.name)
            label = recipe.name or "merge"
            notes += merge_to_directory(
                ready,
                Models.open([ready], directory),
                output,
                shard_size=shard_size,
                threads=threads,
                memory=memory,
                device=device,
                recipe_yaml=written,
                progress=partial(progress, label),
            )
            if recipe.name is not None:
                made[recipe.name] = output
    return tuple(dict.fromkeys(notes))


def _require_ready(recipes: Sequence[Recipe], directory: Path, destination: Path) -> None:
    """Refuse what can be seen to fail before the first stage is merged: names, models, an output that is an input."""
    for recipe in recipes:
        require_known_names(recipe)
    made = {recipe.name for recipe in recipes}
    names = sorted({name for recipe in recipes for name in recipe.model_names if stage_name(name) not in made})
    cache: dict[Path, Checkpoint] = {}
    require_apart(
        {name: open_model(ModelRef.parse(name, relative_to=directory), cache=cache) for name in names}, destination
    )
