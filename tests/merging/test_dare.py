"""DARE: drop at random, scale up, and sum or elect."""

from pathlib import Path
from typing import Any

import pytest
import torch
from random_merges import bytes_by_threads, mean_and_error
from sparse_merges import CutTensor, by_the_book, deltas_only, experts_on_a_base, merged, normal
from torch import Tensor

from tiny import Bunch
from unspoiled.errors import ConfigError

METHODS = ["dare_linear", "dare_ties"]


def merge(method: str, tensor: CutTensor, weight: list[float], density: float = 0.5, **options: Any) -> Tensor:
    defaults = {"normalize": False, "rescale": True, "lambda_": 1.0, "seed": 0}
    return merged(method, tensor, **defaults | options, weight=weight, density=[density] * len(weight))


def test_by_hand_with_everything_kept() -> None:
    tensor = deltas_only(torch.tensor([[4.0, 2.0, 1.0]]), torch.tensor([[2.0, -6.0, -1.0]]))
    assert torch.equal(merge("dare_linear", tensor, [1.0, 0.5], 1.0), torch.tensor([[5.0, -1.0, 0.5]]))
    assert torch.equal(merge("dare_linear", tensor, [1.0, 1.0], 1.0, normalize=True), torch.tensor([[3.0, -2.0, 0.0]]))
    assert torch.equal(merge("dare_ties", tensor, [1.0, 0.5], 1.0), torch.tensor([[5.0, -3.0, 1.0]]))
    halves = merge("dare_ties", tensor, [1.0, 0.5], 1.0, normalize=True, lambda_=0.5)
    torch.testing.assert_close(halves, torch.tensor([[5 / 1.5 / 2, -3.0, 0.5]]))


@pytest.mark.parametrize("method", METHODS)
def test_a_lone_expert_keeps_its_l1_norm(method: str) -> None:
    """What is kept is the task vector's own entries times one factor, near 1 / density: mergekit's rescaling."""
    vector = normal(100, 90, seed=1)
    found = merge(method, deltas_only(vector), [1.0])
    factors = (found / vector)[found != 0]
    torch.testing.assert_close(found.abs().sum(), vector.abs().sum())
    torch.testing.assert_close(factors, factors.mean().expand_as(factors))
    assert factors.mean() == pytest.approx(2.0, rel=0.05)
    unscaled = merge(method, deltas_only(vector), [1.0], rescale=False)
    assert torch.equal(unscaled, vector * (found != 0))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weight", [[0.5, 0.4, 0.3], [1.0, -0.7, 0.4]])
def test_what_is_kept_is_merged_as_the_formula_says(weight: list[float], normalize: bool) -> None:
    """What is kept of each expert shows when it is merged alone; the merge of all is made of it in float64.

    An expert's draws depend on its place, so the others are set to the base instead of being left out.
    """
    tensor = experts_on_a_base(step=5)
    base = tensor.base.float()
    alone = [
        merge(
            "dare_linear",
            deltas_only(*[(x.float() - base) * (i == j) for j, x in enumerate(tensor.experts)]),
            [1.0] * 3,
        )
        for i in range(3)
    ]
    found = merge("dare_ties", tensor, weight, normalize=normalize, lambda_=0.8)
    expected = by_the_book(tensor.base, alone, weight, normalize=normalize, lambda_=0.8)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    summed = merge("dare_linear", tensor, weight, normalize=normalize, lambda_=0.8)
    total = sum(w * vector.double() for w, vector in zip(weight, alone, strict=True))
    expected = tensor.base.double() + 0.8 * total / (sum(weight) if normalize else 1.0)
    torch.testing.assert_close(summed.double(), expected, rtol=1e-5, atol=1e-7)


def test_over_many_seeds_they_average_to_the_task_vector() -> None:
    """The mean over draws is the task vector itself, which is DARE's point: within five standard errors."""
    vector = normal(6, 7, seed=1)
    seeds = range(400)
    mean, error = mean_and_error(
        [merge("dare_linear", deltas_only(vector), [1.0], 0.5, rescale=False, seed=s) for s in seeds]
    )
    assert ((mean - 0.5 * vector).abs() < 5 * error).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [1, 5, 11])
def test_blocks_do_not_matter(method: str, step: int) -> None:
    """The draws are the same; the L1 norm is summed in another order."""
    whole = merge(method, experts_on_a_base(), [0.5, 0.4, 0.3])
    cut = merge(method, experts_on_a_base(step=step), [0.5, 0.4, 0.3])
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_bytes_from_any_number_of_threads(method: str, bunch: Bunch, tmp_path: Path) -> None:
    one, two, four = bytes_by_threads(method, bunch, tmp_path, density=0.5, seed=3)
    assert one == two == four


@pytest.mark.parametrize("method", METHODS)
def test_seed_and_tensor_name_change_the_draws(method: str) -> None:
    vector = normal(20, 30, seed=1)
    kept = {
        tuple((merge(method, deltas_only(vector, name=name), [1.0], seed=seed) != 0).reshape(-1).tolist())
        for seed, name in [(0, "a"), (0, "b"), (1, "a")]
    }
    assert len(kept) == 3
    assert torch.equal(*(merge(method, deltas_only(vector), [1.0], seed=5) for _ in range(2)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (0, 3), (1, 0)])
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_any_shape_and_an_expert_that_changed_nothing(method: str, shape: tuple[int, int], density: float) -> None:
    base = normal(*shape, seed=0)
    tensor = CutTensor(base, [base, base], max(1, shape[0]))
    blocks = [] if shape[0] == 0 else [merge(method, tensor, [0.5, 0.25], density)]
    assert all(torch.equal(rows, base) for rows in blocks)


def test_weights_that_cancel_cannot_be_normalized() -> None:
    tensor = deltas_only(*[normal(3, 4, seed=1)] * 2)
    with pytest.raises(ConfigError, match=r"dare_linear with normalize: the weights .* sum to 0"):
        merge("dare_linear", tensor, [1.0, -1.0], normalize=True)
    assert torch.isfinite(merge("dare_ties", tensor, [1.0, -1.0], normalize=True)).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_diverged_expert_is_not_dropped(method: str) -> None:
    """Even where its NaN or infinity is among the entries that aren't kept."""
    for bad in (float("nan"), float("inf"), float("-inf")):
        vector = normal(5, 6, seed=1)
        vector[2, 3] = bad
        for seed in range(8):
            assert not torch.isfinite(merge(method, deltas_only(vector), [1.0], seed=seed)).all()
