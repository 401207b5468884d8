"""Random numbers by place: the same however the work is cut, and even."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.merging._draws import draw_bits, thresholds_of

COUNT = 2**18


def test_the_first_numbers_are_these() -> None:
    """Pinned, so that a change in NumPy's PCG64 or SeedSequence, and with it every seeded merge, shows here."""
    assert draw_bits(0, "model.norm.weight", 0, 0, 4).tolist() == [532979983, 3578374203, 165918497, 3585062977]
    assert draw_bits(2**63, "é", 3, 10**12 + 1, 2).tolist() == [2327307044, 3945744372]


@given(first=st.integers(0, 999), count=st.integers(0, 200))
def test_a_block_is_a_part_of_the_stream(first: int, count: int) -> None:
    whole = draw_bits(7, "weight", 1, 0, 1200)
    assert np.array_equal(draw_bits(7, "weight", 1, first, count), whole[first : first + count])


def test_places_far_into_a_tensor_cost_nothing() -> None:
    far = draw_bits(7, "weight", 1, 10**15, 10)
    assert np.array_equal(far[3:], draw_bits(7, "weight", 1, 10**15 + 3, 7))


def test_the_numbers_are_uniform() -> None:
    """χ² over 256 bins, of the upper and of the lower bits: within the 99.9% range of 255 degrees of freedom."""
    drawn = draw_bits(0, "weight", 0, 0, COUNT)
    for bits in (drawn >> 24, drawn & 255):
        counts = np.bincount(bits, minlength=256)
        chi_square = ((counts - COUNT / 256) ** 2 / (COUNT / 256)).sum()
        assert 190 < chi_square < 330


def test_neighbours_are_independent() -> None:
    """Both halves of one step of the generator, and steps that follow each other."""
    drawn = draw_bits(0, "weight", 0, 0, COUNT).astype(np.float64)
    for lag in (1, 2, 3):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 4 / np.sqrt(COUNT)


@pytest.mark.parametrize("other", [(1, "weight", 0), (0, "weight2", 0), (0, "weight", 1)])
def test_each_seed_tensor_and_expert_has_its_stream(other: tuple[int, str, int]) -> None:
    ours = draw_bits(0, "weight", 0, 0, COUNT).astype(np.float64)
    theirs = draw_bits(*other, 0, COUNT).astype(np.float64)
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 4 / np.sqrt(COUNT)


def test_thresholds_are_probabilities() -> None:
    assert thresholds_of([0.0, 0.25, 0.5, 1.0, -0.1, 1.1]).tolist() == [0, 2**30, 2**31, 2**32 - 1, 0, 2**32 - 1]
    drawn = draw_bits(3, "weight", 0, 0, COUNT)
    for probability in (0.01, 0.3, 0.9):
        rate = (drawn < thresholds_of(probability)).mean()
        assert abs(rate - probability) < 4 * np.sqrt(probability * (1 - probability) / COUNT)
