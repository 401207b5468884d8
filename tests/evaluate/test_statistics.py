"""The statistics against scipy, values worked by hand, and the laws that they must obey."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unspoiled.evaluate._statistics import (
    combined_interval,
    holm,
    holm_level,
    mcnemar,
    paired_interval,
    score_interval,
    smallest_resolvable_difference,
    wilson,
)

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_equals_scipy(counts, confidence):
    successes, n = counts
    expected = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_mirrors(counts):
    successes, n = counts
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_at_the_edge_is_not_a_point():
    """0 of 10: high = z²/(n + z²) = 3.8415/13.8415."""
    assert wilson(0, 10) == (0.0, pytest.approx(3.8414588 / 13.8414588, abs=1e-7))


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_wilson_refuses_what_is_not_a_proportion(successes, n, confidence):
    with pytest.raises(ValueError, match="got"):
        wilson(successes, n, confidence)


@given(st.floats(0, 1), st.floats(0.1, 500), st.floats(1, 20))
def test_fewer_independent_responses_make_a_wider_interval_around_the_same_share(share, n, times):
    low, high = score_interval(share, n)
    inner_low, inner_high = score_interval(share, n * times)
    assert 0 <= low <= inner_low + 1e-12 <= share + 1e-12
    assert share - 1e-12 <= inner_high - 1e-12 <= high <= 1


def test_interval_of_independent_rates_equals_the_published_one():
    """56/70 against 48/80, and 10/10 against 0/20: Newcombe (1998a), table II, contrasts (a) and (g)."""
    found = combined_interval((56 / 70, *wilson(56, 70)), (48 / 80, *wilson(48, 80)))
    assert found == pytest.approx((0.0524, 0.3339), abs=5e-5)
    found = combined_interval((1.0, *wilson(10, 10)), (0.0, *wilson(0, 20)))
    assert found == pytest.approx((0.6791, 1.0), abs=5e-5)


@pytest.mark.parametrize(
    ("table", "published"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # Newcombe (1998b): φ < 0, no correction
        ((20, 12, 2, 16), (0.0562, 0.3292)),  # the same: φ > 0, corrected
        ((1, 1, 7, 12), (-0.507, -0.026)),  # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), Bentur
    ],
)
def test_paired_interval_equals_the_published_one(table, published):
    assert paired_interval(*table) == pytest.approx(published, abs=5e-4 if table[0] == 1 else 5e-5)


TABLES = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@given(TABLES, st.floats(0.3, 1))
def test_paired_interval_holds_the_difference_mirrors_and_widens_with_dependence(table, worth):
    both, only_a, only_b, neither = table
    n = sum(table)
    low, high = paired_interval(*table)
    assert -1 <= low <= (only_a - only_b) / n <= high <= 1
    assert paired_interval(both, only_b, only_a, neither) == pytest.approx((-high, -low), abs=1e-12)
    assert paired_interval(neither, only_a, only_b, both) == pytest.approx((low, high), abs=1e-9)
    assert paired_interval(*table, effective=n) == (low, high)
    wide_low, wide_high = paired_interval(*table, effective=n * worth)
    assert wide_low <= low + 1e-9
    assert wide_high >= high - 1e-9


def test_twice_the_prompts_worth_half_are_as_many_as_there_were():
    assert paired_interval(40, 24, 4, 32, effective=50) == pytest.approx(paired_interval(20, 12, 2, 16), abs=1e-12)


def test_intervals_of_independent_estimates_add_in_squares():
    """Reaches of 3 and 4 below and of 5 and 12 above: 5 and 13."""
    assert combined_interval((0.5, 0.47, 0.55), (0.2, 0.08, 0.24)) == pytest.approx((0.25, 0.43))


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (-1, 1, 1, 1)])
def test_paired_interval_refuses_what_are_not_counts(table):
    with pytest.raises(ValueError, match="needs counts of prompts, got"):
        paired_interval(*table)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_the_binomial_test(only_first, only_second):
    discordant = only_first + only_second
    expected = stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)


def test_mcnemar_by_hand():
    """2·(C(8,0) + C(8,1))/2⁸ = 18/256."""
    assert mcnemar(1, 7) == 18 / 256
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5000) == 0.0  # below the smallest float, and no overflow on the way


def test_mcnemar_keeps_its_level():
    """Two equal models are called different in at most 5% of studies."""
    rng = random.Random(7)
    studies = 2000
    false_alarms = 0
    for _ in range(studies):
        only_first = sum(rng.random() < 0.5 for _ in range(40))
        false_alarms += mcnemar(only_first, 40 - only_first) <= 0.05
    assert false_alarms / studies <= 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1, made monotone: .04 .06 .06 .06."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


@given(P_VALUES)
def test_holm_lies_between_the_raw_value_and_bonferroni(p_values):
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted <= min(1.0, raw * len(p_values))


@given(P_VALUES, st.randoms())
def test_holm_ignores_the_order(p_values, rng):
    order = list(range(len(p_values)))
    rng.shuffle(order)
    assert holm([p_values[i] for i in order]) == [holm(p_values)[i] for i in order]


@given(st.lists(st.sampled_from([0.001, 0.004, 0.0101, 0.016, 0.024, 0.049, 0.3]), min_size=1, max_size=8))
def test_holm_level_is_the_threshold_of_holm(p_values):
    for index, adjusted in enumerate(holm(p_values)):
        assert (adjusted <= 0.05) == (p_values[index] <= holm_level(p_values, index))


def test_p_values_must_be_probabilities():
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([wrong])
    with pytest.raises(IndexError):
        holm_level([0.1], 1)


def test_smallest_resolvable_difference_by_hand():
    """At 5%: 6 of 6 on one side (p = 2/64); of 10, 9 against 1 (p = 22/1024) and not 8 against 2."""
    assert smallest_resolvable_difference(100) == 6 / 100
    assert smallest_resolvable_difference(100, 0.10) == 8 / 100
    assert smallest_resolvable_difference(100, 0.02) == 6 / 100
    assert smallest_resolvable_difference(5) is None


@given(st.integers(6, 300), st.floats(0, 1))
def test_the_gap_returned_is_significant_and_the_next_smaller_is_not(n, share):
    gap = smallest_resolvable_difference(n, share)
    assert gap is not None
    discordant = max(6, round(share * n))
    winning = round((gap * n + discordant) / 2)
    assert mcnemar(winning, discordant - winning) <= 0.05
    assert winning - 1 < discordant / 2 or mcnemar(winning - 1, discordant - winning + 1) > 0.05


@given(st.integers(1, 500))
def test_more_prompts_resolve_smaller_gaps(n):
    smaller, larger = smallest_resolvable_difference(n), smallest_resolvable_difference(2 * n)
    assert smaller is None or (larger is not None and larger < smaller)


def test_smallest_resolvable_difference_refuses_nonsense():
    for arguments in ((0, None), (10, 1.5)):
        with pytest.raises(ValueError, match="got"):
            smallest_resolvable_difference(*arguments)
    with pytest.raises(ValueError, match="alpha"):
        smallest_resolvable_difference(10, alpha=0.0)
