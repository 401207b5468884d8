"""LM-Cocktail: weigh every model by how well it answers the data, softmax(−loss / T)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unspoiled.config import ModelEntry, Recipe
from unspoiled.errors import SearchError
from unspoiled.objective import Losses
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Proposal


class Cocktail:
    """Score each expert alone on D = D_safety ∪ D_expert, then average their weights by softmax(−CE / T).

    Source: Xiao et al., LM-Cocktail, arXiv 2311.13534, as used in arXiv 2406.14563 (T = 1).

    Args:
        space: Names the experts.
        temperature: T > 0.
    """

    name = "cocktail"

    def __init__(self, space: SearchSpace, *, temperature: float = 1.0) -> None:
        self._space = space
        self._temperature = temperature
        self._losses: list[float] | None = None
        self._done = False

    def ask(self) -> list[Proposal]:
        """Return every expert alone, then their average, then nothing."""
        if self._done:
            return []
        if self._losses is None:
            alone = len(self._space.experts)
            return [self._propose([float(i == k) for i in range(alone)], candidate=False) for k in range(alone)]
        self._done = True
        return [self._propose(cocktail_weights(self._losses, self._temperature), candidate=True)]

    def tell(self, losses: Sequence[Losses | None]) -> None:
        """Take the experts' losses; the average's own are not needed."""
        if self._losses is None:
            failed = [name for name, loss in zip(self._space.experts, losses, strict=True) if loss is None]
            if failed:
                raise SearchError(f"LM-Cocktail can't weigh {failed}: their loss on the data is not finite.")
            self._losses = [loss.union for loss in losses if loss is not None]

    def _propose(self, weights: Sequence[float], *, candidate: bool) -> Proposal:
        models = tuple(
            ModelEntry(model=model, parameters={"weight": weight})
            for model, weight in zip(self._space.experts.values(), weights, strict=True)
        )
        recipe = Recipe(merge_method="linear", models=models, dtype=self._space.dtype)
        return Proposal(recipe, dict(zip(self._space.experts, weights, strict=True)), candidate)


def cocktail_weights(losses: Sequence[float], temperature: float) -> list[float]:
    """Return softmax(−loss / T): one weight per loss, positive, summing to 1."""
    best = min(losses)
    raw = [math.exp((best - loss) / temperature) for loss in losses]
    return [value / math.fsum(raw) for value in raw]
