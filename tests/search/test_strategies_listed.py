"""The baselines against the papers: the grid, LM-Cocktail, random search, and every model alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from landscapes import WEIGHT, losses, play, scored, space, weights

from unspoiled.config import Recipe
from unspoiled.errors import SearchError
from unspoiled.search import (
    Cocktail,
    Evaluation,
    Grid,
    Parents,
    Proposal,
    Random,
    Range,
    cocktail_start,
    cocktail_weights,
    uniform,
)

MODELS = {"aligned": "models/a", "maths": "models/m+adapter"}


def ignored(proposal: Proposal) -> Evaluation:
    return scored(proposal, losses(0.0))


def value(recipe: Recipe, name: str, model: int | None = None) -> float:
    found = recipe.parameter(name, model, tensor="model.layers.0.mlp.up_proj.weight", layer=0, layers=6)
    assert found is not None
    return float(found)


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


def test_cocktail_averages_all_experts_by_their_losses_on_both_sets() -> None:
    alone = {"e1": losses(0.9), "base": losses(9.0), "e0": losses(0.1), "e2": losses(2.5)}
    (average,) = play(Cocktail(space(3), alone), ignored)
    # union CE of rows (3, 1): (3·s + 1·0.5)/4
    raw = [math.exp(-(3 * s + 0.5) / 4) for s in (0.1, 0.9, 2.5)]
    assert weights(average.recipe) == pytest.approx([r / sum(raw) for r in raw])
    assert average.recipe.merge_method == "linear", "LM-Cocktail mixes the weights themselves"
    assert average.candidate


def test_cocktail_is_where_a_search_over_task_vectors_can_start() -> None:
    """θ_base + Σ w τ = Σ w θ where the weights sum to 1; every layer and kind of one expert has the same."""
    alone = {"e0": losses(0.1), "e1": losses(0.9)}
    (average,) = play(Cocktail(space(), alone), ignored)
    start = cocktail_start(space(granularity="layer"), alone)
    assert start == tuple(w for w in weights(average.recipe) for _ in range(6))
    assert math.fsum(weights(average.recipe)) == pytest.approx(1.0)


def test_cocktail_refuses_a_model_that_can_not_be_weighed() -> None:
    with pytest.raises(SearchError, match="can't weigh \\['e1'\\]"):
        Cocktail(space(2), {"e0": losses(0.1)})


# --- every model alone ------------------------------------------------------------------------------------


def test_parents_scores_every_model_alone_on_both_splits_and_lets_none_win() -> None:
    strategy = Parents(MODELS, dtype="float32")
    made = play(strategy, ignored)
    assert [(p.split, [entry.model for entry in p.recipe.models]) for p in made] == [
        (split, [model]) for split in ("search", "selection") for model in MODELS.values()
    ]
    assert all(weights(p.recipe) == [1.0] and p.rows is None and not p.candidate for p in made)
    assert all(p.recipe.merge_method == "linear" and p.recipe.dtype == "float32" for p in made)


def test_parents_keeps_the_losses_by_split_and_model_whatever_order_they_come_in() -> None:
    def alone(proposal: Proposal) -> Evaluation | None:
        (name,) = proposal.coefficients
        if (name, proposal.split) == ("aligned", "selection"):
            return None
        base = {"aligned": 1.0, "maths": 2.0}[name] + (0.5 if proposal.split == "selection" else 0.0)
        return Evaluation(losses(base), (0, 1), (base, 0.5), False, None, 0, 0.0, 0.0)

    strategy = Parents(MODELS, dtype="bfloat16")
    play(strategy, alone, workers=4, seed=1)
    assert strategy.losses("search") == {"aligned": losses(1.0), "maths": losses(2.0)}
    assert list(strategy.losses("search")) == list(MODELS)
    assert strategy.losses("selection") == {"maths": losses(2.5)}, "one that failed has no losses"
    assert strategy.cross_entropies("search") == {"aligned": (1.0, 0.5), "maths": (2.0, 0.5)}


# --- the grid ---------------------------------------------------------------------------------------------


def test_the_grid_is_the_papers_one_weight_for_all() -> None:
    made = play(Grid(space(3)), ignored)
    assert [weights(p.recipe) for p in made] == [[w] * 3 for w in (0.1, 0.25, 0.33, 0.5, 1.0)]


def test_a_grid_over_ties_crosses_weights_with_densities() -> None:
    searched = space(method="ties", ranges={**WEIGHT, "density": Range(0.1, 1.0, 0.5)})
    cells = [(value(p.recipe, "weight", 1), value(p.recipe, "density", 0)) for p in play(Grid(searched), ignored)]
    assert cells == [(w, d) for w in (0.1, 0.25, 0.33, 0.5, 1.0) for d in (0.25, 0.5, 1.0)]


def test_a_grid_over_slerp_goes_from_one_model_to_the_other() -> None:
    searched = space(method="slerp", ranges={"t": Range(0.0, 1.0, 0.5)})
    found = [value(p.recipe, "t") for p in play(Grid(searched), ignored)]
    assert found == pytest.approx([i / 10 for i in range(1, 11)])


def test_the_grid_leaves_out_what_the_ranges_leave_out() -> None:
    searched = space(method="ties", ranges={"weight": Range(0.3, 0.6, 0.4), "density": Range(0.6, 0.9, 0.8)})
    cells = [(value(p.recipe, "weight", 1), value(p.recipe, "density", 0)) for p in play(Grid(searched), ignored)]
    assert cells == [(0.33, 0.8), (0.5, 0.8)], "no density of the paper's is allowed: it stays at its start"


@pytest.mark.parametrize("experts", [2, 3, 5])
def test_the_uniform_merge_gives_each_expert_its_share(experts: int) -> None:
    strategy = uniform(space(experts))
    (only,) = play(strategy, ignored)
    assert weights(only.recipe) == [1 / experts] * experts
    assert strategy.name == "uniform"


# --- random search ----------------------------------------------------------------------------------------


def test_random_search_fills_every_range_evenly() -> None:
    searched = space(method="ties", ranges={"weight": Range(-1.0, 1.0, 0.5), "density": Range(0.2, 0.4, 0.3)})
    made = [list(p.coefficients.values()) for p in play(Random(searched, trials=400, seed=0), ignored)]
    for low, high, column in zip(searched.low, searched.high, zip(*made, strict=True), strict=True):
        assert low <= min(column) < low + 0.05 * (high - low)
        assert high >= max(column) > high - 0.05 * (high - low)
        # the mean of 400 uniform draws has a standard deviation of width/√12/20
        assert sum(column) / 400 == pytest.approx((low + high) / 2, abs=4 * (high - low) / math.sqrt(12) / 20)
