"""Merge disk to disk: blocks of rows into a staged directory that appears only when it is whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Lock

import torch
from torch import Tensor

from unspoiled.checkpoints import CheckpointWriter, ModelSource, finish_checkpoint, require_finite
from unspoiled.config import Dtype, ModelEntry, Recipe
from unspoiled.errors import CheckpointError, ResourceError
from unspoiled.files import check_free_space, staged_directory
from unspoiled.merging._blocks import PlannedTensor, as_matrix, matrix_shape
from unspoiled.merging._plan import MergePlan, Models

SHARD_SIZE = 5_000_000_000
"""The size of one safetensors file, in bytes, where the user doesn't say."""

MEMORY = 2 * 2**30
"""What a merge may take beside the interpreter, in bytes, where the user doesn't say."""

_SMALL_FILES = 50_000_000  # room for the tokenizer, configs and card beside the weights, in bytes


def merge_to_directory(
    recipe: Recipe,
    models: Models,
    destination: Path,
    *,
    tokenizer: Path | None = None,
    chat_template: str | None = None,
    files: dict[str, str] | None = None,
    shard_size: int = SHARD_SIZE,
    threads: int | None = None,
    memory: int = MEMORY,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the merged checkpoint of `recipe` to `destination`, all of it or nothing.

    The bytes written depend on the recipe and the inputs alone, not on threads or memory.

    Args:
        recipe: What to merge.
        models: The opened models that the recipe names.
        destination: A directory that is absent, empty, or an earlier output of this function.
        tokenizer: The directory to take the tokenizer from; the recipe's choice by default.
        chat_template: The merged model's template; the recipe's, else the tokenizer's own, by default.
        files: More text files to publish with the checkpoint, by name (the model card).
        shard_size: Largest size of one safetensors file, in bytes.
        threads: Tensors in flight; one for each processor by default.
        memory: Bytes that the tensors in flight may take in all; fewer are in flight where that is too little.
        progress: Called with (bytes done, bytes in all) after each block.

    Raises:
        CheckpointError: An input tensor is not finite, or a merged value overflows the output's dtype.
        ResourceError: The disk has too little room, or one block of a tensor takes more than `memory`.
    """
    plan = MergePlan(recipe, models, read=_read_rows)
    budget = _Budget(plan, memory)
    check_free_space(destination.parent, plan.nbytes + _SMALL_FILES)
    with staged_directory(destination) as staging:
        layout = {name: (tensor.dtype, tensor.shape) for name, tensor in plan.tensors.items()}
        with CheckpointWriter(staging, layout, shard_size=shard_size) as writer:
            _write_all(plan, models, writer, budget, threads or _processors(), progress)
        finish_checkpoint(
            staging,
            source=plan.reference,
            dtype=plan.dtype,
            recipe_yaml=recipe.to_yaml(),
            chat_template=chat_template if chat_template is not None else _own_template(recipe),
            extra=files,
            tie_word_embeddings=plan.tied,
            tokenizer=tokenizer or models.sources[recipe.tokenizer_donor].tokenizer_directory,
        )


def _write_all(
    plan: MergePlan,
    models: Models,
    writer: CheckpointWriter,
    budget: _Budget,
    threads: int,
    progress: Callable[[int, int], None],
) -> None:
    """Merge every tensor and write its blocks, `threads` tensors at a time, the largest first."""
    total, done = plan.nbytes, 0
    counting = Lock()

    def write(tensor: PlannedTensor) -> None:
        nonlocal done
        with budget.reserved(tensor):
            if math.prod(tensor.shape) == 0:
                writer.write(tensor.name, torch.empty(tensor.shape, dtype=tensor.dtype))
            for first, rows in tensor.merged_blocks():
                merged = _checked(tensor, rows, models)
                writer.write(tensor.name, merged, first=first)
                with counting:
                    done += merged.nbytes
                    progress(done, total)

    order = sorted(plan.tensors.values(), key=lambda tensor: (-math.prod(tensor.shape), tensor.name))
    own_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in [pool.submit(write, tensor) for tensor in order]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(own_threads)


class _Budget:
    """The memory that the tensors in flight share."""

    def __init__(self, plan: MergePlan, memory: int) -> None:
        self._free = memory
        self._changed = Condition()
        largest = max(plan.tensors.values(), key=_working_bytes)
        if _working_bytes(largest) > memory:
            raise ResourceError(
                f"merging {largest.name!r} {list(largest.shape)} by {plan.method.name!r} takes "
                f"{_working_bytes(largest) / 2**30:.2f} GiB, more than the {memory / 2**30:.2f} GiB allowed. "
                "Raise --memory."
            )

    @contextmanager
    def reserved(self, tensor: PlannedTensor) -> Iterator[None]:
        """Wait until the tensor fits, and hold its memory meanwhile."""
        wanted = _working_bytes(tensor)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def _working_bytes(tensor: PlannedTensor) -> int:
    """Return about how many bytes a block of the tensor takes while it is merged."""
    rows = max((stop - start for start, stop in tensor.row_ranges()), default=0)
    copies = 2 * len(tensor.inputs) + 6  # of every input in storage and in float32, and what a method makes of them
    width = matrix_shape(tensor.shape)[1]
    squares = (
        4 if any(not statistic.by_rows for statistic in tensor.method.statistics) else 0
    )  # [width, width], float64
    return rows * width * 4 * copies + squares * width * width * 8


def _read_rows(source: ModelSource, name: str, start: int, stop: int) -> Tensor:
    """Read rows into memory of their own; nothing of the file stays mapped."""
    shape = source.checkpoint.info(name).shape
    if len(shape) == 2:
        return source.read_rows(name, start, stop)
    if len(shape) < 2:
        return as_matrix(source.read_rows(name, 0, shape[0] if shape else 1))
    return as_matrix(source.read(name))[start:stop]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _checked(tensor: PlannedTensor, rows: Tensor, models: Models) -> Tensor:
    """Return merged rows in the output's dtype.

    Raises:
        CheckpointError: They aren't finite, or overflow.
    """
    if rows.numel() == 0 or not tensor.dtype.is_floating_point:
        return rows.to(tensor.dtype)
    low, high = torch.aminmax(rows)  # propagates NaN, so one pass finds NaN, infinity and overflow
    bound = torch.finfo(tensor.dtype).max
    if not (low >= -bound and high <= bound):
        _require_finite_inputs(tensor, models)
        raise CheckpointError(
            f"tensor {tensor.name!r} merges to values between {low.item():.4g} and {high.item():.4g}, which overflow "
            f"{str(tensor.dtype).removeprefix('torch.')} (±{bound:.4g}). Choose a wider out_dtype or smaller weights."
        )
    return rows.to(tensor.dtype)


def _require_finite_inputs(tensor: PlannedTensor, models: Models) -> None:
    labels = {id(source): label for label, source in models.sources.items()}
    for given in [*([tensor.base] if tensor.base else []), *tensor.inputs]:
        label = labels[id(given.source)]
        require_finite(given.source.read(given.name), model=label, name=given.name)
        if (delta := given.delta()) is not None:
            require_finite(delta.dense(), model=label, name=given.name)


def _own_template(recipe: Recipe) -> str | None:
    return None if recipe.chat_template == "auto" else recipe.chat_template
