"""Responses in families: laws of the effective number, and the sign-flip test against all sign patterns."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unspoiled.evaluate._clustered import effective_size, family_sums, sign_flip, smallest_resolvable_sum
from unspoiled.evaluate._results import Rate
from unspoiled.evaluate._statistics import mcnemar, smallest_resolvable_difference, wilson

ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh")), min_size=1, max_size=40)
SUMS = st.lists(st.integers(-4, 4), max_size=9)


def test_family_sums_by_hand():
    sums, sizes = family_sums([1.5, 2.0, -1.0], ["b", "a", "b"])
    assert (list(sums), list(sizes)) == ([2.0, 0.5], [1.0, 2.0])


def test_effective_size_by_hand():
    """Two families of two, (1, 1) and (1, 0), r = 3/4.

    Between families 2/1 · ((2 − 1.5)² + (1 − 1.5)²)/4² = 1/16, independent (1/4)/4 = 1/16: deff = 1, and what is left
    is the square of Student's points with 3 and with 1 degree of freedom, 3.1824 and 12.7062.
    """
    assert effective_size([1, 1, 1, 0], ["a", "a", "b", "b"]) == pytest.approx(4 * (3.18245 / 12.70620) ** 2, rel=1e-5)


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.integers(2, 5))
def test_copies_of_a_response_are_worth_hardly_more_than_one(outcomes, copies):
    """With C families of m equal answers deff = (Cm − 1)/(C − 1), so that n/deff falls short of C − 1 + 1/m by t."""
    count = len(outcomes)
    rows = [(outcome, str(i)) for i, outcome in enumerate(outcomes) for _ in range(copies)]
    worth = effective_size([outcome for outcome, _ in rows], [family for _, family in rows])
    if len(set(outcomes)) == 1:
        assert worth == count
    else:
        points = stats.t.ppf(0.975, count * copies - 1) / stats.t.ppf(0.975, count - 1)
        assert worth == pytest.approx(count * copies * (count - 1) / (count * copies - 1) * points**2)


@given(ROWS)
def test_families_never_narrow_an_interval(rows):
    outcomes, families = [o for o, _ in rows], [f for _, f in rows]
    of_families, independent = Rate.of(outcomes, families), Rate.of(outcomes)
    assert of_families.low <= independent.low + 1e-12
    assert of_families.high >= independent.high - 1e-12
    assert (of_families.rate, of_families.n, of_families.families) == (independent.rate, len(rows), len(set(families)))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_families_of_one_response_are_independent(outcomes):
    alone = Rate.of(outcomes, [str(i) for i in range(len(outcomes))])
    assert alone == Rate.of(outcomes)
    assert (alone.low, alone.high) == wilson(sum(outcomes), len(outcomes))


def test_families_that_all_answer_alike_count_once_each():
    rate = Rate.of([False] * 100, [str(i % 20) for i in range(100)])
    assert (rate.low, rate.high) == wilson(0, 20)
    one = Rate.of([True, False, True], ["same"] * 3)
    assert one.families == 1
    assert one.high - one.low > 0.7  # one family shows next to nothing


def test_intervals_of_families_keep_what_they_promise_where_naive_ones_do_not():
    """30 families of 5 with a rate of 30%, members alike with correlation ½."""
    rng = np.random.default_rng(3)
    families = [f"{i:02}" for i in range(30) for _ in range(5)]
    studies, held, naive = 600, 0, 0
    for _ in range(studies):
        outcomes = list(rng.random(150) < np.repeat(rng.beta(0.3, 0.7, 30), 5))
        rate, independent = Rate.of(outcomes, families), Rate.of(outcomes)
        held += rate.low <= 0.3 <= rate.high
        naive += independent.low <= 0.3 <= independent.high
    assert held / studies > 0.92
    assert naive / studies < 0.85


@given(SUMS)
def test_sign_flip_equals_the_count_of_all_sign_patterns(sums):
    patterns = list(itertools.product((-1, 1), repeat=len(sums)))
    as_large = sum(abs(sum(s * d for s, d in zip(signs, sums, strict=True))) >= abs(sum(sums)) for signs in patterns)
    assert sign_flip(sums) == pytest.approx(as_large / len(patterns), rel=1e-12)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 50))
def test_with_families_of_one_response_sign_flip_is_mcnemar(only_first, only_second, equal):
    sums = [1] * only_first + [-1] * only_second + [0] * equal
    assert sign_flip(sums) == pytest.approx(mcnemar(only_first, only_second), rel=1e-9)


@given(SUMS, st.sampled_from([0.05, 0.025, 0.3, 0.004]))
def test_a_sum_is_significant_exactly_when_it_reaches_the_resolvable_one(sums, alpha):
    smallest = smallest_resolvable_sum(sums, alpha)
    assert (sign_flip(sums) <= alpha) == (smallest is not None and abs(sum(sums)) >= smallest)


@given(st.integers(1, 120), st.floats(0, 1), st.sampled_from([0.05, 0.01]))
def test_with_families_of_one_response_the_resolvable_gap_is_mcnemars(n, share, alpha):
    discordant = round(share * n)
    smallest = smallest_resolvable_sum([1] * discordant + [0] * (n - discordant), alpha)
    assert (smallest and smallest / n) == smallest_resolvable_difference(n, share, alpha=alpha)


def test_smallest_resolvable_sum_by_hand():
    """Seven families of 2: all alike (2/128) is 14; one against six (16/128) is not enough. Five families never are."""
    assert smallest_resolvable_sum([2] * 7, 0.05) == 14
    assert smallest_resolvable_sum([2, 2, 2, 0, 0, 0], 0.05) == 9
    assert smallest_resolvable_sum([3] * 5, 0.05) is None
    with pytest.raises(ValueError, match="alpha"):
        smallest_resolvable_sum([1], 0.0)
