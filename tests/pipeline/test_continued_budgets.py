"""How far `--continue` raises the budgets: by what is asked for beyond what was done, whatever the workers."""

import pytest

from unspoiled.config import ModelEntry, Recipe, SearchConfig
from unspoiled.data import Row
from unspoiled.objective import LossRows
from unspoiled.pipeline._strategies import Plan
from unspoiled.search import Trial
from unspoiled.search._descent import shard_rows

ROWS = LossRows(
    tuple(
        Row(f"{kind}{i}", kind, "math" if kind == "expert" else "any", f"{kind} {i}?", "yes", "a", "b", "search")  # type: ignore[arg-type]
        for kind, count in (("safety", 9), ("expert", 40))
        for i in range(count)
    )
)


def gradient_trial(number: int, rows: tuple[int, ...]) -> Trial:
    recipe = Recipe(merge_method="linear", models=(ModelEntry(model="expert", parameters={"weight": 1.0}),))
    return Trial(number, "gradient", number, recipe, {}, "search", rows, False, {"safety": 1.0, "expert": 1.0}, number)


@pytest.mark.parametrize(("workers", "batch"), [(1, 8), (4, 8), (12, 8), (8, 1), (16, 4)])
def test_steps_are_counted_as_they_were_made_where_a_set_has_fewer_rows_than_workers(workers: int, batch: int) -> None:
    config = SearchConfig(strategies=("gradient",), steps=20, batch=batch)
    trials = [
        gradient_trial(0, rows)
        for step in range(20)
        for rows in shard_rows(ROWS, step, batch, workers, seed=config.seed)
    ]
    plan = Plan.begun(config, workers)
    assert plan.raised(trials, 10, ROWS, config).budgets == {"gradient": 30}
