"""Methods on whole matrices: TSV-M, Iso-C and WUDI."""

import pytest
import torch
from cut_blocks import merged_whole, random_models
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.merging import BlockSource, get_method
from unspoiled.merging._blocks import Block
from unspoiled.merging._singular import singular, singular_of_sum

SPECTRAL = {"lambda_": 1.0}


def low_rank(rank: int, rows: int, width: int, seed: int) -> LowRankDelta:
    generator = torch.Generator().manual_seed(seed)
    b, a = torch.randn(rows, rank, generator=generator), torch.randn(rank, width, generator=generator)
    return LowRankDelta(b=b, a=a, scale=0.25)


def _orthogonal(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed))).Q


@pytest.mark.parametrize("shape", [(12, 7), (7, 12), (9, 9)])
def test_low_rank_deltas_are_decomposed_through_their_factors(shape: tuple[int, int]) -> None:
    deltas = [low_rank(2, *shape, seed=seed) for seed in (1, 2)]
    one, total = singular(deltas[0]), singular_of_sum(deltas, [1.0, -0.5])
    assert (len(one.values), len(total.values)) == (2, 4)
    torch.testing.assert_close((one.u * one.values) @ one.v, deltas[0].dense())
    torch.testing.assert_close((total.u * total.values) @ total.v, deltas[0].dense() - 0.5 * deltas[1].dense())


@pytest.mark.parametrize("name", ["tsv_m", "iso_c"])
def test_dense_and_low_rank_task_vectors_give_the_same(name: str) -> None:
    base, _ = random_models(0, 10, 8)
    deltas = [low_rank(2, 10, 8, seed=seed) for seed in (1, 2)]
    coefficients = {"weight": [1.0, 0.5], "lambda_": 0.7}
    factored = get_method(name)(base, deltas, **coefficients)
    dense = get_method(name)(base, [delta.dense() for delta in deltas], **coefficients)
    torch.testing.assert_close(factored, dense, rtol=1e-4, atol=1e-5)


def test_tsv_keeps_what_is_orthogonal_already() -> None:
    """Experts that use orthogonal directions, within their share of them, don't interfere: the merge is their sum."""
    left, right = _orthogonal(8, 1), _orthogonal(6, 2)
    first = left[:, :3] @ torch.diag(torch.tensor([3.0, 2.0, 1.0])) @ right[:3]
    second = left[:, 3:6] @ torch.diag(torch.tensor([5.0, 4.0, 0.5])) @ right[3:]
    base, _ = random_models(0, 8, 6)
    result = merged_whole("tsv_m", base, [base + first, base + second], weight=[1.0, 1.0], **SPECTRAL)
    torch.testing.assert_close(result, base + first + second, rtol=1e-4, atol=1e-5)


def test_tsv_of_one_expert_is_the_expert() -> None:
    base, (tensor,) = random_models(1, 9, 5)
    result = merged_whole("tsv_m", base, [tensor], weight=[1.0], **SPECTRAL)
    torch.testing.assert_close(result, tensor, rtol=1e-5, atol=1e-5)


def test_tsv_makes_the_directions_orthogonal() -> None:
    """The merged task vector's singular values are those that the experts brought, whatever their angles."""
    base, tensors = random_models(3, 20, 15)
    change = merged_whole("tsv_m", base, tensors, weight=[1.0] * 3, **SPECTRAL) - base
    brought = torch.cat([torch.linalg.svdvals(tensor - base)[:5] for tensor in tensors]).sort(descending=True).values
    torch.testing.assert_close(torch.linalg.svdvals(change), brought, rtol=1e-4, atol=1e-5)


def test_tsv_against_whitening_in_float64() -> None:
    """The paper's other form of the same step: U (UᵀU)^(-1/2)."""
    base, tensors = random_models(2, 14, 10)
    parts = [torch.linalg.svd((tensor - base).double(), full_matrices=False) for tensor in tensors]
    u = torch.cat([part.U[:, :5] for part in parts], dim=1)
    v = torch.cat([part.Vh[:5] for part in parts])
    s = torch.cat([part.S[:5] for part in parts])

    def inverse_root(matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values.rsqrt()) @ vectors.T

    wanted = u @ inverse_root(u.T @ u) @ torch.diag(s) @ inverse_root(v @ v.T) @ v
    result = merged_whole("tsv_m", base, tensors, weight=[1.0, 1.0], **SPECTRAL)
    torch.testing.assert_close(result, base + wanted.float(), rtol=1e-4, atol=1e-5)


def test_more_experts_than_directions() -> None:
    base, tensors = random_models(5, 3, 4)
    result = merged_whole("tsv_m", base, tensors, weight=[1.0] * 5, **SPECTRAL)
    assert result.shape == base.shape
    assert result.isfinite().all()


def test_iso_flattens_the_spectrum_of_the_sum() -> None:
    base, tensors = random_models(3, 11, 7)
    total = sum(tensor - base for tensor in tensors)
    change = merged_whole("iso_c", base, tensors, weight=[1.0] * 3, **SPECTRAL) - base
    values = torch.linalg.svdvals(total)
    torch.testing.assert_close(
        torch.linalg.svdvals(change), torch.full((7,), values.mean().item()), rtol=1e-4, atol=1e-5
    )
    # no other matrix of that spectrum lies nearer to the sum than the one with its own singular vectors
    assert torch.trace(change.T @ total).item() == pytest.approx((values.mean() * values.sum()).item(), rel=1e-4)


def test_iso_by_hand() -> None:
    base = torch.zeros(2, 2)
    tensors = [torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, -1.0]])]
    result = merged_whole("iso_c", base, tensors, weight=[1.0, 1.0], lambda_=0.5)
    torch.testing.assert_close(result, torch.tensor([[1.0, 0.0], [0.0, -1.0]]))  # the mean of 3 and 1, halved


def test_iso_leaves_directions_that_no_expert_has_alone() -> None:
    """Two LoRA experts of rank 2 span 4 directions; raising the other 4 to the mean would write noise at full size."""
    base = torch.zeros(10, 8)
    deltas = [low_rank(2, 10, 8, seed=seed) for seed in (1, 2)]
    for operands in (deltas, [delta.dense() for delta in deltas]):
        change = get_method("iso_c")(base, operands, weight=[1.0, 1.0], **SPECTRAL)
        wanted = torch.linalg.svdvals(sum(delta.dense() for delta in deltas))[:4].mean()
        values = torch.linalg.svdvals(change)
        torch.testing.assert_close(values[:4], wanted.expand(4), rtol=1e-4, atol=1e-5)
        assert values[4:].max() < 1e-5


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "wudi"])
def test_vectors_are_averaged(name: str) -> None:
    base, tensors = random_models(4, 1, 9)
    coefficients = {"weight": [1.0] * 4, "lambda_": 0.5} | ({"steps": 5, "lr": 0.01} if name == "wudi" else {})
    result = merged_whole(name, base, tensors, **coefficients)
    torch.testing.assert_close(result, base + 0.5 * sum(tensor - base for tensor in tensors) / 4)


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "wudi"])
def test_experts_that_changed_nothing_give_the_base(name: str) -> None:
    base, _ = random_models(0, 6, 7)
    coefficients = {"weight": [1.0] * 3, "lambda_": 1.0} | ({"steps": 5, "lr": 0.01} if name == "wudi" else {})
    torch.testing.assert_close(merged_whole(name, base, [base.clone()] * 3, **coefficients), base)


@pytest.mark.parametrize("name", ["tsv_m", "iso_c", "wudi"])
def test_the_order_of_experts_does_not_matter(name: str) -> None:
    base, tensors = random_models(3, 9, 8)
    coefficients = {"weight": [1.0] * 3, "lambda_": 1.0} | ({"steps": 20, "lr": 1e-3} if name == "wudi" else {})
    forward = merged_whole(name, base, tensors, **coefficients)
    backward = merged_whole(name, base, tensors[::-1], **coefficients)
    torch.testing.assert_close(backward, forward, rtol=1e-4, atol=1e-5)


def _wudi_loss(change: Tensor, deltas: list[Tensor]) -> Tensor:
    return sum((((change - delta) @ delta.T) ** 2).sum() / (delta**2).sum() for delta in deltas)


def test_wudi_is_adam_on_the_papers_loss() -> None:
    """torch's own Adam and autograd, on the loss as the paper writes it."""
    base, tensors = random_models(3, 10, 6)
    deltas = [tensor - base for tensor in tensors]
    point = torch.nn.Parameter(sum(deltas))
    optimizer = torch.optim.Adam([point], lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        _wudi_loss(point, deltas).backward()
        optimizer.step()
    result = merged_whole("wudi", base, tensors, weight=[1.0] * 3, steps=40, lr=1e-3, lambda_=1.0)
    torch.testing.assert_close(result, base + point.detach(), rtol=1e-4, atol=1e-5)


def test_wudi_comes_to_the_least_squares_solution() -> None:
    """The loss is quadratic: where the experts' rows span the inputs, its one minimum solves a linear system."""
    base, tensors = random_models(2, 8, 5)
    deltas = [tensor - base for tensor in tensors]
    stacked = torch.cat([delta / delta.norm() for delta in deltas])
    targets = torch.cat([(delta / delta.norm()) @ delta.T for delta in deltas])
    wanted = torch.linalg.lstsq(stacked, targets).solution.T
    result = merged_whole("wudi", base, tensors, weight=[1.0] * 2, steps=4000, lr=1e-3, lambda_=1.0)
    torch.testing.assert_close(result - base, wanted, rtol=1e-2, atol=2e-3)


def test_wudi_of_orthogonal_rows_is_the_sum() -> None:
    """Where each expert's updates are orthogonal to the others' inputs, the sum is the minimum already.

    Adam takes steps of its learning rate even on a gradient of rounding errors: 50 steps move no entry by more than 50.
    """
    base, _ = random_models(0, 4, 6)
    first, second = torch.zeros(4, 6), torch.zeros(4, 6)
    first[:, :3], second[:, 3:] = 1.0, -2.0
    result = merged_whole("wudi", base, [base + first, base + second], weight=[1.0] * 2, steps=50, lr=1e-5, lambda_=1.0)
    torch.testing.assert_close(result, base + first + second, rtol=0, atol=50 * 1e-5)


@pytest.mark.parametrize(
    ("name", "linear"), [("model.layers.1.mlp.up_proj.weight", True), ("embed_tokens.weight", False)]
)
def test_wudi_averages_embeddings(name: str, linear: bool) -> None:
    base, tensors = random_models(2, 5, 4)
    block = Block(base, [one - base for one in tensors])
    tensor = BlockSource(lambda: [block], (5, 4), name)
    coefficients = {"weight": [1.0, 1.0], "steps": 0, "lr": 0.0, "lambda_": 1.0}
    ((_, merged),) = get_method("wudi").merge_blocks(tensor, coefficients)
    total = sum(one - base for one in tensors)
    torch.testing.assert_close(merged, base + (total if linear else total / 2))
