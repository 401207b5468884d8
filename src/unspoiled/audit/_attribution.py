"""Where the harm enters: CE_safety's gradient of the experts' weights in each layer, on the way from base to merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from unspoiled.audit._coalition_recipes import WEIGHT, weighted
from unspoiled.audit._layers import Layers
from unspoiled.config import Recipe
from unspoiled.inference import Exchange, LiveBunch, Progress, silent
from unspoiled.merging import MergePlan, Models, get_method

_NEAR = 2.0**-10  # of the way from the base
_MOST_LEFT = 0.05  # of the merge's distance from the base, that near to it


def why_no_attribution(recipe: Recipe, models: Models, base: str) -> str | None:
    """Return why a merge has no straight way from the base, in a phrase; None if it has one.

    The way is the merge with all weights multiplied by t from 0 to 1. Where a method divides by the sum of its weights
    t cancels out, and the merge does not come near the base as t goes to 0: that is tried on its smallest tensor which
    differs from the base's.

    Args:
        recipe: The merge, of whole models.
        models: The opened models.
        base: The base's model string.
    """
    if recipe.slices:
        return "slices have no weights of whole models"
    weight = [one for one in get_method(recipe.merge_method).parameters if one.name == WEIGHT and one.scope == "model"]
    if not weight or not weight[0].differentiable:
        return f"{recipe.merge_method} has no weights that it can be differentiated in"
    if recipe.base_model != base:
        return f"{recipe.merge_method} does not start from the base"
    exact = recipe.model_copy(update={"dtype": "float32", "out_dtype": "float32"})
    whole, near = MergePlan(exact, models), MergePlan(_scaled(exact, _NEAR), models)
    for tensor in sorted(whole.tensors.values(), key=lambda one: one.shape):
        if tensor.copied or 0 in tensor.shape:
            continue
        start = models.sources[base].read(tensor.name).float()
        distance = float(torch.linalg.vector_norm(tensor.merged() - start))
        if distance > 0.0:
            left = float(torch.linalg.vector_norm(near.tensors[tensor.name].merged() - start))
            if left <= _MOST_LEFT * distance:
                return None
            return f"{recipe.merge_method} with these settings divides by the sum of its weights"
    return "the merge is the base"


def attribution(
    live: LiveBunch,
    recipe: Recipe,
    experts: Mapping[str, str],
    exchanges: Sequence[Exchange],
    *,
    steps: int = 8,
    progress: Progress = silent,
) -> dict[str, list[float]]:
    """Return integrated gradients of the mean cross-entropy in the weight of each expert in each layer.

    With F(m) the loss of the merge whose weight of expert e in layer l is multiplied by m, for all e and l,
    A = ∫₀¹ ∂F/∂m(t, ..., t) dt, by the midpoint rule. Over experts and layers A sums up to F(1, ..., 1) − F(0, ..., 0),
    the merge's loss minus the base's, but for the rule's error.

    Args:
        live: The bunch in memory; holds some point of the way afterwards.
        recipe: The merge, for which `why_no_attribution` says nothing.
        experts: The model strings of its experts by name.
        exchanges: The prompts and responses, all alike: D_safety's.
        steps: Points of the way, at least 1.
        progress: Called with (points done, points in all).

    Returns:
        By expert, nats per token for each part of the model, in the order of `Layers.labels`.

    Source: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, arXiv 1703.01365.
    """
    plan = MergePlan(recipe, live.live.models)
    layers = Layers(list(plan.tensors))
    order = [entry.model for entry in recipe.models if entry.model != recipe.base_model]
    names = {model: name for name, model in experts.items()}
    sums = {name: dict.fromkeys(layers.labels, 0.0) for name in experts}
    weights = [1 / len(exchanges)] * len(exchanges)
    for step in range(steps):
        gradients = _gradients(live, _scaled(recipe, (step + 0.5) / steps), exchanges, weights)
        for tensor, found in gradients.items():
            own = plan.tensors[tensor].coefficients[WEIGHT]
            assert isinstance(own, list)
            for model, gradient, weight in zip(order, found, own, strict=True):
                sums[names[model]][layers.of(tensor)] += gradient * float(weight) / steps
        progress(step + 1, steps)
    return {name: list(own.values()) for name, own in sums.items()}


def layer_labels(models: Models) -> list[str]:
    """Return the parts of the models' architecture, as attributions go by them."""
    return Layers(list(models.output.shapes)).labels


def _scaled(recipe: Recipe, share: float) -> Recipe:
    return weighted(recipe, {entry.model: share for entry in recipe.models})


def _gradients(
    live: LiveBunch, recipe: Recipe, exchanges: Sequence[Exchange], weights: Sequence[float]
) -> dict[str, list[float]]:
    """Return each tensor's gradients of the loss in its weights; kept activations are let go of if memory is short."""
    backend = live.take_recipe(recipe)
    for checkpoint in (False, True):
        with live.live.recording_gradients({WEIGHT}) as found:
            try:
                backend.backward(exchanges, weights, checkpoint=checkpoint)
            except torch.OutOfMemoryError:
                if checkpoint:
                    raise
                continue  # what was recorded so far is gone with its context
            return {name: _values(own[WEIGHT]) for name, own in found.by_tensor.items()}
    raise AssertionError("both tries ended otherwise")


def _values(given: float | Sequence[float]) -> list[float]:
    assert not isinstance(given, float)
    return list(given)
