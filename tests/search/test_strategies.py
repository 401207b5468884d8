"""The strategies against the papers' formulas, and their determinism, on which resuming rests."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from landscapes import Bowl, losses, space, weights

from unspoiled.errors import SearchError
from unspoiled.objective import Losses
from unspoiled.search import (
    Cocktail,
    Evolve,
    Grid,
    Proposal,
    Strategy,
    cocktail_weights,
    population_size,
    uniform,
)


def play(strategy: Strategy, bowl: Bowl) -> list[Proposal]:
    """Run a strategy to its end on a bowl; return all it proposed."""
    made: list[Proposal] = []
    while proposals := strategy.ask():
        told = []
        for proposal in proposals:
            bowl.merge(proposal.recipe)
            told.append(bowl.loss())
        strategy.tell(told)
        made += proposals
    return made


# --- LM-Cocktail ------------------------------------------------------------------------------------------


def test_cocktail_weights_are_the_softmax_of_minus_loss_by_hand() -> None:
    # losses ln 2, ln 4, ln 8 at T = 1: 1/2 : 1/4 : 1/8
    found = cocktail_weights([math.log(2), math.log(4), math.log(8)], 1.0)
    assert found == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    # T = 1/2 squares the ratios: 1/4 : 1/16 : 1/64
    found = cocktail_weights([math.log(2), math.log(4), math.log(8)], 0.5)
    assert found == pytest.approx([16 / 21, 4 / 21, 1 / 21])


@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=6), temperature=st.floats(0.01, 100))
def test_cocktail_weights_are_a_distribution_however_large_the_losses(values: list[float], temperature: float) -> None:
    found = cocktail_weights(values, temperature)
    assert math.fsum(found) == pytest.approx(1.0)
    assert all(0 <= weight <= 1 for weight in found)
    shifted = cocktail_weights([value + 4096.0 for value in values], temperature)
    assert shifted == pytest.approx(found, abs=1e-6)  # only differences of losses count


def test_cocktail_probes_each_model_alone_then_averages_all() -> None:
    strategy = Cocktail(space(3))
    probes = strategy.ask()
    assert [weights(p.recipe) for p in probes] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert not any(p.candidate for p in probes), "a probe is an expert, not a merge: it must not win"
    # union CE of rows (3, 1): (3·s + 1·0.5)/4
    strategy.tell([losses(0.1), losses(0.9), losses(2.5)])
    (average,) = strategy.ask()
    raw = [math.exp(-(3 * s + 0.5) / 4) for s in (0.1, 0.9, 2.5)]
    assert weights(average.recipe) == pytest.approx([r / sum(raw) for r in raw])
    assert average.recipe.merge_method == "linear", "LM-Cocktail mixes the weights themselves"
    assert average.candidate
    strategy.tell([losses(1.0)])
    assert strategy.ask() == []


def test_cocktail_refuses_a_model_that_can_not_be_weighed() -> None:
    strategy = Cocktail(space(2))
    strategy.ask()
    with pytest.raises(SearchError, match="can't weigh \\['e1'\\]"):
        strategy.tell([losses(0.1), None])


# --- EvoMM ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("coefficients", "population"), [(1, 4), (2, 6), (3, 7), (12, 11), (96, 17)])
def test_the_population_is_the_papers(coefficients: int, population: int) -> None:
    assert population_size(coefficients) == 4 + math.floor(3 * math.log(coefficients)) == population


def test_evolve_is_a_function_of_its_seed_and_of_what_it_is_told() -> None:
    one, same, other = (play(Evolve(space(), trials=36, seed=s), Bowl([0.8, 0.3])) for s in (1, 1, 2))
    assert one == same
    assert one != other
    elsewhere = play(Evolve(space(), trials=36, seed=1), Bowl([0.1, 1.2]))
    assert elsewhere[:6] == one[:6]  # the first generation knows nothing yet
    assert elsewhere[6:] != one[6:]


def test_evolve_neither_feels_nor_touches_the_global_generator() -> None:
    np.random.seed(1)
    undisturbed = play(Evolve(space(), trials=12, seed=5), Bowl([0.8, 0.3]))
    np.random.seed(2)
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    disturbed = play(Evolve(space(), trials=12, seed=5), Bowl([0.8, 0.3]))
    after = np.random.get_state()[1]  # type: ignore[index]
    assert disturbed == undisturbed
    assert (before == after).all()


def test_evolve_finds_the_bottom_of_a_bowl() -> None:
    bowl = Bowl([0.9, 0.2, 0.5])
    made = play(Evolve(space(3), trials=200, seed=0), bowl)
    last = [weights(p.recipe) for p in made[-7:]]
    assert np.mean(last, axis=0) == pytest.approx(bowl.minimum, abs=0.02)


def test_evolve_keeps_within_its_bounds_even_if_the_bottom_is_outside() -> None:
    made = play(Evolve(space(bounds=(0.0, 1.0)), trials=120, seed=0), Bowl([2.0, -1.0]))
    tried = np.array([weights(p.recipe) for p in made])
    assert tried.min() >= 0.0
    assert tried.max() <= 1.0
    assert tried[-6:].mean(axis=0) == pytest.approx([1.0, 0.0], abs=0.1)


def test_evolve_starts_around_the_uniform_merge() -> None:
    first = Evolve(space(4), trials=1, seed=0, step=0.01).ask()
    assert np.array([weights(p.recipe) for p in first]) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("trials", "made"), [(1, 6), (6, 6), (11, 6), (12, 12)])
def test_evolve_makes_whole_generations_and_never_none(trials: int, made: int) -> None:
    assert len(play(Evolve(space(), trials=trials, seed=0), Bowl([0.5, 0.5]))) == made


def test_a_failed_trial_ranks_behind_all_others_whatever_their_sign() -> None:
    """Half of the plane fails. A search that took a failure for 0 would go there; this one must not."""

    def play_with_failures(seed: int) -> list[list[float]]:
        strategy = Evolve(space(), trials=120, seed=seed)
        made: list[list[float]] = []
        while proposals := strategy.ask():
            points = [weights(p.recipe) for p in proposals]
            told: list[Losses | None] = [None if x > 0.6 else losses(5.0 + (x - 1.0) ** 2 + y**2) for x, y in points]
            strategy.tell(told)
            made += points
        return made

    x, y = np.array(play_with_failures(seed=0)[-18:]).mean(axis=0)
    assert x < 0.65
    assert y < 0.2


def test_a_generation_that_fails_as_a_whole_is_survived() -> None:
    strategy = Evolve(space(), trials=12, seed=0)
    strategy.tell([None] * len(strategy.ask()))
    assert len(strategy.ask()) == 6


# --- grid -------------------------------------------------------------------------------------------------


def test_the_grid_is_the_papers_one_weight_for_all() -> None:
    made = play(Grid(space(3)), Bowl([0.0, 0.0, 0.0]))
    assert [weights(p.recipe) for p in made] == [[w] * 3 for w in (0.1, 0.25, 0.33, 0.5, 1.0)]


@pytest.mark.parametrize("experts", [2, 3, 5])
def test_the_uniform_merge_gives_each_expert_its_share(experts: int) -> None:
    strategy = uniform(space(experts))
    (only,) = play(strategy, Bowl([0.0] * experts))
    assert weights(only.recipe) == [1 / experts] * experts
    assert strategy.name == "uniform"
