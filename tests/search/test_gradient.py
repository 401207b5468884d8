"""Descent through the merge: known bottoms, limits kept, steps, prior, checks, early end, workers, failures, cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from landscapes import Bowls, best, distance, genome, loss_rows, losses, play, space

from unspoiled.objective import Constrained, Losses, WeightedSum
from unspoiled.search import Evaluation, Evolve, Gradient, Proposal, Range, SearchSpace

BOTH = WeightedSum(alpha=1.0)


def layered(n: int) -> SearchSpace:
    """Return a space of n coefficients, two experts' over n/2 layers."""
    return space(granularity="layer", layers=n // 2)


def gradients(made: list[Proposal]) -> list[Proposal]:
    return [proposal for proposal in made if proposal.gradient is not None]


def checks(made: list[Proposal]) -> list[Proposal]:
    return [proposal for proposal in made if proposal.gradient is None]


# --- where it ends ----------------------------------------------------------------------------------------


def test_a_weighted_sum_ends_at_its_bottom() -> None:
    """The bottom of ½|x − a|² + α ½|x − b|² is the weighted mean of a and b."""
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.1, 0.8)})
    made = play(Gradient(space(), WeightedSum(0.5), landscape.data["search"], steps=100, prior=0.0), landscape)
    assert genome(made[-1]) == pytest.approx((1.05 / 1.5, 0.6 / 1.5), abs=0.01)


def test_a_bottom_outside_of_the_ranges_is_sought_at_their_edge() -> None:
    searched = space(ranges={"weight": Range(0.0, 1.0, 0.5)})
    landscape = Bowls({"safety": (2.0, 0.3), "expert": (2.0, 0.3)})
    made = play(Gradient(searched, BOTH, landscape.data["search"], steps=60, prior=0.0), landscape)
    assert genome(made[-1]) == pytest.approx((1.0, 0.3), abs=0.02)


@pytest.mark.parametrize("n", [2, 40])
def test_the_prior_pulls_to_the_start_as_strongly_whatever_the_number_of_coefficients(n: int) -> None:
    """With ½ c/n Σ(x − m)² + κ/n Σ(x − s)², x = (c m + 2κ s)/(c + 2κ) for every n."""
    landscape = Bowls({"safety": [1.0] * n, "expert": [1.0] * n}, {"safety": 0.5 / n, "expert": 0.5 / n})
    strategy = Gradient(layered(n), BOTH, landscape.data["search"], steps=200, start=[0.2] * n, prior=0.5)
    made = play(strategy, landscape)
    assert genome(made[-1]) == pytest.approx([(1.0 + 2 * 0.5 * 0.2) / (1.0 + 2 * 0.5)] * n, abs=0.01)


def test_the_prior_keeps_hundreds_of_coefficients_from_following_the_noise_of_few_rows() -> None:
    """Each row's bottom lies elsewhere; four search rows say little about where the bottom of all rows is."""
    n = 200
    truth = np.full(n, 0.7)
    shift = np.random.default_rng(3).normal(0, 0.4, n)  # what the search rows wrongly say
    landscape = Bowls({"safety": truth + shift, "expert": truth + shift}, {"safety": 1 / n, "expert": 1 / n}, rows=4)

    def miss(prior: float) -> float:
        strategy = Gradient(layered(n), BOTH, landscape.data["search"], steps=100, prior=prior, patience=99)
        return distance(genome(play(strategy, landscape)[-1]), truth)

    assert miss(prior=2.0) < 0.6 * miss(prior=0.0)


# --- limits -----------------------------------------------------------------------------------------------


def on_the_line(n: int, tolerance: float, noise: float) -> tuple[Bowls, Constrained, Constrained, float]:
    """Return two bowls at a distance, limits near the one's bottom, and the least CE_expert within them.

    With bottoms D apart and both of curvature c, a limit r away from the safest point (½ c r² = tolerance) is met
    best on the line between the bottoms, where CE_expert is ½ c (D − r)² above its own lowest.
    """
    safest, expert = [1.0] * (n // 2) + [0.2] * (n // 2), [0.4] * (n // 2) + [0.9] * (n // 2)
    curvature = 4.0 / n
    bowls = Bowls(
        {"safety": safest, "expert": expert}, dict.fromkeys(("safety", "expert"), curvature), rows=32, noise=noise
    )
    at_search, at_selection = (
        Constrained({"safety": bowls.losses(safest, split).safety + tolerance}) for split in ("search", "selection")
    )
    apart, radius = math.dist(safest, expert), math.sqrt(2 * tolerance / curvature)
    lowest = bowls.losses(expert, "selection").expert + curvature / 2 * (apart - radius) ** 2
    return bowls, at_search, at_selection, lowest


@pytest.mark.parametrize("tolerance", [0.02, 0.1])
@pytest.mark.parametrize(("n", "noise"), [(2, 0.0), (2, 0.3), (120, 0.6)])
def test_it_ends_within_an_active_limit_and_close_to_the_best_there(n: int, noise: float, tolerance: float) -> None:
    bowls, goal, at_selection, lowest = on_the_line(n, tolerance, noise)
    safest_genome = [1.0] * (n // 2) + [0.2] * (n // 2)
    reference = bowls.cross_entropies(safest_genome, "search", range(64))
    strategy = Gradient(layered(n), goal, bowls.data["search"], selection_goal=at_selection, reference=reference)
    found = best(play(strategy, bowls), lambda p: at_selection.score(bowls.losses(genome(p), "selection")))
    reached = bowls.losses(genome(found), "selection")
    assert at_selection.score(reached).feasible
    safest = bowls.losses(safest_genome, "selection")
    assert reached.expert - lowest < 0.25 * (safest.expert - lowest), "of what the limit leaves to be gained"


def test_longer_descents_close_in_on_the_limit() -> None:
    bowls, goal, at_selection, lowest = on_the_line(2, 0.1, noise=0.3)
    safest = bowls.cross_entropies((1.0, 0.2), "search", range(64))
    strategy = Gradient(
        space(), goal, bowls.data["search"], selection_goal=at_selection, reference=safest, steps=200, patience=99
    )
    last = [bowls.losses(genome(p), "selection") for p in checks(play(strategy, bowls))[-5:]]
    assert [each.safety for each in last] == pytest.approx([at_selection.limits["safety"]] * 5, abs=0.04)
    assert np.mean([each.expert for each in last]) == pytest.approx(lowest, abs=0.05)


def test_a_reference_tells_a_minibatch_of_hard_rows_from_a_broken_limit() -> None:
    """The merge is the reference itself: whatever rows it is seen on, the limit is broken by exactly as much."""
    data = loss_rows(safety=8, expert=8)
    hardness = [float(i % 8) for i in range(16)]  # nats per token
    goal = Constrained({"safety": 3.4})  # all rows' mean is 3.5

    def weights(reference: list[float] | None) -> list[float]:
        def as_hard(proposal: Proposal) -> Evaluation | None:
            if proposal.gradient is None:
                return None
            rows = proposal.rows or ()
            values = tuple(hardness[i] for i in rows)
            return Evaluation(data.losses(values, rows), rows, values, False, (0.0, 0.0), 0, 0.0, 0.0)

        strategy = Gradient(space(), goal, data, batch=2, steps=20, patience=99, margin=0.0, reference=reference)
        requests = [p.gradient for p in gradients(play(strategy, as_hard))]
        return [request.weights["safety"] for request in requests if request]

    assert weights(hardness)[1:] == pytest.approx([2 ** (0.1 / 0.34)] * 19)
    assert np.ptp(weights(None)[1:]) > 0.5


def test_a_limit_that_is_kept_anyway_does_not_hold_the_expert_back() -> None:
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.5, 0.8)})
    goal = Constrained({"safety": 5.0})
    made = play(Gradient(space(), goal, landscape.data["search"], steps=100, prior=0.0, patience=99), landscape)
    assert genome(made[-1]) == pytest.approx((0.5, 0.8), abs=0.02)


def test_a_limit_out_of_reach_is_broken_as_little_as_possible() -> None:
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.5, 0.8)})
    goal = Constrained({"safety": 0.05})  # the floor is at 0.1
    made = play(Gradient(space(), goal, landscape.data["search"], steps=100, patience=99), landscape)
    assert genome(made[-1]) == pytest.approx((1.0, 0.2), abs=0.02)


def test_two_limits_at_once() -> None:
    """As near to (0, 0) as two circles about (1, 0) and (0.3, 1) allow: at a corner where both limits are active."""
    landscape = Bowls({"safety": (1.0, 0.0), "expert": (0.0, 0.0), "benign": (0.3, 1.0)}, floor=0.01)
    goal = Constrained({"safety": 0.135, "benign": 0.37})
    made = play(Gradient(space(), goal, landscape.data["search"], steps=200, patience=99), landscape)
    found = landscape.losses(genome(best(made, lambda p: goal.score(landscape.losses(genome(p))))))
    assert goal.score(found).feasible
    grid = [landscape.losses((x / 50, y / 50)) for x in range(51) for y in range(51)]
    assert found.expert == pytest.approx(min(each.expert for each in grid if goal.score(each).feasible), rel=0.1)


# --- steps ------------------------------------------------------------------------------------------------


def sloping(proposal: Proposal) -> Evaluation:
    """A plane: the gradient is the same everywhere."""
    slope = tuple(0.3 / (i + 1) for i in range(len(proposal.coefficients))) if proposal.gradient else None
    return Evaluation(losses(1.0), proposal.rows or (), (1.0,) * len(proposal.rows or ()), False, slope, 0, 0.0, 0.0)


def test_the_step_size_is_the_learning_rate_and_shrinks_as_promised() -> None:
    data = loss_rows(safety=4, expert=4)
    made = play(Gradient(space(), BOTH, data, start=(1.4, 1.4), steps=15, learning_rate=0.05, prior=0.0), sloping)
    path = np.array([genome(p) for p in gradients(made)])
    expected = [0.05 / math.sqrt(1 + k / 20) for k in range(len(path) - 1)]
    for column in (path[:-1] - path[1:]).T:
        assert column == pytest.approx(expected, rel=1e-6)


def test_the_step_size_is_relative_to_each_coefficients_own_range() -> None:
    searched = space(method="ties", ranges={"weight": Range(0.0, 1.5, 0.5), "density": Range(0.4, 0.7, 0.5)})
    made = play(Gradient(searched, BOTH, loss_rows(safety=4, expert=4), steps=5, learning_rate=0.1), sloping)
    one, two = (np.array(genome(p)) for p in gradients(made)[:2])
    assert one - two == pytest.approx([0.1, 0.1, 0.02, 0.02], rel=1e-6)


def test_it_starts_at_the_uniform_merge_or_where_it_is_told() -> None:
    data = loss_rows(safety=4, expert=4)
    first = Gradient(space(4), BOTH, data).ask()
    assert first is not None
    assert genome(first) == (0.25,) * 4
    told = Gradient(space(), BOTH, data, start=(0.9, 7.0)).ask()
    assert told is not None
    assert genome(told) == (0.9, 1.5), "clipped to the range"


def test_a_step_wants_the_gradient_of_the_goal_on_a_few_rows_of_every_set() -> None:
    data = loss_rows(safety=20, expert=20)
    first = Gradient(space(), WeightedSum(0.3, 0.2), data, batch=4).ask()
    assert first is not None
    assert first.gradient is not None
    assert first.gradient.weights == {"safety": 1.0, "expert": 0.3}, "there are no rows of D_benign"
    assert first.rows is not None
    assert [data.rows[i].set for i in first.rows] == ["safety"] * 4 + ["expert"] * 4
    assert first.split == "search"
    assert not first.candidate


# --- checks -----------------------------------------------------------------------------------------------


def test_every_few_steps_a_candidate_is_scored_on_the_whole_selection_split() -> None:
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.1, 0.8)})
    made = play(Gradient(space(), BOTH, landscape.data["search"], steps=12, check_every=4), landscape)
    assert len(gradients(made)) == 12
    assert [p.candidate for p in gradients(made)] == [False] * 12
    assert [(p.candidate, p.split, p.rows) for p in checks(made)] == [(True, "selection", None)] * 3
    # a check scores the genome that the next step is taken from
    assert [genome(p) for p in checks(made)[:2]] == [genome(gradients(made)[k]) for k in (4, 8)]


def test_steps_are_rounded_up_to_whole_checks() -> None:
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.1, 0.8)})
    made = play(Gradient(space(), BOTH, landscape.data["search"], steps=11, check_every=5), landscape)
    assert (len(gradients(made)), len(checks(made))) == (15, 3)


def test_it_ends_when_the_selection_split_gains_nothing_any_more() -> None:
    """The search rows lead away from the start, where the selection rows' bottom is."""
    landscape = Bowls({"safety": (1.4, 1.4), "expert": (1.4, 1.4)})
    start = (0.5, 0.5)

    def other_bottom(proposal: Proposal) -> Evaluation:
        result = landscape(proposal)
        if proposal.split == "search":
            return result
        away = math.dist(genome(proposal), start)
        return Evaluation(losses(away, away), (), (), False, None, 0, 0.0, 0.0)

    made = play(Gradient(space(), BOTH, landscape.data["search"], steps=500, start=start, patience=3), other_bottom)
    assert len(checks(made)) == 1 + 3, "the first check is the best, and three in a row gain nothing"
    patient = play(Gradient(space(), BOTH, landscape.data["search"], steps=100, start=start, patience=99), other_bottom)
    assert len(checks(patient)) == 20


def test_the_selection_splits_own_limits_decide_there() -> None:
    """Within the search split's limit and beyond the selection split's: the weight of safety must go up."""
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.1, 0.8)})

    def last_weight(limit: float) -> float:
        strategy = Gradient(
            space(),
            Constrained({"safety": 1.0}),
            landscape.data["search"],
            steps=30,
            patience=99,
            selection_goal=Constrained({"safety": limit}),
        )
        request = gradients(play(strategy, landscape))[-1].gradient
        assert request is not None
        return request.weights["safety"]

    assert last_weight(0.11) > 8 * last_weight(1.0)


# --- workers ----------------------------------------------------------------------------------------------


def test_shards_of_a_step_have_rows_of_their_own_and_make_one_larger_step_together() -> None:
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.1, 0.8)}, rows=12, noise=0.5)
    data = landscape.data["search"]
    three = play(Gradient(space(), BOTH, data, steps=10, batch=2, shards=3), landscape, workers=3)
    one = play(Gradient(space(), BOTH, data, steps=10, batch=6), landscape)
    steps = [gradients(three)[i : i + 3] for i in range(0, 30, 3)]
    for shards, whole in zip(steps, gradients(one), strict=True):
        rows = [i for proposal in shards for i in proposal.rows or ()]
        assert len(set(rows)) == len(rows)
        assert tuple(sorted(rows)) == whole.rows
        assert genome(shards[0]) == pytest.approx(genome(whole), abs=1e-12)


def test_more_shards_than_rows_of_a_set_are_as_many_as_it_has() -> None:
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.1, 0.8)}, rows=3)
    made = play(Gradient(space(), BOTH, landscape.data["search"], steps=5, shards=8), landscape, workers=8)
    assert len(gradients(made)) == 15
    assert all(len(p.rows or ()) == 2 for p in gradients(made))


# --- failures ---------------------------------------------------------------------------------------------


def test_a_step_into_the_impossible_goes_half_of_the_way_back() -> None:
    landscape = Bowls({"safety": (1.4, 0.5), "expert": (1.4, 0.5)})

    def impossible(proposal: Proposal) -> Evaluation | None:
        return None if genome(proposal)[0] > 0.9 else landscape(proposal)

    made = play(Gradient(space(), BOTH, landscape.data["search"], steps=40, patience=99, prior=0.0), impossible)
    path = [genome(p)[0] for p in gradients(made)]
    for i in range(1, len(path) - 1):
        if path[i] > 0.9:
            assert path[i + 1] < path[i]
    assert len(gradients(made)) == 40
    assert max(p for p in path if p <= 0.9) > 0.8, "it comes as close as it can"


def test_it_ends_when_three_steps_in_a_row_fail() -> None:
    data = loss_rows(safety=4, expert=4)
    assert len(play(Gradient(space(), BOTH, data, steps=40), lambda proposal: None)) == 3


def test_one_failed_shard_leaves_the_others() -> None:
    landscape = Bowls({"safety": (1.0, 0.2), "expert": (0.1, 0.8)}, rows=12)
    strategy = Gradient(space(), BOTH, landscape.data["search"], steps=60, batch=2, shards=3, prior=0.0)
    made = play(strategy, lambda p: None if p.candidate is False and p.number % 3 == 0 else landscape(p), workers=3)
    assert genome(made[-1]) == pytest.approx((0.55, 0.5), abs=0.02)


# --- cost -------------------------------------------------------------------------------------------------


def test_gradients_reach_what_evolution_reaches_for_a_tenth_of_its_cost() -> None:
    """On 120 coefficients: 100 trials on all rows, against minibatches whose gradients cost three forward passes."""
    n = 120
    rng = np.random.default_rng(5)
    minima = {"safety": rng.uniform(0, 1.5, n), "expert": rng.uniform(0, 1.5, n)}
    landscape = Bowls(minima, {"safety": 4 / n, "expert": 4 / n}, rows=64, noise=0.3)

    def total(found: Losses) -> float:
        return BOTH.score(found).value

    made = play(Evolve(layered(n), BOTH, trials=100, seed=0), landscape)
    evolved, its_cost = min(total(landscape.losses(genome(p))) for p in made), landscape.forward
    landscape.forward = 0
    costs: list[int] = []

    def until_reached(proposal: Proposal) -> Evaluation:
        result = landscape(proposal)
        if not costs and total(landscape.losses(genome(proposal))) <= evolved:
            costs.append(landscape.forward)
        return result

    made = play(Gradient(layered(n), BOTH, landscape.data["search"], patience=99), until_reached)
    assert costs[0] <= its_cost / 10
    assert total(landscape.losses(genome(made[-1]))) < evolved
