"""The families of guards that configs and the command line know by name."""

from __future__ import annotations

import difflib

from unspoiled.errors import ConfigError
from unspoiled.guards._family import GuardFamily
from unspoiled.guards._granite_guardian import GRANITE_GUARDIAN
from unspoiled.guards._harmbench import HARMBENCH
from unspoiled.guards._llama_guard import LLAMA_GUARD_2, LLAMA_GUARD_3, LLAMA_GUARD_4
from unspoiled.guards._policy import POLICY
from unspoiled.guards._qwen3guard import QWEN3GUARD_GEN
from unspoiled.guards._shieldgemma import SHIELDGEMMA
from unspoiled.guards._wildguard import WILDGUARD
from unspoiled.guards.compact import COMPACT

REFUSAL_RULES = GuardFamily(
    name="refusal-rules",
    judges="refusals",
    reports=("refusal",),
    source="this package: guards/refusal.py",
)

_FAMILIES = {
    family.name: family
    for family in (
        REFUSAL_RULES,
        LLAMA_GUARD_2,
        LLAMA_GUARD_3,
        LLAMA_GUARD_4,
        SHIELDGEMMA,
        WILDGUARD,
        GRANITE_GUARDIAN,
        QWEN3GUARD_GEN,
        HARMBENCH,
        COMPACT,
        POLICY,
    )
}


def all_families() -> list[GuardFamily]:
    """Return every family, in the order of presentation."""
    return list(_FAMILIES.values())


def get_family(name: str) -> GuardFamily:
    """Return the family of a name.

    Raises:
        ConfigError: There is none; the message proposes the nearest.
    """
    if name not in _FAMILIES:
        close = difflib.get_close_matches(name.lower(), _FAMILIES, n=1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown guard {name!r}.{guess} Known: {', '.join(_FAMILIES)}.")
    return _FAMILIES[name]
