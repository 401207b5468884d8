"""NearSwap, Arcee Fusion, passthrough, RAM and RAM+: what is decided element by element."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unspoiled.merging import Block, DenseDelta, Operand, get_method


@dataclass(frozen=True)
class Rows:
    """A tensor in memory, cut into blocks of rows."""

    base: Tensor
    tensors: Sequence[Tensor]
    rows: int
    deltas: bool
    name: str = "w"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.base.shape)

    def __iter__(self) -> Iterator[Block]:
        for start in range(0, len(self.base), self.rows):
            part = slice(start, start + self.rows)
            given: list[Operand] = [
                DenseDelta(tensor[part], self.base[part]) if self.deltas else tensor[part] for tensor in self.tensors
            ]
            yield Block(self.base[part], given, start * self.base.shape[1])


def merge(name: str, base: Tensor, tensors: Sequence[Tensor], rows: int = 10**9, **coefficients: object) -> Tensor:
    method = get_method(name)
    blocks = method.merge_blocks(Rows(base, tensors, rows, method.operands == "deltas"), coefficients)
    return torch.cat([merged for _, merged in blocks])


def random_models(experts: int, rows: int = 40, width: int = 30) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(rows, width, generator=generator)
    return [base, *(base + 0.5 * torch.randn(rows, width, generator=generator) ** 3 for _ in range(experts))]


DEFAULTS: dict[str, dict[str, object]] = {
    "nearswap": {"t": 0.1},
    "arcee_fusion": {},
    "ram": {"epsilon": 0.05},
    "ramplus_tl": {"r": 0.1, "alpha": 0.9, "epsilon": 0.05},
}
every_method = pytest.mark.parametrize("name", DEFAULTS)


def experts_of(name: str) -> int:
    return get_method(name).experts[1] or 3


@every_method
def test_the_cutting_into_blocks_does_not_matter(name: str) -> None:
    base, *models = random_models(experts_of(name))
    whole = merge(name, base, models, **DEFAULTS[name])
    for rows in (1, 7, 39):
        torch.testing.assert_close(merge(name, base, models, rows, **DEFAULTS[name]), whole, rtol=0, atol=1e-6)


@every_method
def test_models_that_are_the_base_give_the_base(name: str) -> None:
    base = random_models(0)[0]
    assert torch.equal(merge(name, base, [base] * experts_of(name), 7, **DEFAULTS[name]), base)


@pytest.mark.parametrize("name", ["ram", "ramplus_tl"])
def test_the_order_of_the_experts_does_not_matter(name: str) -> None:
    base, *models = random_models(3)
    merged = merge(name, base, models, **DEFAULTS[name])
    torch.testing.assert_close(merge(name, base, models[::-1], **DEFAULTS[name]), merged, rtol=0, atol=1e-6)


def test_nearswap_by_hand() -> None:
    """A step of at most t toward the other model; where that is nearer than t, it is reached."""
    base, other = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.1, -0.8, 1.5, 1.0]])
    torch.testing.assert_close(merge("nearswap", base, [other], t=0.25), torch.tensor([[0.1, -0.25, 1.25, 1.0]]))
    torch.testing.assert_close(merge("nearswap", base, [other], t=0.0), base)
    torch.testing.assert_close(merge("nearswap", base, [other], t=9.0), other)


def test_nearswap_with_a_tiny_t_goes_by_the_formula() -> None:
    """mergekit divides by at least 1e-6, and so moves 1e-7 by a half where t = 5e-7; the formula moves it all."""
    base, other = torch.zeros(1, 1), torch.tensor([[1e-7]])
    assert torch.equal(merge("nearswap", base, [other], t=5e-7), other)


def test_ram_by_hand() -> None:
    base = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    tau = torch.tensor([[[0.6, 0.0, 0.3, 0.01]], [[0.2, 0.4, 0.0, 0.0]]])  # both, second, first, too small
    merged = merge("ram", base, [base + tau[0], base + tau[1]], epsilon=0.05)
    torch.testing.assert_close(merged, torch.tensor([[1.4, 1.4, 1.3, 1.0]]))


def test_ramplus_by_hand() -> None:
    """First: 2 shared, 1 alone, a ratio of 2 that alpha caps at 0.9. Second: 2 shared, 4 alone, 0.5."""
    base = torch.zeros(1, 8)
    first = torch.tensor([[1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    second = torch.tensor([[3.0, -1.0, 0.0, 4.0, 4.0, 4.0, 4.0, 0.0]])
    merged = merge("ramplus_tl", base, [first, second], r=0.5, alpha=0.9, epsilon=1e-5)
    torch.testing.assert_close(merged, torch.tensor([[2.0, 0.0, 2.0 * 1.45, *[4.0 * 1.25] * 4, 0.0]]))


def test_one_expert_alone_is_kept_whole_by_ram() -> None:
    base, model = random_models(1)
    torch.testing.assert_close(merge("ram", base, [model], epsilon=0.0), model)
    torch.testing.assert_close(merge("ramplus_tl", base, [model], r=0.1, alpha=0.2, epsilon=0.0), model)


def test_ramplus_without_strength_is_ram() -> None:
    base, *models = random_models(3)
    plus = merge("ramplus_tl", base, models, r=0.0, alpha=0.2, epsilon=0.05)
    assert torch.equal(plus, merge("ram", base, models, epsilon=0.05))


def test_an_expert_that_changed_nothing_alone_takes_the_largest_ratio() -> None:
    """Nothing is divided by zero: first and second share all they changed, the third is alone."""
    base = torch.zeros(1, 3)
    models = [torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0]])]
    merged = merge("ramplus_tl", base, models, r=1.0, alpha=0.5, epsilon=0.0)
    torch.testing.assert_close(merged, torch.tensor([[2.0, 1.0, 2.0]]))


def arcee_reference(base: Tensor, other: Tensor) -> Tensor:
    """Compute the definition in float64, by sorting."""
    b, o = base.double(), other.double()
    p, q = torch.softmax(o, -1) + 1e-8, torch.softmax(b, -1) + 1e-8
    importance = (o - b).abs() * (p * (p.log() - q.log())).sum(-1, keepdim=True)
    rising = importance.flatten().sort().values
    lower, median, upper = (rising[int(q * (len(rising) - 1))] for q in (0.25, 0.5, 0.75))
    return torch.where(importance >= median + 1.5 * (upper - lower), o, b)


def test_arcee_fusion_against_the_definition() -> None:
    base, other = random_models(1)
    merged, expected = merge("arcee_fusion", base, [other], 7), arcee_reference(base, other)
    torch.testing.assert_close(merged.double(), expected, rtol=0, atol=1e-6)
    taken = (merged != base).double().mean()
    assert 0.05 < taken < 0.3, "neither nothing nor everything stands out of heavy-tailed changes"


def test_arcee_fusion_of_close_models_is_exact_where_float32_divergences_are_rounding() -> None:
    """Changes of a thousandth: the divergence of a row is about 5e-7, the rounding of a float32 log 6e-8."""
    generator = torch.Generator().manual_seed(1)
    base = 0.02 * torch.randn(64, 256, generator=generator)
    other = base + 0.001 * torch.randn(64, 256, generator=generator)
    merged = merge("arcee_fusion", base, [other])
    torch.testing.assert_close(merged.double(), arcee_reference(base, other), rtol=0, atol=1e-8)


def test_arcee_fusion_takes_all_where_no_divergence_tells_rows_apart() -> None:
    """A shift by a constant leaves the softmax as it was: every importance and the threshold are 0."""
    base = random_models(0)[0]
    torch.testing.assert_close(merge("arcee_fusion", base, [base + 0.5], 7), base + 0.5)


def test_passthrough_scales_one_model() -> None:
    tensor = random_models(0)[0].bfloat16()
    method = get_method("passthrough")
    assert torch.equal(method(None, [tensor], scale=[1.0]), tensor.float())
    assert torch.equal(method(None, [tensor], scale=[-0.5]), -0.5 * tensor.float())
    assert method.experts == (1, 1)
    assert not method.keeps_common({}), "a scaled tensor is not a copy, though all inputs hold the same"


@every_method
def test_inputs_are_left_as_they_were(name: str) -> None:
    given = random_models(experts_of(name))
    before = [tensor.clone() for tensor in given]
    merge(name, given[0], given[1:], **DEFAULTS[name])
    assert all(torch.equal(tensor, old) for tensor, old in zip(given, before, strict=True))
