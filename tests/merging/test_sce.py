"""SCE: select what varies, calculate weights from the energy, erase minorities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_merges import CutTensor, deltas_only, experts_on_a_base, merged, normal
from torch import Tensor

from unspoiled.merging import get_method


def sce(tensor: CutTensor, select_topk: float = 1.0) -> Tensor:
    return merged("sce", tensor, select_topk=select_topk)


def by_the_paper(tensor: CutTensor, select_topk: float) -> Tensor:
    """Select, calculate, erase, in float64 with torch's own variance and a stable sort."""
    stacked = torch.stack([x.double() - tensor.base.double() for x in tensor.experts])
    if select_topk < 1:
        variance = torch.stack([x.float() - tensor.base.float() for x in tensor.experts]).double().var(0, correction=0)
        flat = variance.reshape(-1)
        count = int(int((flat > 1e-30).sum()) * select_topk)
        mask = torch.zeros_like(flat)
        mask[flat.sort(descending=True, stable=True).indices[:count]] = 1
        stacked = stacked * mask.reshape(variance.shape)
    energy = stacked.square().sum((1, 2))
    weight = (energy / energy.sum()).reshape(-1, 1, 1)
    side = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agrees = (stacked * side > 0).double()
    total = (weight * agrees * stacked).sum(0)
    return tensor.base.double() + total / (weight * agrees).sum(0).clamp(min=1e-6)


def test_by_hand() -> None:
    """Energies 25 and 75: weights ¼ and ¾. Agreeing entries are averaged with them, lone ones stay, minorities go."""
    first, second = torch.tensor([[4.0, 3.0, 0.0, 0.0]]), torch.tensor([[5.0, -5.0, 5.0, 0.0]])
    expected = torch.tensor([[(4 + 3 * 5) / 4, -5.0, 5.0, 0.0]])
    torch.testing.assert_close(sce(deltas_only(first, second)), expected)
    # Variances ¼, 16, 25/4 and 0: three vary, of which ⌊0.7 · 3⌋ = 2 are selected. Energies are then 9 and 50.
    torch.testing.assert_close(sce(deltas_only(first, second), 0.7), torch.tensor([[0.0, -5.0, 5.0, 0.0]]))


@pytest.mark.parametrize("select_topk", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("step", [1, 5, 12])
def test_against_the_formula_in_float64(select_topk: float, step: int) -> None:
    base = normal(12, 40, seed=0)
    experts = [base + normal(12, 40, seed=i + 1, scale=0.01 * (i + 1)) for i in range(4)]
    tensor = CutTensor(base, experts, step)
    torch.testing.assert_close(
        sce(tensor, select_topk).double(), by_the_paper(tensor, select_topk), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("step", [1, 5, 11])
def test_blocks_do_not_matter(step: int) -> None:
    for select_topk in (0.4, 1.0):
        torch.testing.assert_close(
            sce(experts_on_a_base(step=step), select_topk), sce(experts_on_a_base(), select_topk), rtol=0, atol=1e-7
        )


def test_weights_do_not_depend_on_the_scale() -> None:
    """mergekit turns to equal weights below a mean square of 1e-6, where fine-tunes are; the paper doesn't."""
    vectors = [normal(6, 7, seed=1), 3 * normal(6, 7, seed=2)]
    small = [2.0**-13 * vector for vector in vectors]
    for select_topk in (0.5, 1.0):
        found = sce(deltas_only(*small), select_topk)
        torch.testing.assert_close(found, 2.0**-13 * sce(deltas_only(*vectors), select_topk), rtol=1e-5, atol=0)


entries = st.lists(st.integers(-8, 8), min_size=6, max_size=6).map(lambda v: torch.tensor(v).float().reshape(2, 3))


@given(vectors=st.lists(entries, min_size=1, max_size=5), data=st.data())
def test_the_order_of_experts_does_not_matter(vectors: list[Tensor], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(vectors))
    torch.testing.assert_close(sce(deltas_only(*shuffled)), sce(deltas_only(*vectors)))


@given(vector=entries, count=st.integers(1, 6))
def test_equal_experts_merge_to_themselves_and_do_not_vary(vector: Tensor, count: int) -> None:
    tensor = deltas_only(*[0.1 * vector] * count)
    torch.testing.assert_close(sce(tensor), 0.1 * vector)
    assert not sce(tensor, 0.9).any()  # nothing varies, so nothing is selected


def test_experts_that_changed_nothing_give_the_base() -> None:
    base = normal(3, 4, seed=1)
    for select_topk in (0.0, 0.5, 1.0):
        assert torch.equal(sce(CutTensor(base, [base, base], 2), select_topk), base)
    assert torch.equal(sce(CutTensor(base, [base + 1, base - 2], 2), 0.0), base)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (1, 0)])
@pytest.mark.parametrize("select_topk", [0.0, 0.5, 1.0])
def test_any_shape(shape: tuple[int, int], select_topk: float) -> None:
    found = get_method("sce")(
        torch.zeros(shape), [normal(*shape, seed=1), normal(*shape, seed=2)], select_topk=select_topk
    )
    assert found.shape == shape
    assert torch.isfinite(found).all()


def test_a_diverged_expert_is_not_selected_away() -> None:
    for bad in (float("nan"), float("inf"), float("-inf")):
        vector = normal(5, 6, seed=1)
        vector[2, 3] = bad
        for select_topk in (0.1, 0.5, 1.0):
            assert not torch.isfinite(sce(deltas_only(vector, normal(5, 6, seed=2)), select_topk)).all()
