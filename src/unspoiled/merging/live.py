"""Merge in memory: one model, re-merged in place for every trial, nothing written or loaded between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unspoiled.checkpoints import ModelSource, require_finite
from unspoiled.config import Recipe
from unspoiled.errors import PreflightError
from unspoiled.merging._operands import AdaptedTensor
from unspoiled.merging._plan import MergePlan, Models


class LiveModel:
    """One model in memory that takes on the weights of any recipe, or of any of its inputs.

    Tensors that no input changes are left alone from one recipe to the next. The weights are those that
    `merge_to_directory` would write, cast to the dtype of the model in memory.

    Args:
        model: A module of the models' architecture; its parameters are overwritten.
        models: The opened models that the recipes name.

    Raises:
        PreflightError: A checkpoint tensor has no parameter of its name in the module.
    """

    def __init__(self, model: nn.Module, models: Models) -> None:
        self.model = model
        self.models = models
        _tie(model, models.output.tied)
        self._tensors = {
            **dict(model.named_buffers(remove_duplicate=False)),
            **dict(model.named_parameters(remove_duplicate=False)),
        }
        self._holds: dict[str, object] = {}
        strangers = sorted(models.output.shapes.keys() - self._tensors.keys())
        if strangers:
            raise PreflightError(
                f"{len(strangers)} checkpoint tensors have no parameter of their name in "
                f"{type(model).__name__}: {strangers[:3]}. The live engine can't search this architecture; "
                "merge it from a recipe with `unspoiled merge`."
            )

    @torch.no_grad()
    def take_recipe(self, recipe: Recipe) -> None:
        """Merge `recipe` into the model in place."""
        plan = MergePlan(recipe, self.models)
        for name, tensor in plan.tensors.items():
            common = ("common", str(plan.reference.directory), name) if tensor.copied else None
            if common is None or self._holds.get(name) != common:
                self._tensors[name].copy_(tensor.merged())
            self._holds[name] = common

    @torch.no_grad()
    def take_model(self, source: ModelSource) -> None:
        """Put the weights of one model, with its adapter, into the model in place.

        Raises:
            CheckpointError: A tensor has NaN or Inf, which would pass for a model that answers nonsense.
        """
        for name in self.models.output.shapes:
            common = ("common", str(source.directory), name) if source.delta(name) is None else None
            if common is None or self._holds.get(name) != common:
                weights = _dense_weights(source, name)
                require_finite(weights, model=str(source.ref), name=name)
                self._tensors[name].copy_(weights)
            self._holds[name] = common


def _dense_weights(source: ModelSource, name: str) -> Tensor:
    """Return one model's own tensor, its adapter added in float32 (in storage dtype where there is none)."""
    weights, delta = source.read(name), source.delta(name)
    return weights if delta is None else AdaptedTensor(weights, delta).dense()


def _tie(model: nn.Module, tied: bool) -> None:
    """Make the output head and the input embedding one parameter, or two, as the merge has it.

    One untied model of a bunch unties the merge. A tied one may come with a stored copy of its head, which
    would otherwise keep its first values for ever.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    if head is None:
        return
    if tied:
        head.weight = embedding.weight
    elif head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
