"""From a config's search section to the coefficients that move: what the method allows, and where they start."""

from __future__ import annotations

import math
from collections.abc import Mapping

from unspoiled.checkpoints import ModelSource
from unspoiled.config import RunConfig
from unspoiled.errors import ConfigError
from unspoiled.merging import MergePlan, Method, Models, Parameter, get_method
from unspoiled.search import Granularity, Range, SearchSpace, module_kinds, tensor_kinds

_BY_GRADIENT = frozenset({"gradient", "sweep"})


def space_of(config: RunConfig, base: ModelSource, experts: Mapping[str, ModelSource]) -> SearchSpace:
    """Return the coefficients that a config's search moves.

    A method that walks from its base to one other model (`slerp`, `nearswap` ...) walks from the bunch's first expert
    to the second.

    Raises:
        ConfigError: The method is unknown, can't be searched, or not with so many experts; or a parameter is none of
            its, or out of range.
    """
    search = config.search
    method = require_method(config)
    first, merged = base, experts
    if _walks(method) and len(experts) == 2:  # one of them may be missing, which is a problem of its own
        (_, first), (name, end) = experts.items()
        merged = {name: end}
    moving = _moving(method, config)
    return SearchSpace(
        method=search.method,
        base=str(first.ref),
        experts={name: str(source.ref) for name, source in merged.items()},
        layers=Models({str(base.ref): base}).layer_count,
        ranges={name: _range(name, *ends, moving.get(name), merged) for name, ends in search.parameters.items()},
        fixed=search.fixed,
        granularity=search.granularity,
        groups=search.layer_groups,
        kinds=kinds_of(search.granularity, base, experts),
        dtype=config.merge.dtype,
    )


def require_method(config: RunConfig) -> Method:
    """Return the method that a config's search merges by, which must be one for such a search and so many experts.

    Raises:
        ConfigError: It isn't.
    """
    search, count = config.search, len(config.bunch.experts)
    method = get_method(search.method)
    if method.statistics:
        kinds = ", ".join(statistic.kind for statistic in method.statistics)
        raise ConfigError(
            f"search.method is {method.name!r}, which needs statistics of every expert's data ({kinds}): a search has "
            "none to give. Choose another method, or merge by a recipe with `unspoiled merge`."
        )
    least, most = (2, 2) if _walks(method) else method.experts
    if count < least or (most is not None and count > most):
        takes = f"{least}" if most == least else f"{least} to {most}" if most else f"{least} or more"
        raise ConfigError(
            f"search.method is {method.name!r}, which merges {takes} models, and the bunch has {count} experts: choose "
            "a method for any number, such as task_arithmetic or ties."
        )
    moving = _moving(method, config)
    for name, parameter in moving.items():
        if parameter.kind == "whole number":
            raise ConfigError(f"search.parameters.{name} is a whole number, which can't move: put it under `fixed`.")
    by_gradient = [name for name in search.strategies if name in _BY_GRADIENT]
    stuck = [name for name, parameter in moving.items() if not parameter.differentiable]
    if by_gradient and stuck:
        raise ConfigError(
            f"search.strategies has {by_gradient[0]!r}, but {method.name!r} has no gradient with respect to "
            f"{stuck[0]!r}: put it under `fixed`, or search by evolve or random."
        )
    return method


def _walks(method: Method) -> bool:
    """Say whether a method walks from its base to one other model."""
    return method.experts[1] == 1 and method.base == "required"


def _moving(method: Method, config: RunConfig) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in method.parameters if parameter.name in config.search.parameters}


def kinds_of(
    granularity: Granularity, base: ModelSource, experts: Mapping[str, ModelSource]
) -> dict[str, tuple[str, ...]]:
    """Return the kinds of tensors that have a value of their own, among those that some expert changes."""
    match granularity:
        case "module":
            return module_kinds(_changed(base, experts))
        case "tensor":
            return tensor_kinds(_changed(base, experts))
        case _:
            return {}


def require_mergeable(space: SearchSpace, models: Models) -> None:
    """Check that the space's recipes can be merged from these models.

    What a method refuses of its coefficients together (DELLA's density ± epsilon) shows when the smallest tensor is
    merged at the start and, but for the weights, at the ends of the ranges: before any work, not in some trial.

    Raises:
        ConfigError: A value under `search.fixed` is out of range, or something else of the recipe doesn't fit.
    """
    _merge_smallest(MergePlan(space.recipe(space.start), models))
    for name, range_ in space.ranges.items():
        for end in (range_.low, range_.high) if name != "weight" else ():
            try:
                _merge_smallest(MergePlan(space.recipe(space.same({name: end})), models))
            except ConfigError as error:
                raise ConfigError(
                    f"search.parameters.{name} reaches {end:g}, where no merge can be made: {error} Or give {name} a "
                    "narrower range."
                ) from error


def _merge_smallest(plan: MergePlan) -> None:
    merged = [tensor for tensor in plan.tensors.values() if not tensor.copied]
    if merged:
        min(merged, key=lambda tensor: math.prod(tensor.shape)).merged()


def _range(
    name: str, low: float, high: float, parameter: Parameter | None, experts: Mapping[str, ModelSource]
) -> Range:
    """Return where a parameter moves; it starts at equal shares for a weight, else at its default or midway."""
    if name == "weight":
        start = 1 / len(experts)
    elif parameter is not None and parameter.kind == "number" and parameter.default is not None:
        start = float(parameter.default)
        start = start if low < start < high else (low + high) / 2
    else:
        start = (low + high) / 2
    return Range(low, high, min(max(start, low), high))


def _changed(base: ModelSource, experts: Mapping[str, ModelSource]) -> list[str]:
    """Return the names of the base's tensors that some expert changes: no coefficient moves the others."""
    return [
        name
        for name in base.tensors
        if any(s.directory != base.directory or s.delta(name) is not None for s in experts.values())
    ]
