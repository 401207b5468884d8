"""Models in memory: which of them fit behind one set of weights, and what their answers depend on."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from unspoiled.checkpoints import ModelSource, chat_template, hash_tokenizer
from unspoiled.config import Dtype, RuntimeConfig
from unspoiled.files import hash_file, hash_value
from unspoiled.inference import LiveBunch, TransformersBackend
from unspoiled.merging import DTYPES, Models
from unspoiled.pipeline._device import compute_dtype, device_of

_NO_ARCHITECTURE = frozenset(
    {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
    | {"bos_token_id", "eos_token_id", "pad_token_id"}
)
_SETTINGS = ("config.json", "generation_config.json")


def load_live(
    runtime: RuntimeConfig, weights: Dtype, models: Models, reference: ModelSource, template: Path
) -> LiveBunch:
    """Return models in memory, as the config says what for a machine this is.

    Args:
        runtime: The machine.
        weights: The dtype of the weights.
        models: The models.
        reference: The one whose config builds the module.
        template: The directory whose chat template merged models use, and models without one.
    """
    return LiveBunch(
        models,
        reference,
        merged_template=template,
        dtype=DTYPES[compute_dtype(runtime, weights)],
        device=device_of(runtime),
        batch_size=runtime.batch_size,
    )


class Memory:
    """Models that need have nothing in common, one at a time in memory.

    A model of the same architecture and shapes as the one before takes over its memory.

    Args:
        runtime: The machine.
        weights: The dtype of the weights.
        template: The directory whose chat template is used for models that have none; None for no such directory.
    """

    def __init__(self, runtime: RuntimeConfig, weights: Dtype, template: Path | None = None) -> None:
        self._runtime, self._weights, self._template = runtime, weights, template
        self._held: tuple[ModelSource, Models, LiveBunch] | None = None

    def take(self, source: ModelSource) -> TransformersBackend:
        """Return a model, under its own chat template or else the given one.

        Raises:
            CheckpointError: It has no chat template, and none was given; or it can't be loaded.
        """
        if self._held is None or not is_alike(source, self._held[0], self._held[1]):
            self._held = None  # before the next is loaded: two may not fit
            models = Models({str(source.ref): source})
            template = self._template or source.tokenizer_directory
            self._held = source, models, load_live(self._runtime, self._weights, models, source, template)
        return self._held[2].take_model(source)

    def identity(self, source: ModelSource) -> str:
        """Return a hash of all that a model's answers depend on: weights, tokenizer, chat template, arithmetic."""
        return model_identity(source, self._template, self._runtime, self._weights)


def model_identity(source: ModelSource, template: Path | None, runtime: RuntimeConfig, dtype: Dtype) -> str:
    """Return a hash of all that a model's own answers depend on: see `answers_identity`.

    Args:
        source: The model.
        template: The directory whose chat template it uses if it has none.
        runtime: The machine.
        dtype: The dtype of the weights.
    """
    own = source.tokenizer_directory
    borrowed = template if chat_template(own) is None else None
    return answers_identity(source.fingerprint(), [source.directory, borrowed or own], runtime, dtype)


def answers_identity(weights: str, folders: list[Path], runtime: RuntimeConfig, dtype: Dtype) -> str:
    """Return a hash of all that a model's answers depend on, the libraries that compute them included.

    Args:
        weights: A hash of its weights, or of what they are computed from.
        folders: Where its settings, tokenizer and chat template are.
        runtime: The machine.
        dtype: The dtype of the weights.
    """
    libraries = [torch.__version__, transformers.__version__]
    return hash_value([weights, _hash_of_folders(folders), compute_dtype(runtime, dtype), *libraries])


def is_alike(source: ModelSource, reference: ModelSource, models: Models) -> bool:
    """Say whether a model can take the place of `reference` in memory, among whose `models` it need not be."""
    shapes = {name: info.shape for name, info in source.tensors.items()}
    return _architecture(source) == _architecture(reference) and shapes == dict(models.output.shapes)


def _architecture(source: ModelSource) -> dict[str, object]:
    """Return what a model's config says of its computation, and not of its file or its tokens."""
    return {k: v for k, v in source.checkpoint.config.items() if k not in _NO_ARCHITECTURE}


def hash_of_settings(source: ModelSource) -> str:
    """Return a hash of what a model's answers depend on beside its weights: its tokenizer, chat template, settings."""
    return _hash_of_folders([source.directory, source.tokenizer_directory])


def _hash_of_folders(folders: list[Path]) -> str:
    paths = [folder / name for folder in set(folders) for name in _SETTINGS if (folder / name).is_file()]
    settings = sorted([path.name, hash_file(path)] for path in paths)
    return hash_value([settings, sorted(map(hash_tokenizer, set(folders)))])
