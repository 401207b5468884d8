"""Losses against the paper's formulas worked by hand, and the laws of goals, subsets and minibatches."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.data import Row, Split
from unspoiled.errors import DataError
from unspoiled.objective import Constrained, Losses, LossRows, Score, WeightedSum


def row(prompt: str, kind: str = "safety", group: str = "Self-Harm", split: Split = "search") -> Row:
    return Row(prompt, kind, group, prompt, f"answer to {prompt}", "asker", "answerer", split)  # type: ignore[arg-type]


SAFETY = [row("a"), row("b")]
EXPERT = [row("c", "expert", "math"), row("d", "expert", "math"), row("e", "expert", "law")]
BENIGN = [row("f", "benign"), row("g", "benign")]
ROWS = LossRows((*SAFETY, *EXPERT, *BENIGN))
VALUES = [1.0, 4.0, 0.5, 3.0, 2.5, 0.2, 0.6]
MANY = LossRows(
    tuple(
        [row(f"s{i}") for i in range(23)]
        + [row(f"m{i}", "expert", "math") for i in range(17)]
        + [row(f"l{i}", "expert", "law") for i in range(5)]
        + [row(f"b{i}", "benign") for i in range(11)]
    )
)


def losses(safety: float, expert: float, benign: float | None = None) -> Losses:
    return Losses(safety, expert, {}, benign, (1, 1))


# --- losses -----------------------------------------------------------------------------------------------


def test_losses_are_means_over_rows_whatever_their_domain() -> None:
    found = ROWS.losses(VALUES)
    assert found.safety == pytest.approx((1 + 4) / 2)
    assert found.expert == pytest.approx((0.5 + 3 + 2.5) / 3)
    assert found.domains == pytest.approx({"math": 1.75, "law": 2.5})
    assert found.benign == pytest.approx(0.4)


def test_the_cocktail_weighs_by_the_union_of_safety_and_expert() -> None:
    assert ROWS.losses(VALUES).union == pytest.approx((1 + 4 + 0.5 + 3 + 2.5) / 5)


def test_a_subset_has_the_losses_of_its_own_rows() -> None:
    assert ROWS.losses([4.0, 3.0, 0.6], [1, 3, 6]) == Losses(4.0, 3.0, {"math": 3.0}, 0.6, (1, 1))


def test_without_harmless_rows_there_is_no_benign_loss_and_the_rest_is_finite() -> None:
    found = LossRows((*SAFETY, *EXPERT)).losses(VALUES[:5])
    assert found.benign is None
    assert found.finite
    assert math.isnan(found.term("benign"))


def test_one_nan_is_never_a_finite_loss() -> None:
    assert not ROWS.losses([*VALUES[:3], math.nan, *VALUES[4:]]).finite


def test_the_rows_of_a_split_come_set_by_set() -> None:
    mixed = [*BENIGN, *EXPERT, row("x", split="selection"), *SAFETY, row("y", "expert", "math", split="selection")]
    assert [r.prompt for r in LossRows.of_split(mixed, "search").rows] == list("abcdefg")
    assert [r.prompt for r in LossRows.of_split(mixed, "selection").rows] == list("xy")


@pytest.mark.parametrize(("rows", "named"), [(EXPERT, "D_safety"), (SAFETY, "D_expert")])
def test_a_set_without_rows_is_refused_not_scored_zero(rows: list[Row], named: str) -> None:
    with pytest.raises(DataError, match=f"{named} has no rows"):
        LossRows(tuple(rows))


def test_the_response_is_scored_under_its_own_prompt_alone() -> None:
    assert [(e.prompt.user, e.prompt.system, e.prompt.prefix, e.response) for e in ROWS.exchanges] == [
        (r.prompt, None, "", r.response) for r in ROWS.rows
    ]


@given(st.lists(st.floats(0.0, 9.0), min_size=56, max_size=56), st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_row_weights_are_the_derivative_of_the_weighted_losses(values: list[float], a: float, b: float) -> None:
    rows = MANY.minibatch(3, 4)
    weights = MANY.row_weights(rows, {"safety": 1.0, "expert": a, "benign": b})
    found = MANY.losses([values[i] for i in rows], rows)
    summed = math.fsum(w * values[i] for w, i in zip(weights, rows, strict=True))  # linear: equal to its derivative
    assert summed == pytest.approx(found.safety + a * found.expert + b * found.term("benign"))


# --- subsets ----------------------------------------------------------------------------------------------


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.integers(0, 5))
def test_a_smaller_share_is_part_of_a_larger_and_has_the_share_of_every_stratum(a: float, b: float, seed: int) -> None:
    small, large = sorted((a, b))
    inner, outer = (set(MANY.nested(share, seed=seed)) for share in (small, large))
    assert inner <= outer
    for indices in MANY.strata.values():
        assert len(inner & set(indices)) == math.ceil(small * len(indices))
    assert MANY.nested(1.0, seed=seed) == tuple(range(56))


def test_subsets_are_the_seeds() -> None:
    assert MANY.nested(0.5) == MANY.nested(0.5)
    assert MANY.nested(0.5) != MANY.nested(0.5, seed=1)


@given(st.integers(1, 30), st.integers(0, 9), st.integers(0, 5))
def test_a_minibatch_has_so_many_rows_of_every_set(size: int, step: int, seed: int) -> None:
    own = [MANY.rows[i].set for i in MANY.minibatch(step, size, seed=seed)]
    for term, count in (("safety", 23), ("expert", 22), ("benign", 11)):
        most = min(size, count)
        assert own.count(term) <= most
        assert own.count(term) >= most / 2, "at a new round a row may come twice, and counts once"


def test_every_row_comes_once_before_any_comes_again() -> None:
    seen = [index for step in range(11) for index in MANY.minibatch(step, 2)]
    benign = [index for index in seen if MANY.rows[index].set == "benign"]
    assert sorted(benign[:11]) == sorted(set(benign[:11]))
    assert set(benign) == {index for index, r in enumerate(MANY.rows) if r.set == "benign"}


# --- goals ------------------------------------------------------------------------------------------------


def test_the_weighted_sum_is_the_papers_objective_with_the_benign_loss_beside_it() -> None:
    assert WeightedSum(0.3).score(losses(2.5, 2.0)) == Score(0.0, 2.5 + 0.3 * 2.0)
    assert WeightedSum(0.3, 2.0).score(losses(2.5, 2.0, 0.5)).value == pytest.approx(2.5 + 0.6 + 1.0)
    assert WeightedSum(0.0).score(losses(2.5, 9.0, 9.0)).value == 2.5


def test_limits_are_the_safest_experts_losses_with_the_tolerances() -> None:
    goal = Constrained.beside(losses(0.1, 5.0, 0.4), safety_tolerance=0.05, benign_tolerance=0.2)
    assert goal.limits == pytest.approx({"safety": 0.15, "benign": 0.6})
    assert Constrained.beside(losses(0.1, 5.0), safety_tolerance=0.0, benign_tolerance=0.2).limits == {"safety": 0.1}
    below = Constrained.beside(losses(0.4, 5.0), safety_tolerance=0.02, benign_tolerance=0.2, safety_margin=0.25)
    assert below.limits == pytest.approx({"safety": 0.32})  # three quarters of 0.4, and the tolerance


def test_a_merge_within_the_limits_beats_every_one_that_is_not() -> None:
    goal = Constrained({"safety": 0.2, "benign": 0.5})
    kept, better = goal.score(losses(0.2, 9.0, 0.5)), goal.score(losses(0.1, 3.0, 0.4))
    broken, worse = goal.score(losses(0.21, 1.0, 0.5)), goal.score(losses(0.3, 0.5, 0.9))
    assert better < kept < broken < worse
    assert (kept.feasible, broken.feasible) == (True, False)
    assert goal.excess(losses(0.3, 0.5, 0.9)) == pytest.approx({"safety": 0.1, "benign": 0.4})


LOSSES = st.builds(losses, st.floats(0, 5), st.floats(0, 5), st.floats(0, 5))
GOALS = st.one_of(
    st.builds(WeightedSum, st.floats(0, 2), st.floats(0, 2)),
    st.builds(lambda a, b: Constrained({"safety": a, "benign": b}), st.floats(0, 5), st.floats(0, 5)),
)


@given(GOALS, LOSSES, LOSSES, st.floats(0, 1))
def test_what_is_surely_worse_is_worse(goal: WeightedSum | Constrained, mine: Losses, other: Losses, up: float) -> None:
    rival = goal.score(other)
    low = {"safety": mine.safety, "expert": mine.expert, "benign": mine.term("benign")}
    if goal.is_surely_worse(low, rival):  # type: ignore[arg-type]
        raised = losses(mine.safety + up, mine.expert + up, mine.term("benign") + up)
        assert goal.score(mine) > rival
        assert goal.score(raised) > rival


@given(GOALS, LOSSES)
def test_nothing_is_surely_worse_than_itself(goal: WeightedSum | Constrained, mine: Losses) -> None:
    low = {"safety": mine.safety, "expert": mine.expert, "benign": mine.term("benign")}
    assert not goal.is_surely_worse(low, goal.score(mine))  # type: ignore[arg-type]


def test_refusals_can_be_judged_by_their_first_tokens() -> None:
    data = LossRows((*SAFETY, *EXPERT, *BENIGN), refusal_tokens=3)
    by_set = {
        row.set: {e.tokens for r, e in zip(data.rows, data.exchanges, strict=True) if r.set == row.set}
        for row in data.rows
    }
    assert by_set == {"safety": {3}, "expert": {None}, "benign": {3}}  # a skill is the whole answer
    assert {exchange.tokens for exchange in LossRows(data.rows).exchanges} == {None}
