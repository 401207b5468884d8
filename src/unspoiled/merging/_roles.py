"""Which model is which in the methods that restore safety: mergekit's recipes give models numbers, not roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unspoiled.errors import ConfigError
from unspoiled.merging._method import Parameter

SAFETY = Parameter("safety", default=0, low=-1, high=1)
"""A model's role: 1 for a safe (aligned, safety-tuned) model, -1 for an unsafe one, 0 for a task expert."""


@dataclass(frozen=True)
class Roles:
    """The places of the models among the operands, by role."""

    experts: tuple[int, ...]
    safe: tuple[int, ...]
    unsafe: tuple[int, ...]


def roles(safety: Sequence[float], method: str, *, experts: int | None, safe: int | None, unsafe: int | None) -> Roles:
    """Sort models by role.

    Args:
        safety: The `safety` of each model.
        method: The method, for the error.
        experts: How many task experts there must be; None for any number.
        safe: How many safe models there must be.
        unsafe: How many unsafe models there must be.

    Raises:
        ConfigError: There are more or fewer models of a role.
    """
    found = {role: tuple(i for i, one in enumerate(safety) if one == role) for role in (0, 1, -1)}
    for role, wanted, name in [(0, experts, "task expert"), (1, safe, "safe model"), (-1, unsafe, "unsafe model")]:
        if wanted is not None and len(found[role]) != wanted:
            raise ConfigError(
                f"{method} merges {wanted} {name}{'' if wanted == 1 else 's'} (`safety: {role}`), and the recipe's "
                f"models beside the base have the roles {[int(one) for one in safety]}. Set `safety` under their "
                "`parameters`: 1 for a safe model, -1 for an unsafe one, 0 for a task expert."
            )
    return Roles(found[0], found[1], found[-1])
