"""Sparsification: how many entries stay, which, and at what size."""

import numpy as np
import pytest
import torch
from sparse_merges import CutTensor, deltas_only, experts_on_a_base, normal
from torch import Tensor

from unspoiled.errors import ConfigError
from unspoiled.merging._operands import dense
from unspoiled.merging._pieces import all_pieces
from unspoiled.merging._sparsify import Sparse, drop_outliers, keep_by_rank, keep_largest, keep_random


def applied(tensor: CutTensor, sparse: list[Sparse]) -> list[Tensor]:
    """Return each expert's sparsified task vector, scaled."""
    return [
        torch.cat([one.kept.of(dense(block.operands[i]), block.first) * one.scale for block in all_pieces(tensor)])
        for i, one in enumerate(sparse)
    ]


@pytest.mark.parametrize(
    ("density", "count"),
    [(1.0, 480), (0.5, 240), (0.29, 139), (0.001, 1), (0.0, 0)],  # ⌊0.29 · 480⌋, then max(1, 0)
)
def test_exactly_the_share_is_kept(density: float, count: int) -> None:
    tensor = deltas_only(normal(12, 40, seed=0), step=5)
    (kept,) = applied(tensor, keep_largest(tensor, [density], rescale=False))
    assert int(kept.count_nonzero()) == count
    dropped = tensor.experts[0][kept == 0].abs()
    assert count in (0, 480) or kept[kept != 0].abs().min() > dropped.max()


def test_of_equal_entries_the_earlier_are_kept() -> None:
    tensor = deltas_only(torch.tensor([[1.0, -1.0, 1.0], [2.0, 1.0, -1.0]]), step=1)
    (kept,) = applied(tensor, keep_largest(tensor, [0.5], rescale=False))
    assert torch.equal(kept, torch.tensor([[1.0, -1.0, 0.0], [2.0, 0.0, 0.0]]))


def test_each_expert_has_its_density() -> None:
    tensor = experts_on_a_base(step=5)
    kept = applied(tensor, keep_largest(tensor, [0.25, 1.0, 0.5], rescale=False))
    vectors = [expert.float() - tensor.base.float() for expert in tensor.experts]
    assert [int(one.count_nonzero()) for one in kept] == [120, int(vectors[1].count_nonzero()), 240]


@pytest.mark.parametrize(
    ("density", "gamma", "largest", "left"),
    [
        (0.5, 0.1, 48, 240),
        (0.9, 0.2, 48, 432),  # both don't fit: 10% are dropped at the top, none at the bottom
        (0.5, 0.0, 0, 240),
        (0.0, 0.1, 48, 0),
        (0.001, 0.5, 240, 0),  # ⌊0.001 · 480⌋ = 0: unlike `keep_largest`, none is kept
        (1.0, 0.5, 0, 480),  # a density of 1 drops nothing
    ],
)
def test_outliers_go_first_then_the_smallest(density: float, gamma: float, largest: int, left: int) -> None:
    tensor = deltas_only(normal(12, 40, seed=1), step=5)
    (kept,) = applied(tensor, drop_outliers(tensor, [density], [gamma], rescale=False))
    falling = tensor.experts[0].reshape(-1)[tensor.experts[0].abs().reshape(-1).argsort(descending=True)]
    assert int(kept.count_nonzero()) == left
    assert sorted(kept[kept != 0].tolist()) == sorted(falling[largest : largest + left].tolist())


@pytest.mark.parametrize("way", ["largest", "outliers", "random", "rank"])
def test_rescaling_restores_the_l1_norm(way: str) -> None:
    tensor = experts_on_a_base(64, 64, step=9)
    density, args = [0.3, 0.6, 1.0], {"rescale": True}
    sparse = {
        "largest": lambda: keep_largest(tensor, density, **args),
        "outliers": lambda: drop_outliers(tensor, density, [0.01] * 3, **args),
        "random": lambda: keep_random(tensor, density, seed=0, **args),
        "rank": lambda: keep_by_rank(tensor, density, [0.1] * 3, seed=0, **args),
    }[way]()
    for expert, kept in zip(tensor.experts, applied(tensor, sparse), strict=True):
        before = (expert.double() - tensor.base.double()).abs().sum()
        assert kept.double().abs().sum() == pytest.approx(before.item(), rel=1e-6)
    assert sparse[2].scale == 1.0


def test_nothing_to_restore_is_not_divided_by() -> None:
    tensor = deltas_only(torch.zeros(4, 4), torch.ones(4, 4))
    zero, none = keep_largest(tensor, [0.5, 0.0], rescale=True)
    assert zero.scale == none.scale == 1.0


ROWS, WIDTH = 512, 256


def within(rate: float, probability: float, draws: int) -> bool:
    """Four standard deviations of a binomial share: one in 16,000."""
    return abs(rate - probability) < 4 * np.sqrt(probability * (1 - probability) / draws)


@pytest.mark.parametrize("density", [0.05, 0.5, 0.9])
def test_random_keeps_at_its_rate_everywhere(density: float) -> None:
    tensor = deltas_only(torch.ones(ROWS, WIDTH), step=100)
    (kept,) = applied(tensor, keep_random(tensor, [density], seed=1, rescale=False))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert within(kept.mean().item(), density, ROWS * WIDTH)
    for part in (*kept.chunk(4, 0), *kept.chunk(4, 1)):
        assert within(part.mean().item(), density, ROWS * WIDTH // 4)


def test_experts_are_dropped_independently() -> None:
    tensor = deltas_only(torch.ones(ROWS, WIDTH), torch.ones(ROWS, WIDTH))
    first, second = applied(tensor, keep_random(tensor, [0.5, 0.5], seed=1, rescale=False))
    assert within((first * second).mean().item(), 0.25, ROWS * WIDTH)


def test_the_rate_by_rank_is_linear() -> None:
    """Density 0.5 ± 0.3: the k-th of n entries of a row by size is kept with probability 0.2 + 0.6 (k − 1)/(n − 1)."""
    magnitudes = torch.stack([torch.randperm(WIDTH, generator=generator(row)) + 1.0 for row in range(ROWS)])
    signs = normal(ROWS, WIDTH, seed=5).sign()
    tensor = deltas_only(magnitudes * signs, step=100)  # 1 to 256: told apart by nine significant bits
    (kept,) = applied(tensor, keep_by_rank(tensor, [0.5], [0.3], seed=2, rescale=False))
    rates = np.zeros(WIDTH)
    np.add.at(rates, magnitudes.long().numpy().reshape(-1) - 1, (kept != 0).numpy().reshape(-1))
    rates /= ROWS
    expected = 0.2 + 0.6 * np.arange(WIDTH) / (WIDTH - 1)
    for part in np.split(np.arange(WIDTH), 8):
        assert within(rates[part].mean(), expected[part].mean(), ROWS * len(part))
    assert within(rates[0], 0.2, ROWS)
    assert within(rates[-1], 0.8, ROWS)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("width", "expected"), [(1, [0.5]), (2, [0.2, 0.8]), (3, [0.2, 0.5, 0.8])])
def test_narrow_rows_have_the_rates_of_their_ranks(width: int, expected: list[float]) -> None:
    """A lone entry is smallest and largest at once: it has the mean rate."""
    rows = 20_000
    tensor = deltas_only((torch.arange(width) + 1.0).repeat(rows, 1))
    (kept,) = applied(tensor, keep_by_rank(tensor, [0.5], [0.3], seed=0, rescale=False))
    for rate, probability in zip((kept != 0).float().mean(0).tolist(), expected, strict=True):
        assert within(rate, probability, rows)


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.5), (0.1, 0.15), (0.9, 0.1)])
def test_rates_beyond_zero_and_one_are_refused(density: float, epsilon: float) -> None:
    tensor = deltas_only(torch.ones(2, 2))
    with pytest.raises(ConfigError, match=rf"density {density} ± epsilon {epsilon} leaves the range"):
        keep_by_rank(tensor, [density], [epsilon], seed=0, rescale=False)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything_need_no_epsilon(density: float) -> None:
    tensor = deltas_only(torch.ones(2, 2))
    (kept,) = applied(tensor, keep_by_rank(tensor, [density], [0.15], seed=0, rescale=True))
    assert torch.equal(kept, torch.full((2, 2), density))


@pytest.mark.parametrize("step", [1, 5, 12])
def test_random_draws_do_not_depend_on_the_blocks(step: int) -> None:
    whole, cut = experts_on_a_base(), experts_on_a_base(step=step)
    args, by_rank = ([0.5] * 3,), ([0.5] * 3, [0.1] * 3)
    for way, given in ((keep_random, args), (keep_by_rank, by_rank)):
        left, right = (applied(tensor, way(tensor, *given, seed=4, rescale=False)) for tensor in (whole, cut))
        assert all(torch.equal(*pair) for pair in zip(left, right, strict=True))


def test_draws_apply_to_any_part_of_what_was_drawn_and_to_no_more() -> None:
    """A mask that is too short would be filled up with zeros, and drop the rest of a task vector in silence."""
    tensor = deltas_only(torch.ones(9, 7), step=5)  # drawn at 0 and 35: no multiples of eight
    (sparse,) = keep_random(tensor, [0.5], seed=4, rescale=False)
    (whole,) = applied(tensor, [sparse])
    for row in range(9):
        assert torch.equal(sparse.kept.of(torch.ones(1, 7), 7 * row), whole[row : row + 1])
    with pytest.raises(ValueError, match="the 63 elements at 0 reach beyond those drawn at 0"):
        sparse.kept.of(torch.ones(9, 7), 0)
