"""The bootstrap of means against all resamples of small data, its laws, and its coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unspoiled.evaluate._bootstrap import RESAMPLES, bootstrap
from unspoiled.evaluate._results import Mean

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


def every_t(by_family: list[list[float]]) -> tuple[list[float], list[float]]:
    """Return |t*| of every possible resample of the families, each computed from its rows, and its probability."""

    def mean_and_error(families: list[list[float]]) -> tuple[float, float]:
        n, count = sum(map(len, families)), len(families)
        mean = sum(map(sum, families)) / n
        squares = sum((sum(family) - mean * len(family)) ** 2 for family in families)
        return mean, math.sqrt(count / (count - 1) * squares) / n

    mean = mean_and_error(by_family)[0]
    count, found, shares = len(by_family), [], []
    for chosen in itertools.combinations_with_replacement(range(count), count):
        other, error = mean_and_error([by_family[i] for i in chosen])
        found.append(abs(other - mean) / error if error > 1e-9 else math.inf)
        orders = math.factorial(count) / math.prod(math.factorial(chosen.count(i)) for i in set(chosen))
        shares.append(orders / count**count)
    return found, shares


def test_the_distribution_equals_that_of_all_resamples():
    """Eight families of unequal size: 8⁸ resamples, of which 6435 differ by more than their order."""
    by_family = [[1.0], [2.5, 2.0], [0.3], [4.0, 3.0, 5.0], [1.7, 1.1], [0.9, 0.2], [2.2], [1.4, 6.0]]
    exact, shares = every_t(by_family)
    assert sum(shares) == pytest.approx(1.0)
    rows = [(value, str(i)) for i, family in enumerate(by_family) for value in family]
    found = bootstrap([value for value, _ in rows], [family for _, family in rows])
    assert found.mean == pytest.approx(sum(value for value, _ in rows) / len(rows))
    for t in (0.5, 1.0, 2.0, 4.0):
        share = np.sum(shares, where=np.array(exact) >= t)
        error = 4 * math.sqrt(share * (1 - share) / RESAMPLES)
        assert np.mean(found.sizes >= t) == pytest.approx(share, abs=error)


@settings(max_examples=30)
@given(VALUES, st.floats(0.1, 10), st.floats(-50, 50))
def test_the_interval_holds_the_mean_scales_and_shifts(values, scale, shift):
    found = bootstrap(values)
    low, high = found.interval()
    assert low <= found.mean <= high
    assert found.mean == pytest.approx(math.fsum(values) / len(values), abs=1e-9)
    assert (1.0 >= found.p_value >= 2.0 ** (1 - len(values))) or found.p_value == 1.0
    if found.error > 1e-3:
        moved = bootstrap([scale * value + shift for value in values]).interval()
        assert moved == pytest.approx((scale * low + shift, scale * high + shift), rel=1e-6, abs=1e-6)
        mirrored = bootstrap([-value for value in values])
        assert mirrored.interval() == pytest.approx((-high, -low))
        assert mirrored.p_value == found.p_value


@settings(max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=12), st.sampled_from([0.05, 0.02, 0.005]))
def test_interval_test_and_resolvable_mean_agree(values, alpha):
    found = bootstrap(values)
    resolvable = found.resolvable(alpha)
    significant = found.p_value <= alpha
    if found.error > 0:
        assert significant == (resolvable is not None and abs(found.mean) > resolvable * (1 + 1e-12))
    low, high = found.interval()
    if (found.p_value <= 0.05) and found.families >= 6:
        assert low >= 0 or high <= 0


def test_beyond_the_last_resample_students_t_goes_on():
    """A family of hundreds of comparisons asks for p-values that 9,999 resamples do not have."""
    values = np.random.default_rng(1).exponential(1, 400)
    p_values, steps = [], np.linspace(0.15, 0.5, 30)
    for step in steps:
        found = bootstrap(values - values.mean() + step)
        p_values.append(found.p_value)
        for alpha in (1e-3, 1e-4, 1e-5, 1e-7):
            resolvable = found.resolvable(alpha)
            assert resolvable is not None
            assert (found.p_value <= alpha) == (abs(found.mean) > resolvable * (1 + 1e-12))
    assert p_values == sorted(p_values, reverse=True)
    assert p_values[-1] == pytest.approx(stats.ttest_1samp(values - values.mean() + steps[-1], 0).pvalue)
    assert p_values[-1] < 1e-15
    assert bootstrap([0.5] * 400).p_value < 1e-100
    assert bootstrap([0.5] * 400).resolvable(1e-7) == 0.5


def test_a_copied_response_adds_nothing():
    values = [0.2, 1.4, 0.9, 3.3, 0.1, 2.0, 1.1]
    families = [str(i) for i in range(7)]
    once, thrice = bootstrap(values, families), bootstrap(values * 3, families * 3)
    assert thrice.interval() == pytest.approx(once.interval())
    assert thrice.p_value == once.p_value
    assert bootstrap(values * 3).error < once.error / 1.5  # what taking them for independent would have claimed


def test_the_same_numbers_give_the_same_answer():
    values = list(np.random.default_rng(0).exponential(1, 40))
    assert bootstrap(values).interval() == bootstrap(values).interval()


def test_identical_values_have_no_spread_and_a_difference_of_zero_is_none():
    same = bootstrap([0.7] * 9)
    assert (same.mean, same.interval()) == (0.7, (0.7, 0.7))
    none = bootstrap([0.0] * 9)
    assert (none.p_value, none.resolvable(0.05)) == (1.0, None)


def test_few_families_are_no_proof_however_well_they_agree():
    """0.1 more in each of five families: 2^(1 − 5) = 1/16."""
    assert bootstrap([0.1] * 5).p_value == 1 / 16
    assert bootstrap([0.1] * 5).resolvable(0.05) is None
    assert bootstrap([0.1] * 6).p_value == 1 / 32
    # Rounding in the last digit is no spread, and no difference either.
    rounded = bootstrap([0.3 - 0.2, 0.4 - 0.3, 0.5 - 0.4] * 2)
    assert (rounded.error, rounded.p_value) == (0.0, 1 / 32)
    assert bootstrap([5.0, -5.0 + 1e-15] * 6).p_value == 1.0


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_fewer_than_eight_families_get_students_interval(count):
    values = [1.0, 2.5, 4.5, 4.0, 3.0, 0.5, 1.5][:count]
    expected = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
    found = bootstrap(values)
    assert found.interval() == pytest.approx(expected)
    assert found.p_value == pytest.approx(max(stats.ttest_1samp(values, 0).pvalue, 2 ** (1 - count)), abs=2e-4)


def test_values_nearly_all_equal_get_students_interval_too():
    """Of 50 values one differs: more than a third of all resamples miss it, and have no spread."""
    values = [0.0] * 49 + [1.0]
    found = bootstrap(values)
    assert found.interval() == pytest.approx(stats.t.interval(0.95, 49, np.mean(values), stats.sem(values)))
    assert found.p_value > 0.3
    assert found.resolvable(0.05) is None


def test_one_family_gets_the_interval_of_one_draw():
    """39 times its size on both sides holds the centre of any unimodal distribution in 95% of draws.

    The worst is the uniform distribution between its mode θ and θ·(1 − k/(k − 1)), k = 39.
    """
    of_one = Mean.of([2.0])
    assert (of_one.mean, of_one.n, of_one.families) == (2.0, 1, 1)
    assert (of_one.low, of_one.high) == pytest.approx((-76.0, 80.0))
    of_one_family = Mean.of([1.0, 3.0], ["same", "same"])
    assert (of_one_family.n, of_one_family.families) == (2, 1)
    assert of_one_family.high == pytest.approx(80.0)
    draws = 1.0 - np.random.default_rng(5).random(20_000) * 39 / 38
    held = np.abs(draws - 1.0) <= 39 * np.abs(draws)
    assert held.mean() == pytest.approx(0.95, abs=0.006)


def test_intervals_of_skewed_losses_keep_nearly_what_they_promise():
    """Lognormal losses of 25 families: plain percentiles hold the mean in about 91%."""
    rng = np.random.default_rng(11)
    truth = math.exp(0.5**2 / 2)
    held = 0
    for _ in range(400):
        low, high = bootstrap(list(rng.lognormal(0, 0.5, 25))).interval()
        held += low <= truth <= high
    assert held / 400 > 0.925


@pytest.mark.parametrize(
    ("values", "families", "message"),
    [([], None, "at least one"), ([1.0, math.nan], None, "finite"), ([1.0, 2.0], ["a"], "2 values and 1 families")],
)
def test_what_has_no_mean_is_refused(values, families, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(values, families)
