"""Every model alone: the losses that limits, LM-Cocktail and reports compare merges with."""

from __future__ import annotations

from collections.abc import Mapping

from unspoiled.config import Dtype, ModelEntry, Recipe
from unspoiled.data import Split
from unspoiled.objective import Losses
from unspoiled.search._listed import Listed
from unspoiled.search._strategy import Evaluation, Proposal

SPLITS: tuple[Split, ...] = ("search", "selection")


class Parents(Listed):
    """Score every model alone on all rows of the search split, then of the selection split; none is a candidate.

    Args:
        models: The models' strings, as recipes name them, by name.
        dtype: The recipes' output dtype.
    """

    def __init__(self, models: Mapping[str, str], *, dtype: Dtype) -> None:
        proposals: list[Proposal] = []
        for split in SPLITS:
            for name, model in models.items():
                recipe = Recipe(
                    merge_method="linear", models=(ModelEntry(model=model, parameters={"weight": 1.0}),), dtype=dtype
                )
                number = len(proposals)
                proposals.append(Proposal(number, recipe, {name: 1.0}, split=split, candidate=False))
        super().__init__("parents", proposals)
        self._found: dict[tuple[Split, str], Evaluation] = {}

    def tell(self, proposal: Proposal, evaluation: Evaluation | None) -> None:
        """Keep a model's losses; of one that failed there are none."""
        (name,) = proposal.coefficients
        if evaluation is not None:
            self._found[proposal.split, name] = evaluation

    def losses(self, split: Split) -> dict[str, Losses]:
        """Return the losses on all rows of a split by model, in the order of `models`, without those that failed."""
        return {name: found.losses for name, found in self._of(split).items()}

    def cross_entropies(self, split: Split) -> dict[str, tuple[float, ...]]:
        """Return the nats per token of every row of a split, in order, by model, without those that failed."""
        return {name: found.cross_entropies for name, found in self._of(split).items()}

    def _of(self, split: Split) -> dict[str, Evaluation]:
        names = (name for proposal in self._proposals[: len(self._proposals) // 2] for name in proposal.coefficients)
        return {name: self._found[split, name] for name in names if (split, name) in self._found}
