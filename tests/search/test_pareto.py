"""Fronts: what is on them, what they are worth, and searches that find them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from landscapes import Bowls, genome, losses, play, scored, space

from unspoiled.errors import SearchError
from unspoiled.objective import Losses, Term
from unspoiled.search import Evaluation, Pareto, Proposal, Random, Sweep, coordinates, front, hypervolume
from unspoiled.search.sweep import simplex_point

TWO: tuple[Term, ...] = ("safety", "expert")
POINTS = st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=8)


# --- the front --------------------------------------------------------------------------------------------


def test_the_front_is_what_nothing_beats_by_hand() -> None:
    found = [losses(1, 5), losses(2, 3), losses(2, 4), losses(4, 1), losses(4, 1), losses(5, 5), losses(1, 6)]
    # (2, 4) loses to (2, 3), (5, 5) to all, (1, 6) to (1, 5); the two (4, 1) are equal
    assert front(found, TWO) == [0, 1, 3, 4]


def test_a_third_loss_can_keep_a_merge_on_the_front() -> None:
    found = [losses(1, 1, benign=2.0), losses(2, 2, benign=1.0)]
    assert front(found, TWO) == [0]
    assert front(found, (*TWO, "benign")) == [0, 1]


def test_domains_take_the_place_of_the_expert_loss() -> None:
    def found(math_: float, law: float) -> Losses:
        return Losses(0.1, (math_ + law) / 2, {"law": law, "math": math_}, None, (4, 4))

    both = [found(1.0, 3.0), found(1.5, 2.9)]
    assert front(both, TWO) == [0]
    assert front(both, TWO, domains=("math", "law")) == [0, 1]
    assert coordinates(both[0], TWO, ("math", "law")) == (0.1, 1.0, 3.0)


def test_a_loss_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(SearchError, match="no loss 'benign' to draw a front of: choose from math, safety, expert"):
        front([losses(1.0)], ("safety", "benign"))


# --- the hypervolume --------------------------------------------------------------------------------------


def test_the_hypervolume_of_a_staircase_by_hand() -> None:
    # boxes to (4, 4) from (1, 3), (2, 2), (3, 1): columns of heights 1, 2, 3
    assert hypervolume([(3, 1), (1, 3), (2, 2)], (4, 4)) == 6
    assert hypervolume([(1, 3), (2, 2), (3, 1), (2.5, 2.5)], (4, 4)) == 6, "a dominated point adds nothing"
    assert hypervolume([(4, 0), (0, 5)], (4, 4)) == 0, "nor does one that isn't better in every coordinate"
    assert hypervolume([], (4, 4)) == 0


def test_the_hypervolume_in_three_dimensions_by_hand() -> None:
    # two boxes 2·2·1 and 1·1·2 from (2, 2, 2), which share 1·1·1
    assert hypervolume([(0, 0, 1), (1, 1, 0)], (2, 2, 2)) == 4 + 2 - 1
    assert hypervolume([(0.5, 0.5, 0.5)], (1, 1, 1)) == pytest.approx(1 / 8)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_the_hypervolume_is_the_share_of_random_points_that_are_beaten(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    points = rng.uniform(0, 1, (9, dimension))
    darts = rng.uniform(0, 1, (40_000, dimension))
    share = (darts[:, None, :] >= points[None]).all(axis=2).any(axis=1).mean()
    # 4 standard errors of a share of 40,000
    assert hypervolume(points.tolist(), [1.0] * dimension) == pytest.approx(share, abs=4 * 0.5 / 200)


@given(points=POINTS, more=st.tuples(*[st.floats(0, 1)] * 3), order=st.randoms(use_true_random=False))
def test_more_points_never_shrink_it_and_their_order_does_not_matter(
    points: list[tuple[float, ...]], more: tuple[float, ...], order: object
) -> None:
    volume = hypervolume(points, (1, 1, 1))
    assert 0 <= volume <= 1
    assert hypervolume([*points, more], (1, 1, 1)) >= volume - 1e-12
    shuffled = list(points)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hypervolume(shuffled, (1, 1, 1)) == pytest.approx(volume)


def test_points_of_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 2 coordinates"):
        hypervolume([(1, 2, 3)], (4, 4))


# --- NSGA-II ----------------------------------------------------------------------------------------------

BOWLS = Bowls({"safety": (1.2, 0.2), "expert": (0.2, 1.2)}, floor=0.0, rows=2)
REFERENCE = (1.0, 1.0)  # each set's loss at the other's bottom


def worth(made: list[Proposal], bowls: Bowls = BOWLS) -> float:
    return hypervolume([coordinates(bowls.losses(genome(p)), TWO) for p in made if p.candidate], REFERENCE)


def ideal() -> float:
    """Return the hypervolume of the true front: the line between the two bottoms."""
    line = [(1.2 - s, 0.2 + s) for s in np.linspace(0, 1, 400)]
    return hypervolume([coordinates(BOWLS.losses(at), TWO) for at in line], REFERENCE)


def test_nsga_ii_finds_more_of_the_front_than_random_search() -> None:
    found = worth(play(Pareto(space(), trials=200, seed=0, terms=TWO), BOWLS))
    assert found > worth(play(Random(space(), trials=200, seed=0), BOWLS))
    assert found > 0.9 * ideal()


def test_it_begins_with_the_uniform_merge_and_each_expert_alone() -> None:
    made = play(Pareto(space(3), trials=8, seed=0), lambda p: scored(p, losses(1.0, 1.0, benign=1.0)))
    assert [genome(p) for p in made[:4]] == [(1 / 3, 1 / 3, 1 / 3), (1, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_it_keeps_a_front_by_domains() -> None:
    """Two domains pull one weight each: their front has both, their mean a single point."""

    def by_domain(proposal: Proposal) -> Evaluation:
        x, y = genome(proposal)
        domains = {"law": x + (y - 0.2) ** 2, "math": 1.5 - x + (y - 0.2) ** 2}
        return scored(proposal, Losses((y - 0.2) ** 2, sum(domains.values()) / 2, domains, None, (4, 4)))

    made = play(Pareto(space(), trials=120, seed=0, terms=TWO, domains=("law", "math")), by_domain)
    found = [by_domain(p).losses for p in made]
    assert len(front(found, TWO, domains=("law", "math"))) > 20
    assert len(front(found, TWO)) < 10


def test_a_front_of_benign_losses_needs_such_rows() -> None:
    with pytest.raises(SearchError, match="no loss 'benign'"):
        play(Pareto(space(), trials=40, seed=0), BOWLS)


# --- the sweep --------------------------------------------------------------------------------------------


def test_two_losses_weights_fill_the_line_between_them_ever_more_finely() -> None:
    assert [simplex_point(i, 2)[0] for i in range(7)] == [1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_weights_are_positive_sum_to_1_and_give_every_loss_its_share(dimension: int) -> None:
    points = [simplex_point(i, dimension) for i in range(500)]
    assert all(math.fsum(point) == pytest.approx(1.0) and min(point) > 0 for point in points)
    assert np.mean(points, axis=0) == pytest.approx([1 / dimension] * dimension, abs=0.01)
    assert len(set(points)) == (500 if dimension > 1 else 1)


def test_every_end_of_a_sweep_is_the_bottom_of_its_weighted_sum() -> None:
    """The bottom of w ½|x − a|² + (1 − w) ½|x − b|² is w a + (1 − w) b."""
    made = play(Sweep(space(), BOWLS.data["search"], steps=40, points=5, prior=0.0), BOWLS)
    ends = [genome(p) for p in made if p.candidate]
    expected = [(0.2 + w, 1.2 - w) for w in (1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8)]
    assert np.array(ends) == pytest.approx(np.array(expected), abs=0.03)
    assert all(p.split == "selection" and p.rows is None for p in made if p.candidate)


def test_each_point_of_a_sweep_starts_from_the_end_of_its_nearest() -> None:
    made = play(Sweep(space(), BOWLS.data["search"], steps=10, points=5), BOWLS)
    ends = [genome(p) for p in made if p.candidate]
    begins = [genome(b) for a, b in itertools.pairwise(made) if a.candidate]
    # ¼ and ¾ begin at ½, ⅛ at ¼, ⅝ at the first of its nearest, ½
    assert begins == [ends[0], ends[0], ends[1], ends[0]]
    assert len(made) == 10 * (4 + 4) + 5


def test_a_sweep_finds_the_front_for_less_than_nsga_ii() -> None:
    n = 40
    bowls = Bowls({"safety": [1.2, 0.2] * 20, "expert": [0.2, 1.2] * 20}, dict.fromkeys(TWO, 2 / n), floor=0.0, rows=32)
    searched = space(granularity="layer", layers=20)
    swept = worth(play(Sweep(searched, bowls.data["search"], points=7), bowls), bowls)
    its_cost, bowls.forward = bowls.forward, 0
    evolved = worth(play(Pareto(searched, trials=200, seed=0, terms=TWO), bowls), bowls)
    assert swept > evolved
    assert its_cost < bowls.forward
