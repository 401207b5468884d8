"""What a strategy did with its trials, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unspoiled.data import Split
from unspoiled.objective import Goal, Losses, Score
from unspoiled.search import Trial


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
    """

    name: str
    trials: int
    failed: int
    split: Split
    best: Losses | None
    score: Score | None
    tokens: int
    saved: float | None


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
    )


def _saved(own: Sequence[Trial], trials: Sequence[Trial], tokens: int) -> float | None:
    """Return 1 − (the tokens spent) / (those that scoring all rows in every trial would have taken)."""
    scored = [t.evaluation for t in own if t.evaluation is not None]
    whole = [t.evaluation.tokens for t in trials if t.evaluation is not None and t.whole and t.split == "search"]
    if not whole or not any(evaluation.stopped for evaluation in scored):
        return None
    return 1 - tokens / (min(whole) * len(scored))  # a race that comes to its end costs more than scoring at once
