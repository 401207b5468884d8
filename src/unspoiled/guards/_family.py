"""What a family of guards is: what it judges and reports, where its format was published, and how to build it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from unspoiled.errors import ConfigError
from unspoiled.guards._format import GuardFormat

Report = Literal["probability", "categories", "refusal"]
Controversial = Literal["unsafe", "safe"]


@dataclass(frozen=True)
class FormatOptions:
    """What a user may choose of a format.

    Args:
        categories: The categories to judge by; empty for the family's own.
        controversial: What a level between safe and unsafe counts as, in a family that has one.
    """

    categories: tuple[str, ...] = ()
    controversial: Controversial = "unsafe"


@dataclass(frozen=True)
class GuardFamily:
    """A family of guards.

    Args:
        name: What configs and the command line call it.
        judges: `responses` (to a prompt), `refusals` or `behaviour` (whether a response does what the prompt asks).
        reports: What it says beside safe or unsafe.
        source: Where its format was published.
        licence: The licence of its weights, as a reminder; empty for what is part of this package.
        default_model: A hub id; None if there is nothing to load or the user must choose.
        build: Makes the format; None for the families that aren't asked by a template of their own.
        categories: What `FormatOptions.categories` may hold; empty if the family's are fixed.
        advice: The category "specialised advice", which flags experts for their trade, so that reports can show it
            apart; None if the family has none.
    """

    name: str
    judges: Literal["responses", "refusals", "behaviour"]
    reports: tuple[Report, ...]
    source: str
    licence: str = ""
    default_model: str | None = None
    build: Callable[[FormatOptions], GuardFormat] | None = None
    categories: tuple[str, ...] = ()
    advice: str | None = None

    def format(self, options: FormatOptions) -> GuardFormat:
        """Return the format with the options chosen.

        Raises:
            ConfigError: A category that the family doesn't have, or one named twice.
        """
        assert self.build is not None
        unknown = [name for name in options.categories if name not in self.categories]
        if unknown:
            known = ", ".join(self.categories) if self.categories else "none: its categories are fixed"
            raise ConfigError(f"guard {self.name!r} has no category {unknown[0]!r}. Choose from {known}.")
        if len(set(options.categories)) < len(options.categories):
            raise ConfigError(f"guard {self.name!r}: a category is named twice in {list(options.categories)!r}.")
        return self.build(options)
