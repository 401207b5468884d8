"""A recipe's method and parameters: what can be checked without its models, and what values may be."""

from __future__ import annotations

import difflib

import torch

from unspoiled.config import Recipe
from unspoiled.errors import ConfigError
from unspoiled.merging._method import Method, Parameter, Value, get_method

_LARGEST = torch.finfo(torch.float32).max


def require_known_names(recipe: Recipe) -> Method:
    """Return the recipe's method, which knows all of its parameters and has the base that it needs.

    Raises:
        ConfigError: The method or a parameter is unknown or misplaced, or no base is named.
    """
    method = get_method(recipe.merge_method)
    if method.base == "required" and any(recipe.slice_base(index) is None for index in range(recipe.slice_count)):
        raise ConfigError(f"merge_method {method.name!r} needs a base_model: name the common ancestor.")
    known = {parameter.name: parameter for parameter in method.parameters}
    shared = [("the recipe", recipe.parameters)]
    shared += [(f"slice {index}", part.parameters) for index, part in enumerate(recipe.slices)]
    own = [
        (f"model {source.model!r}", source.parameters)
        for index in range(recipe.slice_count)
        for source in recipe.slice_sources(index)
    ]
    for place, name in [(place, name) for place, given in [*shared, *own] for name in given]:
        if name in method.ignored:
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"{place} sets {name!r}, which {method.name!r} does not take.{hint} "
                f"It takes: {', '.join(known) or 'no parameters'}."
            )
    for place, name in [(place, name) for place, given in own for name in given]:
        if name in known and known[name].scope == "merge":
            raise ConfigError(f"{place} sets {name!r}, which holds for the whole merge: move it to the top.")
    return method


def checked_value(parameter: Parameter, value: Value, where: str) -> Value:
    """Return a parameter's value as its kind; `where` begins the message of one that it can't be.

    Raises:
        ConfigError: It is of another kind, or out of range.
    """
    if parameter.kind == "switch":
        if value not in (0, 1):
            raise ConfigError(f"{where} is {value!r}: it must be true or false.")
        return bool(value)
    if isinstance(value, bool):
        raise ConfigError(f"{where} is {str(value).lower()}: it must be a number.")
    if parameter.kind == "whole number":
        if value != int(value):
            raise ConfigError(f"{where} is {value!r}: it must be a whole number.")
        value = int(value)
    if abs(value) > _LARGEST and parameter.kind == "number":
        raise ConfigError(f"{where} is {value!r}: it must lie within float32's range, ±{_LARGEST:.4g}.")
    if not parameter.low <= value <= parameter.high:
        raise ConfigError(f"{where} is {value!r}: it must lie between {parameter.low} and {parameter.high}.")
    return value
