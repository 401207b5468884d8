"""Laws that hold for every strategy: on them rest resuming a search, continuing it, and many workers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from landscapes import Bowls, losses, play, space

from unspoiled.objective import Constrained, WeightedSum
from unspoiled.search import (
    Cocktail,
    Evaluation,
    Evolve,
    Gradient,
    Grid,
    Parents,
    Pareto,
    Proposal,
    Random,
    Strategy,
    Sweep,
    uniform,
)

BOWLS = Bowls({"safety": (0.9, 0.3), "expert": (0.2, 0.8), "benign": (0.5, 0.5)}, noise=0.1)
GOAL = WeightedSum(0.3, 0.1)
LIMITS = Constrained({"safety": 0.15, "benign": 0.2})
ALONE = {"e0": losses(0.1), "e1": losses(0.9)}

Make = Callable[[int], Strategy]
"""Makes a strategy with a budget of so many trials, steps or points."""

SEARCHES: dict[str, Make] = {
    "random": lambda n: Random(space(), trials=n, seed=3),
    "evolve": lambda n: Evolve(space(), GOAL, trials=n, seed=3),
    "evolve within limits": lambda n: Evolve(space(), LIMITS, trials=n, seed=3),
    "evolve with restarts": lambda n: Evolve(space(), GOAL, trials=n, seed=3, restarts=2),
    "evolve separable": lambda n: Evolve(space(), GOAL, trials=n, seed=3, algorithm="separable"),
    "evolve by races": lambda n: Evolve(space(), GOAL, trials=n, seed=3, race=True),
    "gradient": lambda n: Gradient(space(), GOAL, BOWLS.data["search"], steps=n, batch=2, patience=99),
    "gradient within limits": lambda n: Gradient(space(), LIMITS, BOWLS.data["search"], steps=n, batch=2, patience=99),
    "gradient on shards": lambda n: Gradient(space(), GOAL, BOWLS.data["search"], steps=n, batch=2, shards=3),
    "pareto": lambda n: Pareto(space(), trials=n, seed=3, population=6),
    "sweep": lambda n: Sweep(space(), BOWLS.data["search"], steps=2, points=n, batch=2),
}
LISTS: dict[str, Make] = {
    "grid": lambda n: Grid(space()),
    "uniform": lambda n: uniform(space()),
    "cocktail": lambda n: Cocktail(space(), ALONE),
    "parents": lambda n: Parents({"a": "models/a", "b": "models/b"}, dtype="bfloat16"),
}
ALL = {**SEARCHES, **LISTS}

every_search = pytest.mark.parametrize("make", SEARCHES.values(), ids=SEARCHES.keys())
every_strategy = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


def failing(share: int) -> Callable[[Proposal], Evaluation | None]:
    """Evaluate on the bowls, but let every `share`-th proposal fail."""
    return lambda proposal: None if proposal.number % share == 0 else BOWLS(proposal)


@every_strategy
def test_the_same_results_give_the_same_proposals(make: Make) -> None:
    assert play(make(18), BOWLS) == play(make(18), BOWLS)


@every_search
def test_what_is_proposed_depends_on_what_was_told(make: Make) -> None:
    elsewhere = Bowls({"safety": (0.1, 1.2), "expert": (1.4, 0.1), "benign": (0.2, 0.1)}, noise=0.1)
    here, there = play(make(18), BOWLS), play(make(18), elsewhere)
    assert here[0] == there[0], "nothing was told yet"
    assert (here == there) == (here[0].gradient is None and isinstance(make(18), Random))


@every_search
@pytest.mark.parametrize("workers", [2, 5, 64])
def test_results_may_come_in_any_order(make: Make, workers: int) -> None:
    alone = play(make(18), BOWLS)
    for seed in range(3):
        assert play(make(18), BOWLS, workers=workers, seed=seed) == alone


@every_search
def test_a_larger_budget_goes_on_where_a_smaller_one_ends(make: Make) -> None:
    long = play(make(31), BOWLS)
    for budget in (1, 6, 7, 13, 30):
        short = play(make(budget), BOWLS)
        assert short == long[: len(short)]
        assert 0 < len(short) <= len(long)


@every_strategy
@pytest.mark.parametrize("share", [2, 3])
def test_failed_trials_are_survived(make: Make, share: int) -> None:
    assert play(make(18), failing(share))


@every_search
def test_a_search_of_which_everything_fails_ends(make: Make) -> None:
    assert play(make(18), lambda proposal: None, most=500)


@every_search
def test_genomes_keep_within_their_ranges(make: Make) -> None:
    outside = Bowls({"safety": (3.0, -2.0), "expert": (3.0, -2.0), "benign": (3.0, -2.0)})
    for proposal in play(make(24), outside):
        assert all(0.0 <= value <= 1.5 for value in proposal.coefficients.values())


@every_search
def test_what_is_recorded_is_what_is_merged(make: Make) -> None:
    for proposal in play(make(12), BOWLS):
        assert proposal.recipe == space().recipe(tuple(proposal.coefficients.values()))
        assert list(proposal.coefficients) == space().labels
