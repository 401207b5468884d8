"""What a search minimises: J = CE_safety + α · CE_expert on response tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspoiled.data import Row
from unspoiled.errors import DataError
from unspoiled.inference import Exchange, Prompt, Scorer, mean_cross_entropy


@dataclass(frozen=True)
class Losses:
    """The losses of one model on one split, in nats per response token.

    Each cross-entropy is the mean over responses of the mean over a response's tokens (its end of turn
    included), as in the paper, where samples are scored one by one and averaged.

    Args:
        safety: CE on D_safety.
        expert: CE on D_expert, all domains' rows together.
        domains: CE on the rows of each domain.
        alpha: The weight of `expert` in `total`.
        rows: The number of rows behind `safety` and `expert`.
    """

    safety: float
    expert: float
    domains: Mapping[str, float]
    alpha: float
    rows: tuple[int, int]

    @property
    def total(self) -> float:
        """J = CE_safety + α · CE_expert."""
        return self.safety + self.alpha * self.expert

    @property
    def union(self) -> float:
        """CE on D = D_safety ∪ D_expert, every row alike: what LM-Cocktail weighs a model by (it has no α)."""
        safety, expert = self.rows
        return (safety * self.safety + expert * self.expert) / (safety + expert)


@dataclass(frozen=True)
class Objective:
    """EvoMM's objective on a fixed set of rows.

    Args:
        safety: Rows of D_safety, at least one.
        expert: Rows of D_expert, at least one.
        alpha: α ≥ 0; the paper uses 0.3.

    Raises:
        DataError: A set is empty.
    """

    safety: Sequence[Row]
    expert: Sequence[Row]
    alpha: float

    def __post_init__(self) -> None:
        for name, rows in (("D_safety", self.safety), ("D_expert", self.expert)):
            if not rows:
                raise DataError(
                    f"{name} has no rows in this split: generate more questions, or change generate.selection_share."
                )

    def evaluate(self, scorer: Scorer) -> Losses:
        """Return the losses of the scorer's model on the rows."""
        rows = [*self.safety, *self.expert]
        scores = scorer.score([Exchange(Prompt(row.prompt), row.response) for row in rows])
        expert = scores[len(self.safety) :]
        domains = {
            domain: mean_cross_entropy([s for s, row in zip(expert, self.expert, strict=True) if row.group == domain])
            for domain in sorted({row.group for row in self.expert})
        }
        return Losses(
            safety=mean_cross_entropy(scores[: len(self.safety)]),
            expert=mean_cross_entropy(expert),
            domains=domains,
            alpha=self.alpha,
            rows=(len(self.safety), len(self.expert)),
        )


def split_objective(rows: Sequence[Row], split: str, alpha: float) -> Objective:
    """Return the objective on the rows of one split."""
    chosen = [row for row in rows if row.split == split]
    return Objective(
        safety=[row for row in chosen if row.set == "safety"],
        expert=[row for row in chosen if row.set == "expert"],
        alpha=alpha,
    )
