"""The recipe of every method that the benchmark of merging times."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from random_bunch import MODELS

_WEIGHT: dict[str, tuple[float, ...]] = {"weight": (0.5, 0.3, 0.2)}
_SPARSE = _WEIGHT | {"density": (0.5, 0.5, 0.5)}


@dataclass(frozen=True)
class Choice:
    """What a method merges, and with which coefficients.

    Attributes:
        of_each: Parameters of each merged model, in the order of `merged`.
        of_all: Parameters of the recipe.
        merged: The models under `models`.
        base: Whether the recipe has a base.
    """

    of_each: dict[str, tuple[float, ...]] = field(default_factory=dict)
    of_all: dict[str, float] = field(default_factory=dict)
    merged: tuple[str, ...] = MODELS[1:]
    base: bool = True


CHOICES = {
    "linear": Choice(_WEIGHT, base=False),
    "task_arithmetic": Choice(_WEIGHT),
    "slerp": Choice(of_all={"t": 0.4}, merged=MODELS[:2]),
    "model_stock": Choice(),
    "karcher": Choice(base=False),
    "ties": Choice(_SPARSE),
    "dare_ties": Choice(_SPARSE),
    "della": Choice(_SPARSE | {"epsilon": (0.15, 0.15, 0.15)}),
    "breadcrumbs": Choice(_SPARSE | {"gamma": (0.01, 0.01, 0.01)}),
    "sce": Choice(of_all={"select_topk": 0.5}),
}


def inputs(method: str) -> list[str]:
    """Return the models that a method reads, each once."""
    choice = CHOICES[method]
    return list(dict.fromkeys([*(MODELS[:1] if choice.base else ()), *choice.merged]))


def write_recipe(bunch: Path, method: str) -> Path:
    """Write the method's recipe for the models of a bunch into its directory."""
    choice = CHOICES[method]
    recipe: dict[str, Any] = {"merge_method": method, "dtype": "bfloat16"}
    if choice.base:
        recipe["base_model"] = MODELS[0]
    recipe["models"] = [
        {"model": name, "parameters": {key: values[number] for key, values in choice.of_each.items()}}
        for number, name in enumerate(choice.merged)
    ]
    if choice.of_all:
        recipe["parameters"] = choice.of_all
    path = bunch / f"{method}.yml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
