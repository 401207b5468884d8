"""One model in memory that writes and scores as any model of a bunch, or as any recipe of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unspoiled.checkpoints import ModelSource, chat_template
from unspoiled.config import Recipe
from unspoiled.inference._capacity import BatchSize
from unspoiled.inference._load import load_chat_template, load_generation_config, load_model
from unspoiled.inference.transformers import TransformersBackend
from unspoiled.merging import LiveModel, Models


class LiveBunch:
    """The models of a bunch behind one set of weights in memory.

    Args:
        models: The opened models, all of one architecture and vocabulary.
        reference: The model whose config builds the module (the base).
        merged_template: The directory whose tokenizer and chat template merged models use (the safety
            expert's).
        dtype: The dtype of the weights in memory; with the recipes' output dtype, the weights are those that
            a merge to disk would write.
        device: A torch device.
        batch_size: Most sequences written to at once; `auto` for as many as the free memory holds.
    """

    def __init__(
        self,
        models: Models,
        reference: ModelSource,
        *,
        merged_template: Path,
        dtype: torch.dtype,
        device: str = "cpu",
        batch_size: BatchSize = 48,
    ) -> None:
        self._module = load_model(reference.directory, dtype=dtype, device=device)
        self.live = LiveModel(self._module, models)
        self._reference = reference.directory
        self._merged_template = merged_template
        self._batch_size = batch_size
        self._backends: dict[tuple[Path, Path], tuple[Any, TransformersBackend]] = {}

    def take_model(self, source: ModelSource) -> TransformersBackend:
        """Become one model, under its own chat template; a model without one gets the merged model's."""
        self.live.take_model(source)
        own = source.tokenizer_directory
        return self._backend(self._merged_template if chat_template(own) is None else own, source.directory)

    def take_recipe(self, recipe: Recipe) -> TransformersBackend:
        """Become the merge of a recipe, under the merged model's chat template."""
        self.live.take_recipe(recipe)
        return self._backend(self._merged_template, self._reference)

    def _backend(self, template: Path, model: Path) -> TransformersBackend:
        """Return the backend under the template of a directory, kept with the batch size that fits in memory.

        The module gets the model's generation config too: what ends a response differs among models of one shape.
        """
        if (template, model) not in self._backends:
            self._module.generation_config = load_generation_config(template, model)
            backend = TransformersBackend(self._module, load_chat_template(template), batch_size=self._batch_size)
            self._backends[template, model] = self._module.generation_config, backend
        self._module.generation_config, found = self._backends[template, model]
        return found
