"""Recipes and models for the tests of merging, in one line each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from unspoiled.config import ModelEntry, Recipe
from unspoiled.merging import MergePlan, Models


def recipe(method: str, weights: Mapping[str, Any], base: object = None, **options: Any) -> Recipe:
    """Return a recipe of models with one `weight` each; `options` are the recipe's other keys."""
    models = tuple(
        ModelEntry(model=model, parameters={} if weight is None else {"weight": weight})
        for model, weight in weights.items()
    )
    return Recipe(merge_method=method, base_model=None if base is None else str(base), models=models, **options)


def opened(*recipes: Recipe) -> Models:
    return Models.open(recipes, Path.cwd())


def merged(wanted: Recipe) -> dict[str, torch.Tensor]:
    """Return every merged tensor, in float32."""
    plan = MergePlan(wanted, opened(wanted))
    return {name: tensor.merged() for name, tensor in plan.tensors.items()}


def loaded(path: Path, dtype: torch.dtype | str = "auto") -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
