"""What a strategy is said to have done: its best candidate, its cost, and how far its front reaches."""

from dataclasses import replace

import pytest

from unspoiled.config import ModelEntry, Recipe
from unspoiled.objective import Losses, WeightedSum
from unspoiled.pipeline._summary import summarise
from unspoiled.search import Evaluation, Proposal, Trial

RECIPE = Recipe(merge_method="linear", models=(ModelEntry(model="m", parameters={"weight": 1.0}),))
GOALS = {"search": WeightedSum(1.0, 1.0), "selection": WeightedSum(1.0, 1.0)}


def trial(number: int, strategy: str, safety: float, expert: float, benign: float) -> Trial:
    losses = Losses(safety, expert, {"math": expert}, benign, (1, 1))
    found = Evaluation(losses, (0, 1, 2), (safety, expert, benign), False, None, 100, 0.0, 0.0)
    return replace(Trial.begun(number, strategy, Proposal(number, RECIPE, {}), 0), evaluation=found)


PARENTS = [trial(0, "parents", 4.0, 1.0, 1.0), trial(1, "parents", 1.0, 2.0, 2.0)]  # their corner: 4, 2, 2


def test_the_volume_is_the_share_of_the_parents_box_that_is_worse() -> None:
    half = trial(2, "gradient", 2.0, 1.0, 1.0)  # halves every side
    found = summarise("gradient", [*PARENTS, half], GOALS)
    assert found.volume == pytest.approx(1 / 8)
    better_there = trial(3, "gradient", 2.0, 0.5, 2.0 - 1e-9)  # adds next to nothing: it is as bad as the corner
    assert summarise("gradient", [*PARENTS, half, better_there], GOALS).volume == pytest.approx(1 / 8, abs=1e-6)
    assert summarise("random", [*PARENTS, half], GOALS).volume is None


def test_the_best_is_by_the_goal_and_the_cost_is_of_all() -> None:
    found = summarise("gradient", [*PARENTS, trial(2, "gradient", 2, 1, 1), trial(3, "gradient", 1, 1, 1)], GOALS)
    assert found.best is not None
    assert found.best.safety == 1
    assert (found.trials, found.failed, found.tokens, found.saved) == (2, 0, 200, None)
