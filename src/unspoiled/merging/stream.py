"""Merge disk to disk: one tensor at a time into a staged directory that appears only when it is whole."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from unspoiled.checkpoints import CheckpointWriter, finish_checkpoint, require_finite
from unspoiled.config import Dtype, ModelEntry, Recipe
from unspoiled.errors import CheckpointError
from unspoiled.files import check_free_space, staged_directory
from unspoiled.merging._plan import MergePlan, Models

_SHARD_SIZE = 5_000_000_000
_SMALL_FILES = 50_000_000  # room for the tokenizer, configs and card beside the weights, in bytes


def merge_to_directory(
    recipe: Recipe,
    models: Models,
    destination: Path,
    *,
    tokenizer: Path | None = None,
    chat_template: str | None = None,
    files: dict[str, str] | None = None,
    shard_size: int = _SHARD_SIZE,
    threads: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the merged checkpoint of `recipe` to `destination`, all of it or nothing.

    Memory holds `threads` tensors at a time (each in float32, with its inputs), never a model.

    Args:
        recipe: What to merge.
        models: The opened models that the recipe names.
        destination: A directory that is absent, empty, or an earlier output of this function.
        tokenizer: The directory to take the tokenizer from; the recipe's choice by default.
        chat_template: The merged model's template; the recipe's, else the tokenizer's own, by default.
        files: More text files to publish with the checkpoint, by name (the model card).
        shard_size: Largest size of one safetensors file, in bytes.
        threads: Tensors in flight.
        progress: Called with (tensors done, tensors in all) after each tensor.

    Raises:
        CheckpointError: An input tensor is not finite, or a merged value overflows the output's dtype.
        ResourceError: The disk has too little room.
    """
    plan = MergePlan(recipe, models)
    check_free_space(destination.parent, plan.output.nbytes(plan.dtype) + _SMALL_FILES)
    with staged_directory(destination) as staging:
        layout = plan.output.with_dtype(plan.dtype)
        with (
            CheckpointWriter(staging, layout, shard_size=shard_size) as writer,
            ThreadPoolExecutor(threads) as pool,
        ):
            written = pool.map(lambda name: writer.write(name, _checked(plan, models, name)), plan.names)
            for done, _ in enumerate(written, start=1):
                progress(done, len(plan.names))
        finish_checkpoint(
            staging,
            source=plan.reference,
            dtype=plan.dtype,
            recipe_yaml=recipe.to_yaml(),
            chat_template=chat_template if chat_template is not None else _own_template(recipe),
            extra=files,
            tie_word_embeddings=plan.output.tied,
            tokenizer=tokenizer or models.sources[recipe.tokenizer_donor].tokenizer_directory,
        )


def materialize(
    model: str,
    destination: Path,
    *,
    dtype: Dtype | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write one model, its adapter added to the weights, as a full checkpoint.

    Args:
        model: `checkpoint+adapter`, or a plain checkpoint to copy in another dtype.
        destination: As in `merge_to_directory`.
        dtype: The storage dtype; the checkpoint's by default.
        progress: As in `merge_to_directory`.
    """
    recipe = Recipe(merge_method="linear", models=(ModelEntry(model=model, parameters={"weight": 1.0}),), dtype=dtype)
    merge_to_directory(recipe, Models.open([recipe], Path.cwd()), destination, progress=progress)


def _checked(plan: MergePlan, models: Models, name: str) -> torch.Tensor:
    merged = plan.merge(name)
    if merged.numel() == 0:
        return merged.to(plan.dtype)
    low, high = torch.aminmax(merged)  # propagates NaN, so one pass finds NaN, infinity and overflow
    bound = torch.finfo(plan.dtype).max
    if not (low >= -bound and high <= bound):
        for label, source in models.sources.items():
            require_finite(source.read(name), model=label, name=name)
            if (delta := source.delta(name)) is not None:
                require_finite(delta.dense(), model=label, name=name)
        raise CheckpointError(
            f"tensor {name!r} merges to values between {low.item():.4g} and {high.item():.4g}, which overflow "
            f"{str(plan.dtype).removeprefix('torch.')} (±{bound:.4g}). Choose a wider out_dtype or smaller weights."
        )
    return merged.to(plan.dtype)


def _own_template(recipe: Recipe) -> str | None:
    return None if recipe.chat_template == "auto" else recipe.chat_template
