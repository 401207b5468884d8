"""TIES: trim, elect, merge what agrees."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_merges import CutTensor, by_the_book, deltas_only, experts_on_a_base, largest, merged, normal
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.merging import DenseDelta, get_method


def ties(tensor: CutTensor, weight: list[float], density: float | list[float] = 1.0, **options: Any) -> Tensor:
    share = density if isinstance(density, list) else [density] * len(weight)
    return merged(
        "ties", tensor, **{"normalize": True, "rescale": False, "lambda_": 1.0} | options, weight=weight, density=share
    )


def row(*values: float) -> Tensor:
    return torch.tensor([values])


def test_by_hand() -> None:
    """Three experts, one entry for each case of the election."""
    first = row(4.0, 2.0, 1.0, 0.0, 3.0)
    second = row(2.0, -3.0, -1.0, 0.0, 0.0)
    third = row(6.0, -1.0, 0.0, 5.0, -3.0)
    tensor = deltas_only(first, second, third)
    # agree; the minority of 2 goes; 1 − 1 counts as plus; a zero has no vote; 3 − 3 counts as plus
    assert torch.equal(ties(tensor, [1.0, 1.0, 1.0]), row(4.0, -2.0, 1.0, 5.0, 3.0))
    assert torch.equal(ties(tensor, [1.0, 1.0, 1.0], normalize=False), row(12.0, -4.0, 1.0, 5.0, 3.0))
    # weights 2, 1, 1 turn the second (4 − 3 − 1 = 0) and the last (6 − 3); a lone weight cancels out
    assert torch.equal(ties(tensor, [2.0, 1.0, 1.0]), row(4.0, 2.0, 1.0, 5.0, 3.0))
    assert torch.equal(ties(tensor, [2.0, 1.0, 1.0], normalize=False, lambda_=0.5), row(8.0, 2.0, 1.0, 2.5, 3.0))


def test_trimming_by_hand() -> None:
    """Density 0.5 of five: two entries of each; the trimmed ones don't vote."""
    tensor = deltas_only(row(5.0, -1.0, 4.0, 2.0, 0.0), row(-3.0, 1.0, 6.0, 2.0, 0.0))
    assert torch.equal(ties(tensor, [1.0, 1.0], 0.5), row(5.0, 0.0, 5.0, 0.0, 0.0))
    expected = row(5 * 12 / 9, 0.0, (4 * 12 / 9 + 6 * 12 / 9) / 2, 0.0, 0.0)  # of each, 9 of 12 are left
    torch.testing.assert_close(ties(tensor, [1.0, 1.0], 0.5, rescale=True), expected)


def test_the_papers_two_interferences() -> None:
    """The two interferences that it describes, with its density of 20% and equal weights.

    A redundant small value would drag an influential one down in a mean, and values of contrary signs would annul each
    other; trimmed and elected, what is influential stays at its size.
    """
    influential = row(1.0, 0.9, 0.01, 0.02, 0.0, 0.03, 0.0, 0.01, 0.02, 0.01)
    redundant = row(0.05, 0.02, 0.8, 0.7, 0.0, 0.01, 0.03, 0.0, 0.02, 0.01)
    contrary = row(-0.04, 0.6, 0.02, -0.9, 0.0, 0.01, 0.02, 0.03, 0.0, 0.01)
    found = ties(deltas_only(influential, redundant, contrary), [1.0, 1.0, 1.0], 0.2)
    # entry 0: only one survives the trim. 1: 0.9 and 0.6 agree. 3: 0.7 − 0.9 < 0 elects minus.
    torch.testing.assert_close(found, row(1.0, 0.75, 0.8, -0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weight", [[0.5, 0.4, 0.3], [1.0, -0.7, 0.4], [0.5, 0.0, -0.2], [-1.0, -1.0, -0.5]])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.1])
def test_against_the_formula_in_float64(weight: list[float], density: float, normalize: bool) -> None:
    tensor = experts_on_a_base(step=5)
    vectors = [largest(x.float() - tensor.base.float(), int(density * 480)) for x in tensor.experts]
    expected = by_the_book(tensor.base, vectors, weight, normalize=normalize, lambda_=0.8)
    found = ties(tensor, weight, density, normalize=normalize, lambda_=0.8)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("step", [1, 5, 11])
def test_blocks_do_not_matter(step: int) -> None:
    for options in ({"rescale": False}, {"rescale": True, "normalize": False}):
        whole = ties(experts_on_a_base(), [0.5, 0.4, 0.3], 0.3, **options)
        cut = ties(experts_on_a_base(step=step), [0.5, 0.4, 0.3], 0.3, **options)
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-7)


def test_large_tensors_are_merged_in_pieces_to_the_same() -> None:
    """More elements than a piece and a block hold together: the seams don't show."""
    tensor = experts_on_a_base(700, 128, step=600)
    vectors = [x.float() - tensor.base.float() for x in tensor.experts]
    trimmed = [largest(vector, 700 * 64) for vector in vectors]
    side = torch.where(sum(trimmed) >= 0, 1.0, -1.0)
    agreeing = [torch.where(vector * side > 0, vector, 0.0) for vector in trimmed]
    count = sum((vector != 0).double() for vector in agreeing).clamp(min=1)
    expected = tensor.base.double() + sum(agreeing) / count
    torch.testing.assert_close(ties(tensor, [1.0] * 3, 0.5).double(), expected, rtol=1e-5, atol=1e-8)


entries = st.lists(st.integers(-8, 8), min_size=6, max_size=6).map(lambda v: torch.tensor(v).float().reshape(2, 3))
experts = st.lists(st.tuples(entries, st.integers(-4, 4).map(lambda w: w / 2)), min_size=1, max_size=4)
densities = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


@given(experts=experts, density=densities, normalize=st.booleans(), data=st.data())
def test_the_order_of_experts_does_not_matter(
    experts: list[tuple[Tensor, float]], density: float, normalize: bool, data: st.DataObject
) -> None:
    """With whole numbers, of which no sum is rounded: an election is never turned by the order."""
    shuffled = data.draw(st.permutations(experts))
    found = [
        ties(deltas_only(*(t for t, _ in order)), [w for _, w in order], density, normalize=normalize)
        for order in (experts, shuffled)
    ]
    torch.testing.assert_close(*found)


@given(vector=entries, weight=st.floats(0.01, 10), density=densities)
def test_a_lone_weight_cancels_out(vector: Tensor, weight: float, density: float) -> None:
    count = 0 if density == 0 else max(1, int(density * 6))
    torch.testing.assert_close(ties(deltas_only(vector), [weight], density), largest(vector, count).float())


@given(vector=entries, count=st.integers(1, 4))
def test_equal_experts_merge_to_themselves(vector: Tensor, count: int) -> None:
    torch.testing.assert_close(ties(deltas_only(*[vector] * count), [0.3] * count), vector)


@given(experts=experts, density=densities)
def test_no_lambda_no_change(experts: list[tuple[Tensor, float]], density: float) -> None:
    tensor = deltas_only(*(t for t, _ in experts))
    assert not ties(tensor, [w for _, w in experts], density, lambda_=0.0).any()


def test_at_full_density_agreeing_experts_are_task_arithmetic() -> None:
    base, vectors = normal(4, 5, seed=0), [normal(4, 5, seed=i).abs() for i in (1, 2)]
    found = ties(CutTensor(base, [base + v for v in vectors], 4), [0.5, 0.25], normalize=False)
    torch.testing.assert_close(found, base + 0.5 * vectors[0] + 0.25 * vectors[1], rtol=1e-5, atol=1e-6)


def test_an_expert_of_weight_zero_is_absent() -> None:
    vectors = [normal(4, 5, seed=i) for i in (1, 2, 3)]
    for normalize in (True, False):
        with_it = ties(deltas_only(*vectors), [0.5, 0.25, 0.0], 0.5, normalize=normalize)
        assert torch.equal(with_it, ties(deltas_only(*vectors[:2]), [0.5, 0.25], 0.5, normalize=normalize))


def test_agreeing_weights_that_cancel_are_not_divided_by() -> None:
    """0.1 + 0.2 − 0.3 is 1e-8 in float32, not 0: dividing by it would give weights of 1e8."""
    tensor = deltas_only(row(1.0), row(1.0), row(-3.0))
    torch.testing.assert_close(ties(tensor, [0.1, 0.2, -0.3]), row(1.2))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (0, 3), (1, 0)])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_any_shape(shape: tuple[int, int], density: float) -> None:
    """One element keeps itself at any density above zero; none at all is no error."""
    vector = normal(*shape, seed=1)
    found = get_method("ties")(
        torch.zeros(shape), [vector], weight=[1.0], density=[density], normalize=True, rescale=True, lambda_=1.0
    )
    assert found.shape == shape
    if vector.numel() == 1:
        assert torch.equal(found, vector * (density > 0))


def test_low_rank_and_float16_experts() -> None:
    base = normal(6, 5, seed=0).half()
    expert = normal(6, 5, seed=1).half()
    low_rank = LowRankDelta(normal(6, 2, seed=2), normal(2, 5, seed=3), 0.5)
    options = {"weight": [1.0, 0.5], "density": [0.5, 0.5], "normalize": True, "rescale": False, "lambda_": 1.0}
    found = get_method("ties")(base, [DenseDelta(expert, base), low_rank], **options)
    dense = get_method("ties")(base.float(), [expert.float() - base.float(), low_rank.dense()], **options)
    torch.testing.assert_close(found, dense)


def test_a_diverged_expert_is_not_trimmed_away() -> None:
    """The check of the output can only name an expert whose NaN or infinity comes through."""
    for bad in (float("nan"), float("inf"), float("-inf")):
        assert not torch.isfinite(
            ties(deltas_only(row(1.0, bad, 2.0, 3.0), row(1.0, 1.0, 1.0, 1.0)), [1.0, 1.0], 0.5)
        ).all()
