"""The formulas of the methods: worked by hand, their algebra, and their accuracy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.errors import ConfigError
from unspoiled.merging import AdaptedTensor, Delta, DenseDelta, Weights, get_method

BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
FIRST = torch.tensor([[2.0, 2.0], [3.0, 0.0]])  # task vector [[1, 0], [0, -4]]
SECOND = torch.tensor([[1.0, 4.0], [5.0, 4.0]])  # task vector [[0, 2], [2, 0]]


def linear(tensors: list[Weights], weight: list[float], *, normalize: bool = True) -> Tensor:
    return get_method("linear")(None, tensors, weight=weight, normalize=normalize)


def task_arithmetic(
    base: Tensor, deltas: list[Delta], weight: list[float], *, normalize: bool = False, lambda_: float = 1.0
) -> Tensor:
    return get_method("task_arithmetic")(base, deltas, weight=weight, normalize=normalize, lambda_=lambda_)


def deltas(*tensors: Tensor) -> list[Delta]:
    return [DenseDelta(tensor, BASE) for tensor in tensors]


@pytest.mark.parametrize(
    ("weight", "normalize", "expected"),
    [
        ([1.0, 3.0], True, [[1.25, 3.5], [4.5, 3.0]]),  # (first + 3 second) / 4
        ([0.5, 0.5], False, [[1.5, 3.0], [4.0, 2.0]]),
        ([0.5, 0.25], False, [[1.25, 2.0], [2.75, 1.0]]),  # without normalize the sum is not an average
        ([2.0, -1.0], True, [[3.0, 0.0], [1.0, -4.0]]),  # extrapolation away from the second
    ],
)
def test_linear_by_hand(weight: list[float], normalize: bool, expected: list[list[float]]) -> None:
    assert torch.equal(linear([FIRST, SECOND], weight, normalize=normalize), torch.tensor(expected))


@pytest.mark.parametrize(
    ("weight", "normalize", "lambda_", "expected"),
    [
        ([1.0, 1.0], False, 1.0, [[2.0, 4.0], [5.0, 0.0]]),  # base + both task vectors
        ([0.5, 2.0], False, 1.0, [[1.5, 6.0], [7.0, 2.0]]),
        ([0.5, 2.0], False, 0.5, [[1.25, 4.0], [5.0, 3.0]]),  # lambda multiplies the whole sum
        ([1.0, 3.0], True, 1.0, [[1.25, 3.5], [4.5, 3.0]]),  # normalize divides by the sum of the weights
        ([1.0, 3.0], True, 2.0, [[1.5, 5.0], [6.0, 2.0]]),
        ([-1.0, 0.0], False, 1.0, [[0.0, 2.0], [3.0, 8.0]]),  # negation: forget the first
    ],
)
def test_task_arithmetic_by_hand(
    weight: list[float], normalize: bool, lambda_: float, expected: list[list[float]]
) -> None:
    result = task_arithmetic(BASE, deltas(FIRST, SECOND), weight, normalize=normalize, lambda_=lambda_)
    assert torch.equal(result, torch.tensor(expected))


def test_a_lone_weight_cancels_out_under_normalize() -> None:
    """mergekit's semantics, as MERGEKIT.md measured them: weight 0.2 gives the full task vector."""
    assert torch.allclose(task_arithmetic(BASE, deltas(FIRST), [0.2], normalize=True), FIRST)
    assert torch.allclose(linear([FIRST], [0.2]), FIRST)


def test_low_rank_by_hand() -> None:
    delta = LowRankDelta(b=torch.tensor([[1.0], [2.0]]), a=torch.tensor([[3.0, 4.0]]), scale=0.5)
    assert torch.equal(delta.dense(), torch.tensor([[1.5, 2.0], [3.0, 4.0]]))
    assert torch.equal(task_arithmetic(BASE, [delta], [2.0]), torch.tensor([[4.0, 6.0], [9.0, 12.0]]))
    assert torch.equal(linear([AdaptedTensor(BASE, delta), FIRST], [1.0, 1.0]), torch.tensor([[2.25, 3.0], [4.5, 4.0]]))


numbers = st.floats(-2.0, 2.0, width=32)
tensors = st.lists(numbers, min_size=4, max_size=4).map(lambda values: torch.tensor(values).reshape(2, 2))
experts = st.lists(st.tuples(tensors, numbers), min_size=1, max_size=4)


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@given(base=tensors, experts=experts, data=st.data())
def test_the_order_of_experts_does_not_matter(
    base: Tensor, experts: list[tuple[Tensor, float]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(experts))
    for given_order in (experts, shuffled):
        vectors: list[Delta] = [DenseDelta(tensor, base) for tensor, _ in given_order]
        weights = [weight for _, weight in given_order]
        close(task_arithmetic(base, vectors, weights), task_arithmetic(base, *_split(experts, base)))
        close(
            linear([tensor for tensor, _ in given_order], weights, normalize=False),
            linear([tensor for tensor, _ in experts], [weight for _, weight in experts], normalize=False),
        )


def _split(experts: list[tuple[Tensor, float]], base: Tensor) -> tuple[list[Delta], list[float]]:
    return [DenseDelta(tensor, base) for tensor, _ in experts], [weight for _, weight in experts]


@given(base=tensors, experts=experts, lambda_=numbers)
def test_lambda_scales_every_weight(base: Tensor, experts: list[tuple[Tensor, float]], lambda_: float) -> None:
    vectors, weights = _split(experts, base)
    scaled = [lambda_ * weight for weight in weights]
    close(task_arithmetic(base, vectors, weights, lambda_=lambda_), task_arithmetic(base, vectors, scaled))


@given(base=tensors, experts=experts, scale=st.floats(0.1, 8.0))
def test_scaling_all_weights_changes_nothing_under_normalize(
    base: Tensor, experts: list[tuple[Tensor, float]], scale: float
) -> None:
    vectors, weights = _split(experts, base)
    weights = [abs(weight) + 0.1 for weight in weights]
    scaled = [scale * weight for weight in weights]
    models = [tensor for tensor, _ in experts]
    close(
        task_arithmetic(base, vectors, weights, normalize=True), task_arithmetic(base, vectors, scaled, normalize=True)
    )
    close(linear(models, weights), linear(models, scaled))


@given(base=tensors, experts=experts, extra=tensors)
def test_an_expert_of_weight_zero_is_absent(base: Tensor, experts: list[tuple[Tensor, float]], extra: Tensor) -> None:
    vectors, weights = _split(experts, base)
    with_extra: list[Delta] = [*vectors, DenseDelta(extra, base)]
    assert torch.equal(task_arithmetic(base, with_extra, [*weights, 0.0]), task_arithmetic(base, vectors, weights))
    models = [tensor for tensor, _ in experts]
    assert torch.equal(
        linear([*models, extra], [*weights, 0.0], normalize=False), linear(models, weights, normalize=False)
    )


@given(base=tensors, expert=tensors, weight=st.floats(0.01, 4.0))
def test_one_normalized_expert_is_that_expert(base: Tensor, expert: Tensor, weight: float) -> None:
    assert torch.equal(linear([expert], [weight]), expert)
    close(task_arithmetic(base, [DenseDelta(expert, base)], [weight], normalize=True), expert)


@given(base=tensors, experts=experts)
def test_a_linear_merge_with_the_base_is_task_arithmetic(base: Tensor, experts: list[tuple[Tensor, float]]) -> None:
    """Σ wᵢ θᵢ + (1 − Σ wᵢ) θ_base = θ_base + Σ wᵢ τᵢ: the two methods meet where the weights sum to one."""
    vectors, weights = _split(experts, base)
    average = linear([base, *(t for t, _ in experts)], [1.0 - sum(weights), *weights], normalize=False)
    torch.testing.assert_close(average, task_arithmetic(base, vectors, weights), rtol=1e-4, atol=1e-4)


def test_bfloat16_inputs_are_accumulated_in_float32() -> None:
    """Against float64: the result is right to float32 rounding, a hundred times closer than bf16 arithmetic."""
    generator = torch.Generator().manual_seed(0)
    base, *models = (torch.randn(64, 64, generator=generator).bfloat16() for _ in range(6))
    weights = [0.3, 0.7, -0.2, 0.45, 0.1]
    low_rank = LowRankDelta(
        torch.randn(64, 4, generator=generator).bfloat16(), torch.randn(4, 64, generator=generator).bfloat16(), 0.5
    )
    truth = base.double() + sum(w * (m.double() - base.double()) for w, m in zip(weights, models, strict=True))
    truth += 0.6 * 0.5 * low_rank.b.double() @ low_rank.a.double()
    result = task_arithmetic(base, [*(DenseDelta(m, base) for m in models), low_rank], [*weights, 0.6])
    assert result.dtype == torch.float32
    assert (result.double() - truth).abs().max() < 5e-6
    in_bfloat16 = base + sum(w * (m - base) for w, m in zip(weights, models, strict=True))
    in_bfloat16 += 0.6 * 0.5 * low_rank.b @ low_rank.a
    assert (in_bfloat16.double() - truth).abs().max() > 5e-4

    average = linear([*models], weights)
    truth = sum(w * m.double() for w, m in zip(weights, models, strict=True)) / sum(weights)
    assert (average.double() - truth).abs().max() < 5e-6


def test_inputs_are_left_as_they_were() -> None:
    """A method that wrote into a memory-mapped input would spoil every later trial."""
    inputs = [BASE.clone(), FIRST.clone(), torch.ones(2, 1), torch.ones(1, 2)]
    low_rank = LowRankDelta(inputs[2], inputs[3], 1.0)
    linear([inputs[0], AdaptedTensor(inputs[0], low_rank), inputs[1]], [1.0, 2.0, 3.0])
    task_arithmetic(inputs[0], [DenseDelta(inputs[1], inputs[0]), low_rank], [1.0, 2.0])
    AdaptedTensor(inputs[0], low_rank).dense()
    DenseDelta(inputs[1], inputs[0]).dense()
    for tensor, original in zip(inputs, [BASE, FIRST, torch.ones(2, 1), torch.ones(1, 2)], strict=True):
        assert torch.equal(tensor, original)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [0.1, 0.2, -0.3]])
def test_weights_that_cancel_cannot_be_normalized(weights: list[float]) -> None:
    """0.1 + 0.2 - 0.3 is 5.6e-17 in floating point; dividing by it would give a model of 1e16s."""
    models: list[Weights] = [FIRST] * len(weights)
    with pytest.raises(ConfigError, match=r"linear with normalize: the weights .* sum to 0"):
        linear(models, weights)
    with pytest.raises(ConfigError, match=r"task_arithmetic with normalize: the weights .* sum to 0"):
        task_arithmetic(BASE, deltas(*[FIRST] * len(weights)), weights, normalize=True)
    assert torch.isfinite(linear(models, weights, normalize=False)).all()
