"""The recipe of some of a merge's experts, and of all with other weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from unspoiled.config import FilteredValue, ModelEntry, ParameterValue, Recipe
from unspoiled.errors import ConfigError
from unspoiled.merging import MergePlan, Models, get_method

WEIGHT = "weight"
_ADDS_NOTHING = {WEIGHT: 0.0, "safety": 0}
"""What makes a model of a random method add nothing; the role, since RESTA multiplies models of one by γ instead."""
_NEAR_ZERO = 1e-6  # of weights' magnitudes: a sum this small may be zero to a method that divides by it


def alone(recipe: Recipe, model: str) -> Recipe:
    """Return the recipe of one model as it is, in the output dtype of another recipe."""
    entry = ModelEntry(model=model, parameters={WEIGHT: 1.0})
    return Recipe(merge_method="linear", models=(entry,), dtype=recipe.dtype, out_dtype=recipe.out_dtype)


def coalition(recipe: Recipe, members: Collection[str], *, base: str, models: Models) -> Recipe:
    """Return the merge of some of a recipe's experts: the others are left out, and nothing else is changed.

    A random method draws for each expert by its place among the models. So there the others keep their places, with
    weight zero, which is the same as leaving them out: else those who are left would be drawn anew.

    Where nobody is left, or nobody with a weight, or the method refuses those who are (their weights sum to zero, and
    it divides by the sum), it is the base. Where one is left and the method merges at least two, or walks from one
    expert to another (`slerp`), it is that expert alone. A method that divides by the sum of its weights divides by
    that of those who are left, as it would have without the others.

    Args:
        recipe: The whole merge, of whole models.
        members: The model strings of those who are left; strangers to the recipe count for nothing.
        base: The model string of the common ancestor, who is no expert and is always in.
        models: The opened models that the recipe names.

    Raises:
        ConfigError: The recipe has slices, or several experts are left and the method merges more.
    """
    _require_whole_models(recipe)
    players = [model for model in experts_of(recipe) if model != base]
    left = [model for model in players if model in members]
    if len(left) == len(players):
        return recipe
    if not left or (has_weights(recipe) and not any(_weighs(recipe, model) for model in left)):
        return alone(recipe, base)
    entries = tuple(entry for entry in recipe.models if entry.model == base or entry.model in left)
    operands = [entry for entry in entries if entry.model != recipe.base_model]
    origin_left = recipe.base_model in (None, base) or recipe.base_model in left
    if origin_left and len(operands) >= max(1, get_method(recipe.merge_method).experts[0]):
        kept = _silenced(recipe, [base, *left]) if _is_random(recipe) else entries
        found = recipe.model_copy(update={"models": kept})
        return alone(recipe, base) if _is_refused(found, models) else found
    if len(left) == 1:
        return alone(recipe, left[0])
    raise ConfigError(
        f"{recipe.merge_method!r} merges at least {get_method(recipe.merge_method).experts[0]} models, so that the "
        f"merge of {', '.join(map(repr, left))} alone can't be audited: set `audit.enabled: false`, or choose another "
        "method."
    )


def experts_of(recipe: Recipe) -> list[str]:
    """Return the model strings whose weights a recipe merges, each once: its models, and the base it starts from."""
    named = [*([recipe.base_model] if recipe.base_model is not None else []), *(entry.model for entry in recipe.models)]
    return list(dict.fromkeys(named))


def has_weights(recipe: Recipe) -> bool:
    """Say whether a recipe's method has a weight for each model."""
    return any(one.name == WEIGHT and one.scope == "model" for one in get_method(recipe.merge_method).parameters)


def weighted(recipe: Recipe, factors: Mapping[str, float]) -> Recipe:
    """Return a recipe with some models' weights multiplied by a factor, in every layer and tensor.

    A model's weight may be a number, a list over the layers or filters; where it has none of its own, its entry gets
    the recipe's, or the method's default, times the factor.

    Args:
        recipe: A recipe of whole models, whose method has weights.
        factors: By model string; the others' weights stay.

    Raises:
        ConfigError: The recipe has slices, or its method no weights.
    """
    _require_whole_models(recipe)
    if not has_weights(recipe):
        raise ConfigError(f"{recipe.merge_method!r} has no weights to change.")
    entries = tuple(
        entry.model_copy(update={"parameters": _multiplied(recipe, entry, factors[entry.model])})
        if entry.model in factors
        else entry
        for entry in recipe.models
    )
    return recipe.model_copy(update={"models": entries})


def _is_random(recipe: Recipe) -> bool:
    """Say whether a recipe's method draws random numbers."""
    return any(one.name == "seed" for one in get_method(recipe.merge_method).parameters)


def _silenced(recipe: Recipe, heard: Collection[str]) -> tuple[ModelEntry, ...]:
    """Return a recipe's models, of whom all but some add nothing."""
    known = {one.name for one in get_method(recipe.merge_method).parameters}
    nothing = {name: value for name, value in _ADDS_NOTHING.items() if name in known}
    return tuple(
        entry if entry.model in heard else entry.model_copy(update={"parameters": {**entry.parameters, **nothing}})
        for entry in recipe.models
    )


def _is_refused(recipe: Recipe, models: Models) -> bool:
    """Say whether a method refuses to merge the models that are left of a recipe.

    It is tried on the smallest tensor, where it would refuse roles that aren't filled, and on the smallest for each
    vector of weights that may sum to zero.
    """
    planned = MergePlan(recipe, models).tensors.values()
    merged = [tensor for tensor in planned if not tensor.copied and 0 not in tensor.shape]
    merged.sort(key=lambda tensor: math.prod(tensor.shape), reverse=True)
    weights = [tensor.coefficients.get(WEIGHT) for tensor in merged]
    cancelling = {repr(own): tensor for own, tensor in zip(weights, merged, strict=True) if _may_cancel(own)}
    try:
        for tensor in [*merged[-1:], *cancelling.values()]:
            tensor.merged()
    except ConfigError:
        return True
    return False


def _may_cancel(weights: object) -> bool:
    if not isinstance(weights, list):
        return False  # the method has none
    return abs(math.fsum(weights)) <= _NEAR_ZERO * math.fsum(map(abs, weights))


def _weighs(recipe: Recipe, model: str) -> bool:
    """Say whether a model has a weight other than zero anywhere; one that a merge starts from has."""
    entry = next((entry for entry in recipe.models if entry.model == model), None)
    if entry is None:
        return True
    values = [rule.value for rule in _weight_rules(recipe, entry)]
    return not values or any(any(value) if isinstance(value, tuple) else bool(value) for value in values)


def _weight_rules(recipe: Recipe, entry: ModelEntry) -> list[FilteredValue]:
    """Return an entry's weight as filters in order: its own, the recipe's, the method's default."""
    levels = [given.parameters[WEIGHT] for given in (entry, recipe) if WEIGHT in given.parameters]
    default = next(one.default for one in get_method(recipe.merge_method).parameters if one.name == WEIGHT)
    levels += [float(default)] if default is not None else []
    rules: list[FilteredValue] = []
    for level in levels:
        rules += _rules(level)
        if rules[-1].filter in (None, "*"):
            break  # it holds for every tensor
    return rules


def _multiplied(recipe: Recipe, entry: ModelEntry, factor: float) -> dict[str, ParameterValue]:
    """Return an entry's parameters with its weight times a factor."""
    rules = _weight_rules(recipe, entry)
    scaled = tuple(rule.model_copy(update={"value": _times(rule.value, factor)}) for rule in rules)
    if len(scaled) == 1 and scaled[0].filter is None:
        return {**entry.parameters, WEIGHT: scaled[0].value}
    return {**entry.parameters, WEIGHT: scaled}


def _rules(value: ParameterValue) -> list[FilteredValue]:
    if isinstance(value, FilteredValue):
        return [value]
    if isinstance(value, tuple) and isinstance(value[0], FilteredValue):
        return [rule for rule in value if isinstance(rule, FilteredValue)]
    return [FilteredValue(value=value)]


def _times(value: object, factor: float) -> object:
    return tuple(factor * entry for entry in value) if isinstance(value, tuple) else factor * value  # type: ignore[operator]


def _require_whole_models(recipe: Recipe) -> None:
    if recipe.slices:
        raise ConfigError("a recipe of slices can't be audited: an audit leaves out whole models.")
