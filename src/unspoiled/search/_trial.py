"""A trial: what was proposed, what came of it, and how both lie in an Optuna trial's attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from unspoiled.config import Recipe
from unspoiled.data import Split
from unspoiled.errors import SearchError
from unspoiled.objective import Goal, Losses, Term
from unspoiled.search._strategy import Evaluation, Proposal


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried.

    Attributes:
        number: Its number in the study, from 0.
        strategy: The strategy that proposed it.
        proposal: The strategy's own number for it, from 0.
        recipe: What was merged.
        coefficients: The recipe's coefficients by name.
        split: Whose rows were to be scored.
        rows: Indices of the rows that were to be scored; None for all.
        candidate: Whether it may be chosen.
        gradient_weights: The weights of the losses whose gradient was wanted; None if none was.
        asked_after: How many of its trials the strategy had been told of when it proposed this one.
        evaluation: What came of it; None if it failed, or has not ended.
    """

    number: int
    strategy: str
    proposal: int
    recipe: Recipe
    coefficients: Mapping[str, float]
    split: Split
    rows: tuple[int, ...] | None
    candidate: bool
    gradient_weights: Mapping[Term, float] | None
    asked_after: int
    evaluation: Evaluation | None = None

    @property
    def losses(self) -> Losses | None:
        """The losses; None if the trial failed."""
        return None if self.evaluation is None else self.evaluation.losses

    @property
    def whole(self) -> bool:
        """Whether all rows of its split were scored, so that it compares with other such trials."""
        return self.evaluation is not None and self.rows is None and not self.evaluation.stopped

    @classmethod
    def begun(cls, number: int, strategy: str, proposal: Proposal, asked_after: int) -> Trial:
        """Return the trial of a proposal, before anything is known of it."""
        return cls(
            number=number,
            strategy=strategy,
            proposal=proposal.number,
            recipe=proposal.recipe,
            coefficients={name: float(value) for name, value in proposal.coefficients.items()},
            split=proposal.split,
            rows=None if proposal.rows is None else tuple(map(int, proposal.rows)),
            candidate=proposal.candidate,
            gradient_weights=None if proposal.gradient is None else {**proposal.gradient.weights},
            asked_after=asked_after,
        )

    def require_same(self, proposal: Proposal) -> None:
        """Refuse a proposal that isn't the one this trial was made of.

        Raises:
            SearchError: They differ in anything that decides what comes of it.
        """
        now = replace(Trial.begun(self.number, self.strategy, proposal, self.asked_after), evaluation=self.evaluation)
        if now == self:
            return
        fields = ("proposal", "split", "rows", "candidate", "gradient_weights", "coefficients", "recipe")
        differing = next(name for name in fields if getattr(self, name) != getattr(now, name))
        shown = "coefficients" if differing == "recipe" and self.coefficients != now.coefficients else differing
        raise SearchError(
            f"trial {self.number} of the recorded search ({self.strategy}) has {shown} "
            f"{_excerpt(getattr(self, shown))}, but the search now proposes {_excerpt(getattr(now, shown))}: the "
            "study belongs to other data, other settings or another version. Start anew with --fresh."
        )


def best_trials(trials: Sequence[Trial], goal: Goal, count: int) -> list[Trial]:
    """Return the best candidates by a goal, best first; equal ones in their order, of one recipe the first alone.

    Only trials count whose losses are on all rows of their split: those that a race stopped, and those of
    minibatches, don't compare.

    Args:
        trials: Trials of one split.
        goal: Says which is better.
        count: How many to return at most.

    Raises:
        SearchError: There is not one.
    """
    finished = [trial for trial in trials if trial.candidate and trial.whole]
    if not finished:
        raise SearchError(
            "no trial of the search can be chosen: no recipe gave a finite loss on all rows. Give the parameters "
            "under search.parameters narrower ranges, or check the experts with `unspoiled check`."
        )
    best: list[Trial] = []
    for trial in sorted(finished, key=lambda trial: goal.score(_losses(trial))):
        if len(best) < count and not any(trial.recipe == other.recipe for other in best):
            best.append(trial)
    return best


def asked_attributes(trial: Trial) -> dict[str, Any]:
    """Return the attributes of a trial that has begun, as JSON values."""
    return {
        "strategy": trial.strategy,
        # YAML, too, that `unspoiled merge` reads, and a tenth of the time
        "recipe": json.dumps(trial.recipe.model_dump(mode="json", exclude_defaults=True), ensure_ascii=False),
        "coefficients": dict(trial.coefficients),
        "asked": {
            "proposal": trial.proposal,
            "after": trial.asked_after,
            "split": trial.split,
            "rows": trial.rows,
            "candidate": trial.candidate,
            "gradient_weights": trial.gradient_weights,
        },
    }


def evaluation_attributes(evaluation: Evaluation | None, finished: int) -> dict[str, Any]:
    """Return the attributes of a trial that has ended, as JSON values; `finished` is its place among those."""
    if evaluation is None:
        return {"ended": {"place": finished}}
    everything = evaluation.rows == tuple(range(len(evaluation.rows)))
    found: dict[str, Any] = {
        "losses": asdict(evaluation.losses),
        "tokens": evaluation.tokens,
        "seconds": {"merge": evaluation.merge_seconds, "loss": evaluation.loss_seconds},
        "cross_entropies": evaluation.cross_entropies,
        "ended": {
            "place": finished,
            "rows": None if everything else evaluation.rows,
            "stopped": evaluation.stopped,
            "worker": evaluation.worker,
        },
    }
    if evaluation.gradient is not None:
        found["gradient"] = evaluation.gradient
    return found


def read_trial(number: int, attributes: Mapping[str, Any], *, evaluated: bool) -> Trial:
    """Return the trial that an Optuna trial's attributes tell of."""
    asked = attributes["asked"]
    return Trial(
        number=number,
        strategy=attributes["strategy"],
        proposal=asked["proposal"],
        recipe=Recipe.model_validate(json.loads(attributes["recipe"])),
        coefficients=attributes["coefficients"],
        split=asked["split"],
        rows=_tuple(asked["rows"]),
        candidate=asked["candidate"],
        gradient_weights=asked["gradient_weights"],
        asked_after=asked["after"],
        evaluation=_evaluation(attributes) if evaluated else None,
    )


def plain(evaluation: Evaluation | None) -> Evaluation | None:
    """Return an evaluation as a replay will tell it: Python's own numbers, and None if one isn't finite."""
    if evaluation is None or not evaluation.finite:
        return None
    return replace(
        evaluation,
        losses=_read_losses(json.loads(json.dumps(asdict(evaluation.losses)))),
        rows=tuple(map(int, evaluation.rows)),
        cross_entropies=tuple(map(float, evaluation.cross_entropies)),
        gradient=None if evaluation.gradient is None else tuple(map(float, evaluation.gradient)),
    )


def _evaluation(attributes: Mapping[str, Any]) -> Evaluation:
    ended = attributes["ended"]
    values = tuple(attributes["cross_entropies"])
    return Evaluation(
        losses=_read_losses(attributes["losses"]),
        rows=tuple(range(len(values))) if ended["rows"] is None else tuple(ended["rows"]),
        cross_entropies=values,
        stopped=ended["stopped"],
        gradient=_tuple(attributes.get("gradient")),
        tokens=attributes["tokens"],
        merge_seconds=attributes["seconds"]["merge"],
        loss_seconds=attributes["seconds"]["loss"],
        worker=ended["worker"],
    )


def _read_losses(fields: Mapping[str, Any]) -> Losses:
    return Losses(**{**fields, "rows": tuple(fields["rows"])})


def _losses(trial: Trial) -> Losses:
    assert trial.losses is not None
    return trial.losses


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _excerpt(value: object) -> str:
    text = f"{value!r}"
    return text if len(text) <= 200 else text[:197] + "..."
