"""The guards of a run."""

from __future__ import annotations

from pathlib import Path

from unspoiled.config import Dtype, GuardConfig, RunConfig, RuntimeConfig, ServedModel
from unspoiled.guards import Guard, RefusalRules, open_guard
from unspoiled.pipeline._askers import open_served
from unspoiled.pipeline._attempts import Attempts
from unspoiled.pipeline._device import compute_dtype, device_of


def open_guards(config: RunConfig, attempts: Attempts) -> dict[str, Guard]:
    """Open the guards that a config uses, by name; weights are loaded when one judges for the first time."""
    guards: dict[str, Guard] = {}
    for name in dict.fromkeys([config.generate.guard, *config.evaluate.guards]):
        given = config.guards.get(name)
        opened = attempts.make(
            lambda given=given: open_configured(given, config.directory, config.runtime, config.merge.dtype),  # type: ignore[misc]
            of=f"guard {name}",
        )
        if opened is not None:
            guards[name] = opened
    return guards


def public_guard_name(guard: Guard) -> str:
    """Return a guard's name without the path to its model on this machine, as `public_name` does for models."""
    family, colon, model = guard.name.partition(":")
    parts = [Path(part).name if Path(part).is_absolute() else part for part in model.split("+")]
    return f"{family}{colon}{'+'.join(parts)}"


def open_configured(given: GuardConfig | None, directory: Path, runtime: RuntimeConfig, weights: Dtype) -> Guard:
    """Open one guard.

    Args:
        given: Its config; None for the refusal rules.
        directory: What its relative paths start from.
        runtime: The machine.
        weights: The dtype of weights where `runtime.dtype` is `auto`.
    """
    if given is None:
        return RefusalRules()
    served = given.model if isinstance(given.model, ServedModel) else None
    return open_guard(
        given.family,
        given.model if not isinstance(given.model, ServedModel) else open_served(given.model),
        relative_to=directory,
        categories=tuple(given.categories or ()),
        threshold=given.threshold,
        controversial=given.controversial,
        policy=None if given.policy is None else directory / given.policy,
        generator_name="" if served is None else served.model,
        device=device_of(runtime),
        dtype=compute_dtype(runtime, weights),
        batch_size=runtime.batch_size,
    )
