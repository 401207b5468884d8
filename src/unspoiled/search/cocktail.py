"""LM-Cocktail: weigh every model by how well it answers the data, softmax(−loss / T)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from unspoiled.config import ModelEntry, Recipe
from unspoiled.errors import SearchError
from unspoiled.objective import Losses
from unspoiled.search._listed import Listed
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Proposal


class Cocktail(Listed):
    """Average the experts' weights by softmax(−CE / T), CE being each one's loss on D = D_safety ∪ D_expert.

    Source: Xiao et al., LM-Cocktail, arXiv 2311.13534, as used in arXiv 2406.14563 (T = 1).

    Args:
        space: Names the experts.
        losses: Each expert's losses on the search split, by name (`Parents`); other models' are passed over.
        temperature: T > 0, in nats per token.

    Raises:
        SearchError: An expert has no losses.
    """

    def __init__(self, space: SearchSpace, losses: Mapping[str, Losses], *, temperature: float = 1.0) -> None:
        weights = _expert_weights(space, losses, temperature)
        models = tuple(
            ModelEntry(model=model, parameters={"weight": weight})
            for model, weight in zip(space.experts.values(), weights, strict=True)
        )
        recipe = Recipe(merge_method="linear", models=models, dtype=space.dtype)
        super().__init__("cocktail", [Proposal(0, recipe, dict(zip(space.experts, weights, strict=True)))])


def cocktail_start(space: SearchSpace, losses: Mapping[str, Losses], *, temperature: float = 1.0) -> tuple[float, ...]:
    """Return LM-Cocktail's merge as a genome, for a search to start from.

    It is the same merge where the method adds weighted task vectors (`task_arithmetic`): weights that sum to 1 make
    θ_base + Σ wᵢ τᵢ the average Σ wᵢ θᵢ. Other methods start from the same weights. Values are clipped to their ranges.

    Args:
        space: The space; every parameter but `weight` is at its start.
        losses: Each expert's losses on the search split, by name.
        temperature: T > 0, in nats per token.

    Raises:
        SearchError: An expert has no losses.
    """
    genome = space.constant(_expert_weights(space, losses, temperature))
    return tuple(map(float, np.clip(genome, space.low, space.high)))


def cocktail_weights(losses: Sequence[float], temperature: float) -> list[float]:
    """Return softmax(−loss / T): one weight per loss, positive, summing to 1."""
    best = min(losses)
    raw = [math.exp((best - loss) / temperature) for loss in losses]
    return [value / math.fsum(raw) for value in raw]


def _expert_weights(space: SearchSpace, losses: Mapping[str, Losses], temperature: float) -> list[float]:
    missing = [name for name in space.experts if name not in losses]
    if missing:
        raise SearchError(
            f"LM-Cocktail can't weigh {missing}: their loss on the data is not finite, or memory ran out. "
            "Check them with `unspoiled check`, or take cocktail out of search.strategies."
        )
    return cocktail_weights([losses[name].union for name in space.experts], temperature)
