"""A part of a sequence, spread evenly over the whole."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from unspoiled.data import spread_evenly


@given(st.integers(0, 60), st.integers(0, 80))
def test_as_many_as_wanted_in_order_and_no_gap_much_wider_than_another(count: int, most: int) -> None:
    found = spread_evenly(range(count), most)
    assert len(found) == min(count, most)
    assert found == sorted(set(found))
    gaps = {later - earlier for earlier, later in pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert not found or found[0] == 0


def test_without_a_limit_it_is_all_of_them() -> None:
    assert spread_evenly("abc", None) == ["a", "b", "c"]
