"""What a strategy did with its trials, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspoiled.data import Split
from unspoiled.objective import TERMS, Goal, Losses, Score
from unspoiled.search import Trial, coordinates, hypervolume


@dataclass(frozen=True)
class StrategySummary:
    """What a strategy did.

    Attributes:
        name: The strategy.
        trials: Its trials, steps of a descent included.
        failed: Those without finite losses.
        split: Whose rows its candidates were scored on: a descent's are on the selection split.
        best: The losses of its best candidate there; None if it has none.
        score: Their score by the goal of that split.
        tokens: What its trials cost, in tokens of a forward pass.
        saved: The share of that cost that stopping hopeless trials early saved; None if nothing was stopped.
        volume: The hypervolume of its candidates' front, in [0, 1]: of the box from zero to the models' largest losses
            alone (their corner), the share that is worse than some candidate; None if it has no candidate.
    """

    name: str
    trials: int
    failed: int
    split: Split
    best: Losses | None
    score: Score | None
    tokens: int
    saved: float | None
    volume: float | None


def summarise(name: str, trials: Sequence[Trial], goals: Mapping[Split, Goal]) -> StrategySummary:
    """Sum up a strategy's trials.

    Args:
        name: The strategy.
        trials: Trials of all strategies.
        goals: The goal of each split.
    """
    own = [trial for trial in trials if trial.strategy == name]
    scored = [trial for trial in own if trial.evaluation is not None]
    candidates = [trial for trial in scored if trial.candidate and trial.whole]
    split: Split = candidates[0].split if candidates else "search"
    found = [trial.losses for trial in candidates if trial.losses is not None]
    best = min(found, key=goals[split].score, default=None)
    tokens = sum(trial.evaluation.tokens for trial in scored if trial.evaluation is not None)
    return StrategySummary(
        name=name,
        trials=len(own),
        failed=len(own) - len(scored),
        split=split,
        best=best,
        score=None if best is None else goals[split].score(best),
        tokens=tokens,
        saved=_saved(own, trials, tokens),
        volume=_volume(found, [t.losses for t in trials if t.strategy == "parents" and t.split == split]),
    )


def _volume(found: Sequence[Losses], parents: Sequence[Losses | None]) -> float | None:
    """Return the share of the box below the parents' worst losses that is worse than some candidate."""
    alone = [losses for losses in parents if losses is not None]
    if not found or not alone:
        return None
    terms = [term for term in TERMS if not math.isnan(alone[0].term(term))]
    corner = [max(losses.term(term) for losses in alone) for term in terms]
    points = [tuple(x / most for x, most in zip(coordinates(losses, terms), corner, strict=True)) for losses in found]
    return hypervolume(points, [1.0] * len(terms))


def _saved(own: Sequence[Trial], trials: Sequence[Trial], tokens: int) -> float | None:
    """Return 1 − (the tokens spent) / (those that scoring all rows in every trial would have taken)."""
    scored = [t.evaluation for t in own if t.evaluation is not None]
    whole = [t.evaluation.tokens for t in trials if t.evaluation is not None and t.whole and t.split == "search"]
    if not whole or not any(evaluation.stopped for evaluation in scored):
        return None
    return 1 - tokens / (min(whole) * len(scored))  # a race that comes to its end costs more than scoring at once
