"""One model of the bunch: a checkpoint, with or without a LoRA adapter on top."""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unspoiled.checkpoints._adapter import Adapter, LowRankDelta, open_adapter
from unspoiled.checkpoints._header import TensorInfo
from unspoiled.checkpoints._reader import Checkpoint, open_checkpoint
from unspoiled.checkpoints._reference import ModelRef, locate
from unspoiled.checkpoints._tying import says_tied, stored_head
from unspoiled.files import hash_value


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A model that a merge reads from.

    Attributes:
        ref: Its name.
        checkpoint: The full checkpoint; for a LoRA expert, the one that the adapter lies on.
        adapter: The LoRA adapter, or None for a full checkpoint.
    """

    ref: ModelRef
    checkpoint: Checkpoint
    adapter: Adapter | None = None

    @property
    def directory(self) -> Path:
        """The checkpoint's directory; the file itself for a model that is one safetensors file."""
        return self.checkpoint.directory

    @property
    def tokenizer_directory(self) -> Path:
        """Where to look for the tokenizer that this model was trained with: at the adapter's if it has one.

        Raw weights come without a tokenizer, so there may be none.
        """
        if self.adapter is not None and (self.adapter.directory / "tokenizer.json").exists():
            return self.adapter.directory
        return self.directory

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The checkpoint's tensors, sorted by name, without a tied head."""
        return self.checkpoint.tensors

    def read(self, name: str) -> Tensor:
        """Return the checkpoint's tensor in its storage dtype, without the adapter; tied names work too."""
        return self.checkpoint.read(name)

    def read_rows(self, name: str, start: int, stop: int, *, out: Tensor | None = None) -> Tensor:
        """Return rows [start, stop) of the checkpoint's tensor, without the adapter; see `Checkpoint.read_rows`."""
        return self.checkpoint.read_rows(name, start, stop, out=out)

    def delta(self, name: str) -> LowRankDelta | None:
        """Return what the adapter adds to a tensor, or None if nothing."""
        return None if self.adapter is None else self.adapter.deltas.get(name)

    def fingerprint(self) -> str:
        """Return a SHA-256 over the content of the checkpoint and of the adapter."""
        own = self.checkpoint.fingerprint()
        return own if self.adapter is None else hash_value([own, self.adapter.fingerprint()])


def open_model(ref: ModelRef, *, cache: MutableMapping[Path, Checkpoint] | None = None) -> ModelSource:
    """Open a model by name: locate (or download), check, and map it; no tensor is loaded.

    Args:
        ref: The model's name.
        cache: Opened checkpoints by resolved path. Give the same map for every model of a bunch, so that
            LoRA experts share one open base.

    Raises:
        CheckpointError: see `locate`, `open_checkpoint` and `open_adapter`.
    """
    path = locate(ref)
    key = path.resolve()
    checkpoint = cache.get(key) if cache is not None else None
    if checkpoint is None:
        checkpoint = open_checkpoint(path)
        if cache is not None:
            cache[key] = checkpoint
    adapter = None if ref.adapter is None else open_adapter(locate(ref.adapter), checkpoint)
    return ModelSource(ref, checkpoint, adapter)


@dataclass(frozen=True)
class OutputLayout:
    """The tensors of a merged model.

    Attributes:
        shapes: Every tensor to merge and write, by name.
        tied: Whether the merged model's output head is its input embedding. If it isn't, the head is among
            `shapes`, and tied models of the bunch answer `read(head)` with their embedding.
        copied: The dtypes of the integer and boolean tensors among `shapes`: they have no mean, so they are the
            same in every model (`preflight` checks that) and are copied as they are.
    """

    shapes: Mapping[str, tuple[int, ...]]
    tied: bool
    copied: Mapping[str, torch.dtype] = field(default_factory=dict)

    def with_dtype(self, dtype: torch.dtype) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Return the layout that `CheckpointWriter` takes: all tensors in one dtype but those that are copied."""
        return {name: (self.copied.get(name, dtype), shape) for name, shape in self.shapes.items()}

    def nbytes(self, dtype: torch.dtype) -> int:
        """Return the size of all tensors in bytes."""
        return sum(stored.itemsize * prod(shape) for stored, shape in self.with_dtype(dtype).values())


def output_layout(models: Iterable[ModelSource]) -> OutputLayout:
    """Return the tensors of the models' merge: tied if every model is, untied if at least one isn't.

    An untied head can't be expressed in a tied model, while a tied one can be written out; so one untied
    expert unties the merge. Pass the result's `tied` on to `finish_checkpoint`.

    Args:
        models: The base and the experts, of one architecture (`preflight` checks that).
    """
    models = list(models)
    tensors: dict[str, TensorInfo] = {}
    for model in models:
        tensors.update(model.tensors)
    shapes = {name: info.shape for name, info in sorted(tensors.items())}
    copied = {name: info.dtype for name, info in sorted(tensors.items()) if not info.dtype.is_floating_point}
    tied = all(_is_tied(model.checkpoint) for model in models)
    return OutputLayout(MappingProxyType(shapes), tied, MappingProxyType(copied))


def _is_tied(checkpoint: Checkpoint) -> bool:
    """Tell whether a model is tied, also one whose embedding has a name that `tied_names` doesn't know."""
    return bool(checkpoint.aliases) or (
        says_tied(checkpoint.config) is True and stored_head(checkpoint.tensors) is None
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config that describes the language model (`text_config` in composite models)."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config
