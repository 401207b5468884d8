"""The data-free baselines: one weight for all experts."""

from __future__ import annotations

from collections.abc import Sequence

from unspoiled.objective import Losses
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Proposal

PAPER_WEIGHTS = (0.1, 0.25, 0.33, 0.5, 1.0)


class Grid:
    """Try the same weight for every expert, each weight of a list once.

    Args:
        space: The space; only one weight per grid cell is used, for every coefficient.
        weights: The cells; the paper's for three models by default.
        name: The strategy's name.
    """

    def __init__(self, space: SearchSpace, weights: Sequence[float] = PAPER_WEIGHTS, *, name: str = "grid") -> None:
        self.name = name
        self._space = space
        self._weights = list(weights)

    def ask(self) -> list[Proposal]:
        """Return all cells at once, then nothing."""
        weights, self._weights = self._weights, []
        genomes = [self._space.constant([weight] * len(self._space.experts)) for weight in weights]
        return [Proposal(self._space.recipe(g), dict(zip(self._space.labels, g, strict=True))) for g in genomes]

    def tell(self, losses: Sequence[Losses | None]) -> None:
        """Learn nothing: the cells are fixed."""


def uniform(space: SearchSpace) -> Grid:
    """Return the data-free merge that one would make by hand: weight 1/N for each of the N experts."""
    return Grid(space, [1 / len(space.experts)], name="uniform")
