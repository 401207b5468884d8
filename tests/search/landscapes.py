"""Losses that need no model, for searches whose outcome is known beforehand."""

from collections.abc import Sequence

from unspoiled.config import Recipe
from unspoiled.objective import Losses
from unspoiled.search import SearchSpace


def space(experts: int = 2, **changes: object) -> SearchSpace:
    options: dict[str, object] = {
        "method": "task_arithmetic",
        "base": "models/base",
        "experts": {f"e{i}": f"models/e{i}" for i in range(experts)},
        "layers": 6,
    }
    return SearchSpace(**{**options, **changes})  # type: ignore[arg-type]


def losses(total: float, *, alpha: float = 0.0) -> Losses:
    return Losses(safety=total, expert=0.5, domains={"math": 0.5}, alpha=alpha, rows=(3, 1))


def weights(recipe: Recipe) -> list[float]:
    """Return a recipe's weights as one list, model by model."""
    found: list[float] = []
    for entry in recipe.models:
        weight = entry.parameters["weight"]
        found += weight if isinstance(weight, list | tuple) else [weight]  # type: ignore[list-item]
    return found


class Bowl:
    """A live model of its own kind: its loss is the squared distance of the merged weights from a minimum."""

    def __init__(self, minimum: Sequence[float]) -> None:
        self.minimum = minimum
        self.weights: list[float] = []
        self.evaluations = 0

    def merge(self, recipe: Recipe) -> None:
        self.weights = weights(recipe)

    def loss(self) -> Losses:
        self.evaluations += 1
        return losses(sum((w - m) ** 2 for w, m in zip(self.weights, self.minimum, strict=True)))
