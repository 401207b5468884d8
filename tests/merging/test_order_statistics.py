"""The k largest of a tensor, by histograms: exactly those that a stable sort finds."""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unspoiled.merging._order_statistics import Cut, cuts

TINY = 1.401298464324817e-45  # the smallest float32
HUGE = 3.4028234663852886e38  # the largest


def kept(values: Tensor, ks: list[int], block: int) -> list[Tensor]:
    """Return the signed `values` with all but the k largest magnitudes set to zero, found and applied by blocks."""
    parts = [(first, values[first : first + block]) for first in range(0, len(values), block)]

    def columns() -> Iterator[tuple[int, Callable[[int], Tensor]]]:
        for first, part in parts:
            yield first, lambda _, part=part: part.abs()

    (found,) = cuts(columns, [lambda _: ks])
    return [torch.cat([cut.keep(part, first) for first, part in parts]) for cut in found]


def by_sorting(values: Tensor, k: int) -> Tensor:
    """Sort stably by falling magnitude: of equal ones the earlier come first."""
    places = torch.sort(-values.abs().double(), stable=True).indices[:k]
    result = torch.zeros_like(values)
    result[places] = values[places]
    return result


def assert_exact(values: Tensor, ks: list[int], block: int) -> None:
    for k, found in zip(ks, kept(values, ks, block), strict=True):
        assert torch.equal(found, by_sorting(values, k)), (k, block)


def normal(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(count))


VALUES = {
    "spread": normal(1001),
    "tied": (normal(1001) * 3).round(),
    "one bucket": 1.0 + normal(1001).abs() * 1e-5,  # equal in the upper 16 bits: the lower ones decide
    "constant": torch.full((300,), -0.25),
    "zeros": torch.zeros(300),
    "zeros of both signs": torch.tensor([0.0, -0.0, 1.0, -0.0, 0.0]),
    "denormal": (normal(500) * 1e-40),
    "smallest": torch.tensor([0.0, TINY, -TINY, 2 * TINY, 0.0, TINY]),
    "huge": torch.tensor([HUGE, -HUGE, 1.0, HUGE, 1e38, -3e38]),
    "all magnitudes": normal(800) * 10.0 ** torch.arange(-44, 36).repeat(10),
    "bfloat16": (normal(4000) * 0.02).bfloat16().float() - 0.01,
    "one": torch.tensor([-3.0]),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_largest_are_those_of_a_stable_sort(values: Tensor) -> None:
    n = len(values)
    ks = sorted({0, 1, n // 3, n // 2, n - 1, n})
    for block in (1, 7, 256, n) if n <= 1001 else (256, n):
        assert_exact(values, ks, block)


numbers = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from([0.0, -0.0, 1.0, -1.0, TINY, HUGE])
)


@given(values=st.lists(numbers, min_size=1, max_size=40), block=st.integers(1, 40), data=st.data())
def test_any_values_in_any_blocks(values: list[float], block: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values)))
    assert_exact(torch.tensor(values), [k], block)


def test_several_columns_and_counts_in_one_go() -> None:
    """Columns don't mix, and several cuts of one column share its histogram."""
    columns = [normal(500), (normal(500) * 2).round(), torch.zeros(500)]

    def blocks() -> Iterator[tuple[int, Callable[[int], Tensor]]]:
        for first in range(0, 500, 64):
            yield first, lambda i, first=first: columns[i][first : first + 64].abs()

    found = cuts(blocks, [lambda _: [10, 250], lambda _: [250], lambda _: [7, 0, 500]])
    for column, wanted, ks in zip(columns, found, [[10, 250], [250], [7, 0, 500]], strict=True):
        for cut, k in zip(wanted, ks, strict=True):
            assert torch.equal(cut.keep(column, 0), by_sorting(column, k))


def test_a_count_can_depend_on_how_many_are_not_zero() -> None:
    values = torch.tensor([0.0, 2.0, 0.0, 1.0, 3.0, 4.0])
    seen: list[int] = []

    def half(positive: int) -> list[int]:
        seen.append(positive)
        return [positive // 2]

    ((cut,),) = cuts(lambda: iter([(0, lambda _: values.clone())]), [half])
    assert seen == [4]
    assert cut == Cut(3.0, 6)


def test_infinities_and_nan_stay_visible() -> None:
    """A diverged expert must not be trimmed into a finite one: what isn't finite counts as the largest."""
    for bad in (float("inf"), float("-inf"), float("nan")):
        values = torch.tensor([1.0, 2.0, bad, 3.0])
        for k in (1, 2, 3):
            (found,) = kept(values, [k], 4)
            assert not torch.isfinite(found).all()


def test_no_values() -> None:
    assert cuts(lambda: iter(()), [lambda _: [0]]) == [[Cut(float("inf"), 0)]]
    assert cuts(lambda: iter([(0, lambda _: torch.empty(0))]), [lambda _: [0]]) == [[Cut(float("inf"), 0)]]
