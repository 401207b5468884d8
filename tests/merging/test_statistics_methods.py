"""Methods that weigh experts by what their data say: Fisher merging and RegMean."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging import get_method

Reader = Callable[[str], Tensor | None]


def fisher(tensors: list[Tensor], information: list[Tensor], weight: list[float]) -> Tensor:
    readers: list[Reader] = [{"fisher": one}.get for one in information]
    return get_method("fisher")(None, tensors, statistics=readers, weight=weight)


def regmean(tensors: list[Tensor], inputs: list[Tensor], weight: list[float], alpha: float) -> Tensor:
    """Merge with the Gram matrices of inputs [rows, in]."""
    readers: list[Reader] = [{"input_gram": (x.T @ x / len(x)).float()}.get for x in inputs]
    return get_method("regmean")(None, tensors, statistics=readers, weight=weight, alpha=alpha)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_fisher_by_hand() -> None:
    first, second = torch.tensor([[1.0, 1.0, 4.0, 2.0]]), torch.tensor([[3.0, 5.0, 8.0, 6.0]])
    information = [torch.tensor([[1.0, 3.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 2.0, 0.0]])]
    # equal information: the mean; 3 to 1; only the second knows; nobody knows: the mean
    assert torch.equal(fisher([first, second], information, [1.0, 1.0]), torch.tensor([[2.0, 2.0, 8.0, 4.0]]))
    # weights multiply the information, and average where there is none
    assert torch.equal(fisher([first, second], information, [1.0, 3.0]), torch.tensor([[2.5, 3.0, 8.0, 5.0]]))


def test_equal_information_is_the_average() -> None:
    tensors = [random(4, 5, seed=seed) for seed in range(3)]
    same = random(4, 5, seed=9).square() + 1e-12
    torch.testing.assert_close(fisher(tensors, [same] * 3, [1.0] * 3), sum(tensors) / 3)


def test_the_unit_of_the_information_does_not_matter() -> None:
    """Squared gradients of a large model are tiny numbers."""
    tensors = [random(4, 5, seed=seed) for seed in range(2)]
    information = [random(4, 5, seed=10 + seed).square() for seed in range(2)]
    tiny = [one * 1e-30 for one in information]
    torch.testing.assert_close(fisher(tensors, tiny, [1.0, 1.0]), fisher(tensors, information, [1.0, 1.0]))


def _least_squares(tensors: list[Tensor], inputs: list[Tensor], weight: list[float]) -> Tensor:
    """Solve min Σ wᵢ/nᵢ ‖X_i Wᵀ − X_i W_iᵀ‖² by stacking the rows, in float64."""
    rows = [x.double() * (w / len(x)) ** 0.5 for x, w in zip(inputs, weight, strict=True)]
    targets = torch.cat([x @ tensor.double().T for x, tensor in zip(rows, tensors, strict=True)])
    return torch.linalg.lstsq(torch.cat(rows), targets, driver="gelsd").solution.T


@pytest.mark.parametrize("weight", [[1.0, 1.0, 1.0], [2.0, 0.5, 1.0]])
def test_regmean_solves_the_least_squares_problem(weight: list[float]) -> None:
    tensors = [random(5, 8, seed=seed) for seed in range(3)]
    inputs = [random(rows, 8, seed=20 + rows, dtype=torch.float64) for rows in (30, 50, 12)]
    wanted = _least_squares(tensors, inputs, weight)
    torch.testing.assert_close(regmean(tensors, inputs, weight, 1.0).double(), wanted, rtol=1e-4, atol=1e-5)


def test_experts_on_separate_inputs_are_both_kept() -> None:
    """Where the experts' inputs lie in different directions there is a layer that does what each of them does."""
    tensors = [random(5, 8, seed=seed) for seed in range(2)]
    inputs = [random(20, 8, seed=30), random(20, 8, seed=31)]
    inputs[0][:, 4:], inputs[1][:, :4] = 0.0, 0.0
    merged = regmean(tensors, inputs, [1.0, 1.0], 1.0)
    for tensor, x in zip(tensors, inputs, strict=True):
        torch.testing.assert_close(x @ merged.T, x @ tensor.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_equal_experts_come_out_as_they_are(alpha: float) -> None:
    tensor = random(5, 8)
    merged = regmean([tensor, tensor], [random(20, 8, seed=1), random(3, 8, seed=2)], [1.0, 1.0], alpha)
    torch.testing.assert_close(merged, tensor)


def test_alpha_shrinks_what_is_off_the_diagonal() -> None:
    tensors = [random(5, 8, seed=seed) for seed in range(2)]
    inputs = [random(20, 8, seed=40 + seed) for seed in range(2)]
    grams = [(x.T @ x / 20).double() for x in inputs]
    shrunk = [0.3 * gram + 0.7 * torch.diag(gram.diagonal()) for gram in grams]
    wanted = sum(tensor.double() @ gram for tensor, gram in zip(tensors, shrunk, strict=True)) @ sum(shrunk).inverse()
    torch.testing.assert_close(regmean(tensors, inputs, [1.0, 1.0], 0.3).double(), wanted, rtol=1e-4, atol=1e-5)
    diagonal = [gram.diagonal() for gram in grams]
    weighted = sum(tensor * gram for tensor, gram in zip(tensors, diagonal, strict=True)) / sum(diagonal)
    torch.testing.assert_close(regmean(tensors, inputs, [1.0, 1.0], 0.0), weighted.float())


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_inputs_that_are_always_zero_are_averaged(alpha: float) -> None:
    tensors = [random(5, 4, seed=seed) for seed in range(2)]
    inputs = [random(20, 4, seed=50 + seed) for seed in range(2)]
    for x in inputs:
        x[:, 2] = 0.0
    merged = regmean(tensors, inputs, [1.0, 3.0], alpha)
    torch.testing.assert_close(merged[:, 2], (0.25 * tensors[0] + 0.75 * tensors[1])[:, 2])


def test_tensors_that_no_model_has_inputs_for_are_averaged() -> None:
    tensors = [torch.zeros(1, 4), torch.ones(1, 4)]
    merged = get_method("regmean")(None, tensors, statistics=[{}.get, {}.get], weight=[1.0, 3.0], alpha=0.9)
    assert torch.equal(merged, torch.full((1, 4), 0.75))


def test_inputs_of_some_models_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 of 2 models have an `input_gram`"):
        get_method("regmean")(
            None,
            [torch.zeros(2, 2), torch.ones(2, 2)],
            statistics=[{}.get, {"input_gram": torch.eye(2)}.get],
            weight=[1.0, 1.0],
            alpha=0.9,
        )


def led(base: Tensor, tensors: list[Tensor], scores: list[tuple[Tensor, Tensor]], density: list[float]) -> Tensor:
    readers: list[Reader] = [{"importance": own, "base_importance": before}.get for own, before in scores]
    deltas = [tensor - base for tensor in tensors]
    return get_method("led")(base, deltas, statistics=readers, density=density, weight=[1.0] * len(tensors))


def test_led_by_hand() -> None:
    base = torch.zeros(1, 6)
    first, second = torch.full((1, 6), 1.0), torch.full((1, 6), 2.0)
    # the first expert locates entries 0, 1, 2 in itself and 1, 2, 3 in the base: 1 and 2 are elected
    scores_of_first = (torch.tensor([[9.0, 8, 7, 1, 1, 1]]), torch.tensor([[1.0, 8, 7, 9, 1, 1]]))
    # the second 2, 3, 4 in both; entry 2 is claimed by both experts, and goes to neither
    scores_of_second = (torch.tensor([[1.0, 1, 5, 6, 7, 1]]),) * 2
    merged = led(base, [first, second], [scores_of_first, scores_of_second], [0.5, 0.5])
    assert torch.equal(merged, torch.tensor([[0.0, 1.0, 0.0, 2.0, 2.0, 0.0]]))


def test_led_against_sorting() -> None:
    """The masks by a full sort of every score, as the paper defines them."""
    base, tensors = random(9, 11), [random(9, 11, seed=seed) for seed in (1, 2, 3)]
    scores = [(random(9, 11, seed=10 + i).abs(), random(9, 11, seed=20 + i).abs()) for i in range(3)]
    density = [0.3, 0.5, 0.8]
    elected = []
    for pair, share in zip(scores, density, strict=True):
        limits = [score.flatten().sort(descending=True).values[int(share * 99) - 1] for score in pair]
        elected.append((pair[0] >= limits[0]) & (pair[1] >= limits[1]))
    wanted = base.clone()
    for i, tensor in enumerate(tensors):
        others = torch.stack([one for j, one in enumerate(elected) if j != i]).any(dim=0)
        mine = elected[i] & ~others
        wanted[mine] = tensor[mine]
    torch.testing.assert_close(led(base, tensors, scores, density), wanted)


def test_led_keeps_nothing_at_zero_and_a_lone_expert_at_one() -> None:
    base, tensor = random(4, 4), random(4, 4, seed=1)
    scores = [(random(4, 4, seed=2).abs(), random(4, 4, seed=3).abs())]
    assert torch.equal(led(base, [tensor], scores, [0.0]), base)
    torch.testing.assert_close(led(base, [tensor], scores, [1.0]), tensor)
