"""CMA-ES: the papers' population, pycma's own steps, limits by ranking, races, restarts, large genomes."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from landscapes import Bowls, genome, loss_rows, losses, play, scored, space

from unspoiled.objective import Constrained, Losses, Score, WeightedSum
from unspoiled.search import Evaluation, Evolve, Proposal, Range, population_size
from unspoiled.search.evolve import Algorithm, ranked

SAFETY_ONLY = WeightedSum(alpha=0.0)


def bowl(*minimum: float) -> Bowls:
    """Return losses whose safety is a bowl with a bottom of 0."""
    return Bowls({"safety": minimum, "expert": (0.5,) * len(minimum)}, {"safety": 2.0}, floor=0.0, rows=1)


@pytest.mark.parametrize(("coefficients", "population"), [(1, 4), (2, 6), (3, 7), (12, 11), (96, 17)])
def test_the_population_is_the_papers(coefficients: int, population: int) -> None:
    assert population_size(coefficients) == 4 + math.floor(3 * math.log(coefficients)) == population


def test_a_weighted_sum_is_minimised_exactly_as_pycma_does() -> None:
    """EvoMM as it is: the proposals are pycma's own, from the uniform merge with σ₀ = 0.25."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cma
    rng = np.random.default_rng(11)
    options = {"popsize": 7, "bounds": [0.0, 1.5], "randn": lambda *shape: rng.standard_normal(shape)}
    direct = cma.CMAEvolutionStrategy([1 / 3] * 3, 0.25, {**options, "seed": math.nan, "verbose": -9, "verb_log": 0})
    landscape, expected = bowl(0.9, 0.2, 0.5), []
    for _ in range(4):
        generation = direct.ask()
        expected += [tuple(map(float, each)) for each in generation]
        direct.tell(generation, [landscape.losses(each).safety for each in generation])
    made = play(Evolve(space(3), SAFETY_ONLY, trials=28, seed=11), landscape)
    assert [genome(p) for p in made] == expected


def test_evolve_is_a_function_of_its_seed_and_of_what_it_is_told() -> None:
    one, same, other = (play(Evolve(space(), SAFETY_ONLY, trials=36, seed=s), bowl(0.8, 0.3)) for s in (1, 1, 2))
    assert one == same
    assert one != other
    elsewhere = play(Evolve(space(), SAFETY_ONLY, trials=36, seed=1), bowl(0.1, 1.2))
    assert elsewhere[:6] == one[:6]  # the first generation knows nothing yet
    assert elsewhere[6:] != one[6:]


def test_evolve_neither_feels_nor_touches_the_global_generator() -> None:
    np.random.seed(1)
    undisturbed = play(Evolve(space(), SAFETY_ONLY, trials=12, seed=5), bowl(0.8, 0.3))
    np.random.seed(2)
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    disturbed = play(Evolve(space(), SAFETY_ONLY, trials=12, seed=5), bowl(0.8, 0.3))
    after = np.random.get_state()[1]  # type: ignore[index]
    assert disturbed == undisturbed
    assert (before == after).all()


@pytest.mark.parametrize("algorithm", ["cma", "separable"])
@pytest.mark.parametrize("minimum", [(0.9,), (0.9, 0.2, 0.5)])
def test_evolve_finds_the_bottom_of_a_bowl(algorithm: Algorithm, minimum: tuple[float, ...]) -> None:
    strategy = Evolve(space(len(minimum)), SAFETY_ONLY, trials=250, seed=0, algorithm=algorithm)
    made = play(strategy, bowl(*minimum))
    assert np.mean([genome(p) for p in made[-7:]], axis=0) == pytest.approx(minimum, abs=0.02)


def test_the_weighted_sum_counts_expert_and_benign_losses_too() -> None:
    """The bottom of ½|x − a|² + α ½|x − b|² + β ½|x − c|² is the weighted mean of a, b and c."""
    minima = {"safety": (1.0, 0.0), "expert": (0.0, 1.0), "benign": (0.5, 0.5)}
    strategy = Evolve(space(), WeightedSum(0.5, 0.25), trials=300, seed=0)
    made = play(strategy, Bowls(minima, rows=1))  # type: ignore[arg-type]
    expected = [(1.0 + 0.25 * 0.5) / 1.75, (0.5 + 0.25 * 0.5) / 1.75]
    assert np.mean([genome(p) for p in made[-6:]], axis=0) == pytest.approx(expected, abs=0.02)


def test_evolve_keeps_within_its_ranges_even_if_the_bottom_is_outside() -> None:
    searched = space(ranges={"weight": Range(0.0, 1.0, 0.5)})
    tried = np.array([genome(p) for p in play(Evolve(searched, SAFETY_ONLY, trials=120, seed=0), bowl(2.0, -1.0))])
    assert tried.min() >= 0.0
    assert tried.max() <= 1.0
    assert tried[-6:].mean(axis=0) == pytest.approx([1.0, 0.0], abs=0.1)


def test_steps_are_relative_to_each_coefficients_own_range() -> None:
    """A density of [0.4, 0.55], a tenth as wide as a weight's range, varies a tenth as much."""
    searched = space(method="ties", ranges={"weight": Range(0.0, 1.5, 0.5), "density": Range(0.4, 0.55, 0.475)})
    first = [genome(p) for s in range(40) for p in play(Evolve(searched, SAFETY_ONLY, trials=1, seed=s, step=0.05), _f)]
    spread = np.std(np.array(first), axis=0)
    assert spread[:2] == pytest.approx([0.05] * 2, rel=0.15)
    assert spread[2:] == pytest.approx([0.005] * 2, rel=0.15)


def test_evolve_starts_around_the_uniform_merge_or_where_it_is_told() -> None:
    def first(start: tuple[float, ...] | None) -> list[tuple[float, ...]]:
        return [genome(p) for p in play(Evolve(space(4), SAFETY_ONLY, trials=1, seed=0, step=0.01, start=start), _f)]

    assert np.array(first(None)) == pytest.approx(0.25, abs=0.05)
    assert np.mean(first((0.9, 0.1, 1.2, 0.6)), axis=0) == pytest.approx([0.9, 0.1, 1.2, 0.6], abs=0.02)


@pytest.mark.parametrize(("trials", "made"), [(1, 6), (6, 6), (11, 6), (12, 12)])
def test_evolve_makes_whole_generations_and_never_none(trials: int, made: int) -> None:
    assert len(play(Evolve(space(), SAFETY_ONLY, trials=trials, seed=0), bowl(0.5, 0.5))) == made


def test_a_failed_trial_ranks_behind_all_others_whatever_their_sign() -> None:
    """Half of the plane fails. A search that took a failure for 0 would go there; this one must not."""

    def half(proposal: Proposal) -> Evaluation | None:
        x, y = genome(proposal)
        return None if x > 0.6 else scored(proposal, losses(5.0 + (x - 1.0) ** 2 + y**2))

    made = play(Evolve(space(), SAFETY_ONLY, trials=120, seed=0), half)
    x, y = np.mean([genome(p) for p in made[-18:]], axis=0)
    assert x < 0.65
    assert y < 0.2


# --- limits -----------------------------------------------------------------------------------------------


def test_the_rank_within_a_generation_is_that_of_the_scores() -> None:
    """Deb's rule: within the limits by value, then by how much they are broken; the value doesn't count there."""
    scores = [Score(0.3, 0.1), Score(0.0, 9.0), Score(0.0, 0.2), Score(0.01, 50.0), Score(0.3, 7.0)]
    values = [ranked(score) for score in scores]
    assert sorted(range(3), key=values.__getitem__) == sorted(range(3), key=scores.__getitem__) == [2, 1, 0]
    assert max(values[1], values[2]) < values[3] < values[0] == values[4]


def test_the_best_merge_within_a_limit_is_found() -> None:
    """Minimise ½|x − (1, 0)|² within ½|x − (0, 1)|² ≤ 0.25: on the line between, 1/√2 away from (0, 1)."""
    minima = {"safety": (0.0, 1.0), "expert": (1.0, 0.0)}
    landscape = Bowls(minima, floor=0.0, rows=1)  # type: ignore[arg-type]
    goal = Constrained({"safety": 0.25})
    made = play(Evolve(space(), goal, trials=300, seed=1), landscape)
    found = min(made, key=lambda p: goal.score(landscape.losses(genome(p))))
    assert goal.score(landscape.losses(genome(found))).feasible
    assert genome(found) == pytest.approx((0.5, 0.5), abs=0.02)


# --- races ------------------------------------------------------------------------------------------------


def test_the_rival_is_the_last_that_would_move_the_search_and_was_scored_in_full() -> None:
    """Population 6, so μ = 3: the third best of those that no race stopped."""
    totals = [0.5, 0.1, 0.9, 0.3, 0.2, 0.4]
    stopped = {1}  # the best by its estimate, but not scored on all rows

    def trial(proposal: Proposal) -> Evaluation:
        total = totals[proposal.number % 6]
        return Evaluation(losses(total), (), (total,) * 4, proposal.number % 6 in stopped, None, 0, 0.0, 0.0)

    made = play(Evolve(space(), SAFETY_ONLY, trials=12, seed=0, race=True), trial)
    assert {p.rival for p in made[:6]} == {None}
    rivals = [p.rival for p in made[6:]]
    assert {rival.score for rival in rivals if rival} == {Score(0.0, 0.4)}  # 0.2, 0.3, 0.4
    assert all(rival and rival.cross_entropies == (0.4,) * 4 for rival in rivals)
    assert not any(p.rival for p in play(Evolve(space(), SAFETY_ONLY, trials=12, seed=0), trial))


def test_a_race_that_is_never_surely_lost_changes_nothing() -> None:
    landscape = bowl(0.8, 0.3)
    raced = play(Evolve(space(), SAFETY_ONLY, trials=36, seed=1, race=True), landscape)
    plain = play(Evolve(space(), SAFETY_ONLY, trials=36, seed=1), landscape)
    assert [genome(p) for p in raced] == [genome(p) for p in plain]


# --- restarts ---------------------------------------------------------------------------------------------


def two_valleys(proposal: Proposal) -> Evaluation:
    """A wide valley about (0.3, 0.3), where the search starts, and a deeper one in the far corner."""
    x = np.array(genome(proposal))
    wide, deep = np.sum((x - 0.3) ** 2), 4 * np.sum((x - 1.3) ** 2) - 0.5
    return scored(proposal, losses(2.0 + float(min(wide, deep))))


def test_restarts_leave_a_valley_that_a_single_run_stays_in() -> None:
    start = (0.3, 0.3)
    single = play(Evolve(space(), SAFETY_ONLY, trials=700, seed=0, step=0.1, start=start), two_valleys)
    several = play(Evolve(space(), SAFETY_ONLY, trials=700, seed=0, step=0.1, start=start, restarts=3), two_valleys)
    assert min(two_valleys(p).losses.safety for p in single) == pytest.approx(2.0, abs=0.01)
    assert min(two_valleys(p).losses.safety for p in several) == pytest.approx(1.5, abs=0.01)


def test_each_restart_has_twice_the_population() -> None:
    strategy = Evolve(space(), SAFETY_ONLY, trials=2000, seed=0, restarts=2)
    assert strategy.population == 6
    play(strategy, bowl(0.8, 0.3))
    assert strategy.population == 24


@pytest.mark.parametrize("budget", [60, 200, 333, 700])
def test_a_larger_budget_goes_on_across_restarts(budget: int) -> None:
    long = play(Evolve(space(), SAFETY_ONLY, trials=900, seed=0, restarts=3), bowl(0.8, 0.3))
    short = play(Evolve(space(), SAFETY_ONLY, trials=budget, seed=0, restarts=3), bowl(0.8, 0.3), workers=7)
    assert short == long[: len(short)]
    assert len(short) <= budget


def test_a_run_that_has_converged_goes_on_where_no_restart_is_left() -> None:
    assert len(play(Evolve(space(), SAFETY_ONLY, trials=600, seed=0), bowl(0.8, 0.3))) == 600


# --- large genomes ----------------------------------------------------------------------------------------


def steep(n: int) -> Bowls:
    """Return a bowl whose axes' curvatures range over a factor of 100."""
    curvatures = np.logspace(-1, 1, n)
    return Bowls({"safety": np.linspace(0.2, 1.0, n), "expert": [0.5] * n}, {"safety": curvatures}, floor=0.0, rows=1)


def reached(algorithm: Algorithm, n: int, trials: int) -> float:
    searched = space(2, granularity="layer", layers=n // 2)
    landscape = steep(n)
    strategy = Evolve(searched, SAFETY_ONLY, trials=trials, seed=0, algorithm=algorithm)
    return min(landscape.losses(genome(p)).safety for p in play(strategy, landscape))


def test_separable_learns_the_axes_of_a_large_genome_sooner() -> None:
    assert reached("separable", 60, 1800) < 0.5 * reached("cma", 60, 1800)


@pytest.mark.parametrize(("n", "same"), [(100, "cma"), (102, "separable")])
def test_auto_is_separable_above_100_coefficients(n: int, same: Algorithm) -> None:
    assert reached("auto", n, 60) == reached(same, n, 60)


def test_smooth_genomes_bend_over_depth_and_need_fewer_coefficients() -> None:
    searched = space(2, granularity="smooth", groups=3, layers=24)
    assert searched.size == 6
    made = play(Evolve(searched, SAFETY_ONLY, trials=300, seed=0), bowl(1.0, 0.5, 0.2, 0.1, 0.4, 0.9))
    recipe = made[-1].recipe
    found = [recipe.parameter("weight", 0, tensor="", layer=i, layers=24) for i in (0, 23)]
    assert found == pytest.approx([1.0, 0.2], abs=0.1)


def _f(proposal: Proposal) -> Evaluation:
    return scored(proposal, _NOTHING)


_NOTHING: Losses = loss_rows(safety=1, expert=1).losses([0.0, 0.0])
