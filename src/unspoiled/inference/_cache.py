"""The attention cache of a batch: rows leave it, others join, and columns that nobody needs are cut."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

_CACHE_NAMES = ("cache", "past_key_values", "cache_params")  # the last: state space models before transformers 5.24


def new_cache(model: Any) -> Any:
    """Return an empty attention cache for the model's architecture."""
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """Return a cache by the name that the model's forward gives it, which differs between versions of transformers."""
    names = inspect.signature(model.forward).parameters
    return {next((name for name in _CACHE_NAMES if name in names), "past_key_values"): cache}


def keeps_all(model: Any) -> bool:
    """Say whether every layer keeps the keys and values of all it has seen, and nothing else.

    Only then is a cache the same thing as its columns: many sequences can continue it, and two can become one.
    """
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in new_cache(model).layers)


def has_columns(cache: Any) -> bool:
    """Say whether any layer keeps keys and values of what it has seen, and not a state alone."""
    return any(hasattr(layer, "keys") for layer in cache.layers)


def keep_rows(cache: Any, rows: Tensor) -> None:
    """Let all rows leave but those of the indices."""
    for layer in cache.layers:
        if hasattr(layer, "batch_select_indices"):
            layer.batch_select_indices(rows)
        else:  # a recurrent state
            layer.reorder_cache(rows)


def cut_columns(cache: Any, start: int, end: int) -> None:
    """Drop the columns from `start` to `end` of a cache that keeps all."""
    for layer in cache.layers:
        layer.keys, layer.values = (
            torch.cat([each[:, :, :start], each[:, :, end:]], dim=2) for each in (layer.keys, layer.values)
        )


def join(cache: Any, other: Any, shared: int) -> None:
    """Add the rows of another cache; both keep all, and `other` is used up.

    The narrower of the two gets columns of zeros after the first `shared` columns, to be masked.
    """
    for layer, added in zip(cache.layers, other.layers, strict=True):
        layer.keys = _stacked(layer.keys, added.keys, shared)
        added.keys = None  # layer by layer, so that no more than one is held twice
        layer.values = _stacked(layer.values, added.values, shared)
        added.values = None


def _stacked(first: Tensor, second: Tensor, shared: int) -> Tensor:
    """Return the rows of both [rows, heads, columns, width]."""
    columns = max(first.shape[2], second.shape[2])
    stacked = first.new_zeros(len(first) + len(second), first.shape[1], columns, first.shape[3])
    for rows, part in ((stacked[: len(first)], first), (stacked[len(first) :], second)):
        rows[:, :, :shared] = part[:, :, :shared]
        rows[:, :, columns - (part.shape[2] - shared) :] = part[:, :, shared:]
    return stacked


def cache_bytes(cache: Any) -> int:
    """Return the bytes of all tensors that a cache holds."""
    found: dict[int, int] = {}
    waiting: list[Any] = [vars(layer) for layer in cache.layers]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            found[id(value)] = value.nbytes
        elif isinstance(value, dict):
            waiting += value.values()
    return sum(found.values())
