"""The protocol of a search strategy: it proposes recipes and is told their losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from unspoiled.config import Recipe
from unspoiled.objective import Losses


@dataclass(frozen=True)
class Proposal:
    """A recipe to try.

    Args:
        recipe: The recipe.
        coefficients: Its coefficients by name, as the study records them.
        candidate: Whether it may be chosen; False for a probe that only informs the strategy.
    """

    recipe: Recipe
    coefficients: dict[str, float]
    candidate: bool = True


class Strategy(Protocol):
    """Proposes recipes in rounds; deterministic in its seed and what it is told, so that a search can be replayed."""

    @property
    def name(self) -> str:
        """The name in configs, studies and reports."""
        ...

    def ask(self) -> list[Proposal]:
        """Return the next round of proposals; an empty list ends the search."""
        ...

    def tell(self, losses: Sequence[Losses | None]) -> None:
        """Take the losses of the last round, in its order; None for a trial that failed."""
        ...
