"""The guards of a run."""

from __future__ import annotations

from unspoiled.config import REFUSAL_RULES, RunConfig, ServedModel
from unspoiled.guards import Guard, RefusalRules, open_guard
from unspoiled.pipeline._askers import open_served
from unspoiled.pipeline._attempts import Attempts
from unspoiled.pipeline._device import compute_dtype, device_of


def open_guards(config: RunConfig, attempts: Attempts) -> dict[str, Guard]:
    """Open the guards that a config uses, by name; weights are loaded when one judges for the first time."""
    guards: dict[str, Guard] = {}
    for name in dict.fromkeys([config.generate.guard, *config.evaluate.guards]):
        opened = attempts.make(lambda name=name: _open(config, name), of=f"guard {name}")  # type: ignore[misc]
        if opened is not None:
            guards[name] = opened
    return guards


def _open(config: RunConfig, name: str) -> Guard:
    if name == REFUSAL_RULES:
        return RefusalRules()
    given = config.guards[name]
    served = given.model if isinstance(given.model, ServedModel) else None
    return open_guard(
        given.family,
        given.model if not isinstance(given.model, ServedModel) else open_served(given.model),
        relative_to=config.directory,
        categories=tuple(given.categories or ()),
        threshold=given.threshold,
        controversial=given.controversial,
        policy=None if given.policy is None else config.locate(given.policy),
        generator_name="" if served is None else served.model,
        device=device_of(config),
        dtype=compute_dtype(config),
        batch_size=config.runtime.batch_size,
    )
