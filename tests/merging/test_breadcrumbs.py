"""Model Breadcrumbs: drop the largest entries and the smallest, and sum or elect."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_merges import CutTensor, by_the_book, deltas_only, experts_on_a_base, largest, merged, normal
from torch import Tensor

from unspoiled.errors import ConfigError

METHODS = ["breadcrumbs", "breadcrumbs_ties"]


def merge(
    method: str, tensor: CutTensor, weight: list[float], density: float = 0.5, gamma: float = 0.1, **options: Any
) -> Tensor:
    defaults = {"normalize": False, "rescale": False, "lambda_": 1.0}
    shares = {"density": [density] * len(weight), "gamma": [gamma] * len(weight)}
    return merged(method, tensor, **defaults | options, **shares, weight=weight)


def crumbs(vector: Tensor, density: float, gamma: float) -> Tensor:
    """Return what is left between the largest and the smallest, by two sorts."""
    target = int(density * vector.numel())
    dropped = min(int(gamma * vector.numel()), vector.numel() - target)
    return largest(vector, dropped + target) - largest(vector, dropped)


def test_by_hand() -> None:
    """Of ten entries the largest goes (γ = 0.1), then the smallest until five are left (density 0.5)."""
    first = torch.tensor([[9.0, -1.0, 8.0, 2.0, -7.0, 3.0, 6.0, -4.0, 5.0, 0.0]])
    second = torch.tensor([[-1.0, 5.0, -8.0, 4.0, 3.0, 2.0, -6.0, 7.0, 0.0, 9.0]])
    kept = torch.tensor([[0.0, 0.0, 8.0, 0.0, -7.0, 0.0, 6.0, -4.0, 5.0, 0.0]])
    assert torch.equal(merge("breadcrumbs", deltas_only(first), [1.0]), kept)
    both = torch.tensor([[0.0, 5.0, 0.0, 4.0, -7.0, 0.0, 0.0, 3.0, 5.0, 0.0]])  # second keeps 5, −8, 4, −6, 7
    assert torch.equal(merge("breadcrumbs", deltas_only(first, second), [1.0, 1.0]), both)
    elected = torch.tensor([[0.0, 5.0, 8.0, 4.0, -7.0, 0.0, 6.0, 7.0, 5.0, 0.0]])  # 8 − 8 and 6 − 6 count as plus
    assert torch.equal(merge("breadcrumbs_ties", deltas_only(first, second), [1.0, 1.0]), elected)


def test_a_gamma_that_rounds_to_nothing_drops_no_outlier() -> None:
    """⌊0.01 · 10⌋ = 0: the largest stay. (mergekit's slice is then empty, and the whole task vector is lost.)"""
    vector = normal(1, 10, seed=1)
    torch.testing.assert_close(merge("breadcrumbs", deltas_only(vector), [1.0], gamma=0.01), largest(vector, 5).float())


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weight", [[0.5, 0.4, 0.3], [1.0, -0.7, 0.4]])
@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.1), (0.9, 0.3), (0.3, 0.0), (1.0, 0.2)])
def test_against_the_formula_in_float64(weight: list[float], density: float, gamma: float, normalize: bool) -> None:
    tensor = experts_on_a_base(step=5)
    vectors = [x.float() - tensor.base.float() for x in tensor.experts]
    left = [vector.double() if density == 1 else crumbs(vector, density, gamma) for vector in vectors]
    options = {"normalize": normalize, "lambda_": 0.8}
    found = merge("breadcrumbs_ties", tensor, weight, density, gamma, **options)
    torch.testing.assert_close(found.double(), by_the_book(tensor.base, left, weight, **options), rtol=1e-5, atol=1e-8)
    found = merge("breadcrumbs", tensor, weight, density, gamma, **options)
    total = sum(w * vector for w, vector in zip(weight, left, strict=True)) / (sum(weight) if normalize else 1.0)
    torch.testing.assert_close(found.double(), tensor.base.double() + 0.8 * total, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [1, 5, 11])
def test_blocks_do_not_matter(method: str, step: int) -> None:
    whole = merge(method, experts_on_a_base(), [0.5, 0.4, 0.3], rescale=True)
    cut = merge(method, experts_on_a_base(step=step), [0.5, 0.4, 0.3], rescale=True)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-7)


entries = st.lists(st.integers(-8, 8), min_size=6, max_size=6).map(lambda v: torch.tensor(v).float().reshape(2, 3))
experts = st.lists(st.tuples(entries, st.integers(-4, 4).map(lambda w: w / 2)), min_size=1, max_size=4)
shares = st.sampled_from([0.0, 0.2, 0.5, 1.0])


@given(experts=experts, density=shares, gamma=shares, data=st.data())
def test_the_order_of_experts_does_not_matter(
    experts: list[tuple[Tensor, float]], density: float, gamma: float, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(experts))
    for method in METHODS:
        found = [
            merge(method, deltas_only(*(t for t, _ in order)), [w for _, w in order], density, gamma)
            for order in (experts, shuffled)
        ]
        torch.testing.assert_close(*found)


@given(vector=entries, weight=st.floats(0.01, 10), density=shares, gamma=shares)
def test_a_lone_weight_cancels_out_under_normalize(vector: Tensor, weight: float, density: float, gamma: float) -> None:
    left = vector if density == 1 else crumbs(vector, density, gamma).float()
    for method in METHODS:
        torch.testing.assert_close(merge(method, deltas_only(vector), [weight], density, gamma, normalize=True), left)


def test_weights_that_cancel_cannot_be_normalized() -> None:
    tensor = deltas_only(*[normal(3, 4, seed=1)] * 2)
    with pytest.raises(ConfigError, match=r"breadcrumbs with normalize: the weights .* sum to 0"):
        merge("breadcrumbs", tensor, [1.0, -1.0], normalize=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_diverged_expert_is_not_an_outlier_to_drop(method: str) -> None:
    for bad in (float("nan"), float("inf"), float("-inf")):
        vector = normal(5, 6, seed=1)
        vector[2, 3] = bad
        assert not torch.isfinite(merge(method, deltas_only(vector), [1.0])).all()
