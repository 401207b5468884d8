"""Models of a run in vLLM's offline engine, which reads whole checkpoints alone."""

from __future__ import annotations

from pathlib import Path

from unspoiled.checkpoints import ModelSource
from unspoiled.config import Dtype
from unspoiled.files import MANIFEST_NAME
from unspoiled.inference import Generator
from unspoiled.inference.vllm import open_vllm
from unspoiled.merging import materialize


def open_in_vllm(source: ModelSource, folder: Path, dtype: Dtype) -> Generator:
    """Return a model in an engine of vLLM's; one with an adapter is written out as a full checkpoint, once.

    Args:
        source: The model.
        folder: Where full checkpoints are kept, by their content.
        dtype: What is computed in, and written out.

    Raises:
        CheckpointError: The model has no tokenizer or chat template.
        ResourceError: vLLM isn't installed, or there is no room on the disk.
    """
    directory = source.directory
    if source.adapter is not None:
        directory = folder / source.fingerprint()[:16]
        if not (directory / MANIFEST_NAME).exists():
            materialize(str(source.ref), directory, dtype=dtype)
    return open_vllm(directory, dtype=dtype)
