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

from unspoiled.checkpoints import (
    SMALL_FILES_BYTES,
    CheckpointWriter,
    ModelSource,
    choose_chat_template,
    finish_checkpoint,
    require_finite,
    tokenizer_findings,
    write_tokenizer,
)
from unspoiled.config import Dtype, ModelEntry, Recipe
from unspoiled.errors import CheckpointError, PreflightError, ResourceError
from unspoiled.files import check_free_space, staged_directory
from unspoiled.merging._blocks import PlannedTensor
from unspoiled.merging._buffers import kept_buffers
from unspoiled.merging._device import DeviceRows, free_memory, full_float32, rows_on
from unspoiled.merging._fitting import require_apart
from unspoiled.merging._plan import MergePlan, Models, merged_names
from unspoiled.merging._rows import matrix_shape

SHARD_SIZE = 5_000_000_000
"""The size of one safetensors file, in bytes, where the user doesn't say."""

MEMORY = 2 * 2**30
"""What a merge may take beside the interpreter, in bytes, where the user doesn't say."""


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
    device: str = "cpu",
    recipe_yaml: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, ...]:
    """Write the merged checkpoint of `recipe` to `destination`, all of it or nothing.

    The bytes written depend on the recipe and the inputs alone, not on threads or memory. On a CUDA device the
    arithmetic is float32 too (never TF32), and random methods draw the same entries, but sums are taken in another
    order: the weights agree with the CPU's within float32 rounding, not bit for bit. Where rounding decides a discrete
    choice (the sign that a sum of nearly zero elects, say), an entry may differ by more.

    Args:
        recipe: What to merge.
        models: The opened models that the recipe names.
        destination: A directory that is absent, empty, or an earlier output of this function.
        tokenizer: The directory to take the tokenizer from; the recipe's choice by default.
        chat_template: The merged model's template; the recipe's, else the tokenizer's own, by default.
        files: More text files to publish with the checkpoint, by name (the model card).
        shard_size: Largest size of one safetensors file, in bytes.
        threads: Tensors in flight; by default one for each processor, or one on a CUDA device.
        memory: Bytes that the tensors in flight may take in all in the CPU's memory; fewer are in flight where that is
            too little.
        device: Where to merge: `cpu`, `cuda` or `cuda:N`.
        recipe_yaml: What to record as the recipe; the recipe itself by default.
        progress: Called with (bytes done, bytes in all) after each block.

    Returns:
        What a person should know of the models' tokens and chat templates, and of what was done about them.

    Raises:
        RunDirectoryError: `destination` is, holds or lies in an input, or holds what isn't ours.
        ConfigError: See `MergePlan`; or there is no device of such a name.
        PreflightError: See `MergePlan`; or models' vocabularies differ, and the recipe doesn't say what to do.
        CheckpointError: An input tensor is not finite, or a merged value overflows the output's dtype.
        ResourceError: The disk has too little room, one block of a tensor takes more than `memory` or than what is
            free on the device, or this machine lacks the device.
    """
    rows = rows_on(device)
    require_apart(models.sources, destination)
    plan = MergePlan(recipe, models, read=rows or ModelSource.read_rows)
    notes = _token_notes(recipe, models) if plan.vocabulary is None else plan.vocabulary.notes
    threads = threads or (_processors() if rows is None else 1)
    if rows is None:
        budget = _Budget(plan, memory, _working_bytes)
    else:
        _require_device_memory(plan, rows, threads)
        budget = _Budget(plan, memory, _staging_bytes)
    check_free_space(destination.parent, plan.nbytes + SMALL_FILES_BYTES)
    with staged_directory(destination) as staging:
        layout = {name: (tensor.dtype, tensor.shape) for name, tensor in plan.tensors.items()}
        with kept_buffers(), full_float32(), CheckpointWriter(staging, layout, shard_size=shard_size) as writer:
            _write_all(plan, models, writer, budget, threads, rows, progress)
        donor = tokenizer or models.sources[recipe.tokenizer_donor].tokenizer_directory
        if plan.vocabulary is not None:
            write_tokenizer(plan.vocabulary, staging)
        directories = {name: source.tokenizer_directory for name, source in models.sources.items()}
        finish_checkpoint(
            staging,
            source=plan.reference,
            dtype=plan.dtype,
            recipe_yaml=recipe_yaml or recipe.to_yaml(),
            chat_template=chat_template or _chosen_template(recipe, directories, donor),
            extra=files,
            tie_word_embeddings=plan.tied,
            tokenizer=donor if plan.vocabulary is None else staging,
            config=plan.config,
        )
    return notes


def _token_notes(recipe: Recipe, models: Models) -> tuple[str, ...]:
    """Return how the models' special tokens and templates differ from those of the tokenizer's donor.

    Raises:
        PreflightError: Their vocabularies differ, so that one row of the embedding means several tokens.
    """
    donor = models.sources[recipe.tokenizer_donor]
    problems, notes = [], []
    for name in merged_names(recipe):
        differing, further = tokenizer_findings(name, donor, models.sources[name])
        problems += differing
        notes += further
    if problems:
        raise PreflightError(
            "\n".join(problems) + "\nSay in the recipe which tokens the merged model has: "
            "`tokenizer: {source: union}`, `base`, or one of the models."
        )
    return tuple(notes)


def _chosen_template(recipe: Recipe, directories: dict[str, Path], donor: Path) -> str | None:
    """Return the template that the recipe chooses among its models' or by itself; None keeps the donor's files."""
    if recipe.chat_template is None:
        return None
    chosen = {name: directories[name] for name in recipe.model_names}
    return choose_chat_template(recipe.chat_template, chosen, donor)


def _write_all(
    plan: MergePlan,
    models: Models,
    writer: CheckpointWriter,
    budget: _Budget,
    threads: int,
    device: DeviceRows | None,
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
                merged = merged if device is None else device.fetch(merged)
                writer.write(tensor.name, merged, first=first)
                with counting:
                    done += merged.nbytes
                    progress(done, total)

    order = sorted(plan.tensors.values(), key=lambda tensor: (-math.prod(tensor.shape), tensor.name))
    own_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=_start_worker, initargs=(device,))
    try:
        for future in [pool.submit(write, tensor) for tensor in order]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(own_threads)


def _start_worker(device: DeviceRows | None) -> None:
    torch.set_num_threads(1)
    if device is not None:
        device.enter_thread()


class _Budget:
    """The memory that the tensors in flight share.

    Args:
        plan: The merge.
        memory: Bytes in all.
        needed: How many of them a tensor takes.
    """

    def __init__(self, plan: MergePlan, memory: int, needed: Callable[[PlannedTensor], int]) -> None:
        self._free = memory
        self._needed = needed
        self._changed = Condition()
        largest = max(plan.tensors.values(), key=needed)
        if needed(largest) > memory:
            raise ResourceError(f"{_demand(largest, needed(largest), memory, 'allowed')} Raise --memory.")

    @contextmanager
    def reserved(self, tensor: PlannedTensor) -> Iterator[None]:
        """Wait until the tensor fits, and hold its memory meanwhile."""
        wanted = self._needed(tensor)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


def _require_device_memory(plan: MergePlan, rows: DeviceRows, threads: int) -> None:
    """Refuse a merge whose largest blocks don't fit on the device.

    Raises:
        ResourceError: They don't.
    """
    free = free_memory(rows.device)
    largest = max(plan.tensors.values(), key=_device_bytes)
    if threads * _device_bytes(largest) > free:
        raise ResourceError(
            f"{_demand(largest, threads * _device_bytes(largest), free, f'free on {rows.device}')} "
            f"{'Lower --threads, choose' if threads > 1 else 'Choose'} another GPU, or merge with --device cpu."
        )


def _demand(tensor: PlannedTensor, needed: int, given: int, what: str) -> str:
    return (
        f"merging {tensor.name!r} {list(tensor.shape)} by {tensor.method.name!r} takes {needed / 2**20:,.0f} MiB, more "
        f"than the {given / 2**20:,.0f} MiB {what}."
    )


def _working_bytes(tensor: PlannedTensor) -> int:
    """Return about how many bytes a block of the tensor takes while it is merged."""
    copies = 2 * len(tensor.inputs) + 6  # of every input in storage and in float32, and what a method makes of them
    width = matrix_shape(tensor.shape)[1]
    return _block_bytes(tensor) * copies + tensor.method.squares * width * width * 4


def _staging_bytes(tensor: PlannedTensor) -> int:
    """Return about how many bytes of the CPU's memory a tensor takes that is merged on a device."""
    squares = sum(not statistic.by_rows for statistic in tensor.method.statistics)
    width = matrix_shape(tensor.shape)[1]
    # two blocks of the inputs and the base, the result, the draws of random methods, and statistics of the rows
    return _block_bytes(tensor) * (3 * len(tensor.inputs) + 4) + squares * width * width * 4


def _device_bytes(tensor: PlannedTensor) -> int:
    """Return about how many bytes of a device's memory a tensor takes: the block at work, and the next one's rows."""
    products = 2 * len(tensor.inputs) + 2  # whole blocks in float64, of methods that need inner products
    return _working_bytes(tensor) + _block_bytes(tensor) * (len(tensor.inputs) + 1 + products)


def _block_bytes(tensor: PlannedTensor) -> int:
    """Return the size of the tensor's largest block in float32."""
    rows = max((stop - start for start, stop in tensor.row_ranges()), default=0)
    return rows * matrix_shape(tensor.shape)[1] * 4


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
