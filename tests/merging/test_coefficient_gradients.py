"""Gradients of the coefficients against finite differences of the merge, for every method that is registered."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.errors import ConfigError
from unspoiled.merging import (
    AdaptedTensor,
    Block,
    DenseDelta,
    Method,
    Operand,
    Parameter,
    StatisticsOf,
    all_methods,
    get_method,
)
from unspoiled.merging._gradients import coefficient_gradients, require_differentiable

METHODS = {method.name: method for method in all_methods()}
DIFFERENTIABLE = [
    (method.name, parameter.argument)
    for method in all_methods()
    for parameter in method.parameters
    if parameter.differentiable
]
OTHERS = [
    (method.name, parameter.argument)
    for method in all_methods()
    for parameter in method.parameters
    if not parameter.differentiable
]
SWITCHES = {
    "linear": ({"normalize": True}, {"normalize": False}),
    "task_arithmetic": ({"normalize": True}, {"normalize": False}),
    "multislerp": ({"normalize_weights": True}, {"normalize_weights": False}),
    "nuslerp": ({}, {"nuslerp_flatten": False}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "regmean": ({"alpha": 0.8}, {"alpha": 1.0}),
    "safemerge": ({"tau": 1.0},),
    "ties": ({"rescale": True}, {"normalize": False}),
    "ties_peft": ({"frequency": True}, {"frequency": False}),
    **dict.fromkeys(
        ["dare_linear", "dare_ties", "della_linear", "della", "breadcrumbs", "breadcrumbs_ties"],
        ({"normalize": True, "rescale": False}, {"normalize": False, "rescale": True}),
    ),
}
CASES = [
    (name, argument, own)
    for name, argument in DIFFERENTIABLE
    for own in SWITCHES.get(name, ({},))
    if own.get(argument) != 1.0  # the end of the range: beyond it there is no merge
]
SHAPE, BLOCK_ROWS = (2, 12, 20), 5
STEP = 1e-2


@dataclass(frozen=True)
class Tensors:
    """Experts on a base, two matrices [12, 20] above each other, each expert with its own part left unchanged."""

    method: Method
    low_rank: bool
    shape: tuple[int, ...] = SHAPE
    name: str = "model.layers.0.mlp.up_proj.weight"

    @property
    def experts(self) -> int:
        least, most = self.method.experts
        return max(least, 3 if most is None else min(3, most))

    def __iter__(self) -> Iterator[Block]:
        rows, width = 24, self.shape[-1]
        step = self.shape[-2] if self.method.whole else BLOCK_ROWS
        base = normal(rows, width, seed=0)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            own = [self._operand(base, expert, part) for expert in range(self.experts)]
            statistics = [self._statistics(expert, part) for expert in range(self.experts)] if self._asks else []
            yield Block(base[part] if self.method.base != "unused" else None, own, start * width, statistics)

    @property
    def _asks(self) -> bool:
        return bool(self.method.statistics)

    def _operand(self, base: Tensor, expert: int, part: slice) -> Operand:
        rows, width = base.shape
        changed = (torch.arange(rows) % (expert + 3) != 0).float()[:, None]
        if self.low_rank:
            delta = LowRankDelta(changed * normal(rows, 3, seed=10 + expert), normal(3, width, seed=20 + expert), 0.5)
            delta = LowRankDelta(delta.b[part], delta.a, delta.scale)
            return delta if self.method.operands == "deltas" else AdaptedTensor(base[part], delta)
        tensor = base + changed * normal(rows, width, seed=10 + expert)
        return DenseDelta(tensor[part], base[part]) if self.method.operands == "deltas" else tensor[part]

    def _statistics(self, expert: int, part: slice) -> StatisticsOf:
        by_rows = {statistic.kind: statistic.by_rows for statistic in self.method.statistics}

        def read(kind: str) -> Tensor:
            seed = 30 + expert + 10 * list(by_rows).index(kind)
            if by_rows[kind]:
                return normal(24, self.shape[-1], seed=seed)[part].square()
            inputs = normal(64, self.shape[-1], seed=seed)
            return inputs.T @ inputs / 64

        return read


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coefficients_of(method: Method, experts: int, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value in range for every parameter, those of experts all different."""

    def value(parameter: Parameter, place: int) -> Any:
        if parameter.name == "safety":
            return (0, 1, -1)[place]
        if parameter.kind != "number":
            return parameter.default
        usual = 0.6 if parameter.default is None else parameter.default
        if parameter.differentiable:
            usual = 0.8 * float(usual) * (1 + 0.2 * place)
        return min(max(float(usual), parameter.low), parameter.high)

    return {
        parameter.argument: [value(parameter, place) for place in range(experts)]
        if parameter.scope == "model"
        else value(parameter, 0)
        for parameter in method.parameters
    } | dict(own)


def merged(tensor: Tensors, coefficients: Mapping[str, Any]) -> Tensor:
    return torch.cat([rows for _, rows in tensor.method.merge_blocks(tensor, coefficients)])


def moved(coefficients: Mapping[str, Any], argument: str, place: int | None, by: float) -> dict[str, Any]:
    value = coefficients[argument]
    if place is None:
        return {**coefficients, argument: value + by}
    return {**coefficients, argument: [one + by * (i == place) for i, one in enumerate(value)]}


@pytest.mark.parametrize("low_rank", [False, True], ids=["dense", "low-rank"])
@pytest.mark.parametrize(("name", "argument", "own"), CASES)
def test_gradients_are_those_of_finite_differences(
    name: str, argument: str, own: dict[str, Any], low_rank: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries near a kink, where a sign or a mask changes within the step, are given no gradient."""
    monkeypatch.setattr("unspoiled.merging._pieces._PIECE", 40)
    tensor = Tensors(METHODS[name], low_rank)
    coefficients = coefficients_of(tensor.method, tensor.experts, own)
    here = merged(tensor, coefficients)
    value = coefficients[argument]
    places: list[int | None] = [*range(len(value))] if isinstance(value, list) else [None]
    slopes, smooth = [], torch.ones_like(here)
    for place in places:
        above, below = (merged(tensor, moved(coefficients, argument, place, by)) for by in (STEP, -STEP))
        slopes.append((above - below) / (2 * STEP))
        smooth *= (above + below - 2 * here).abs() < 10 * STEP**2
    gradient = smooth * normal(*here.shape, seed=99)
    expected = torch.stack([(slope * gradient).sum() for slope in slopes])

    found = coefficient_gradients(tensor.method, tensor, coefficients, gradient, [argument])
    assert smooth.mean() > 0.9
    assert any(slope.mul(smooth).abs().max() > 1e-3 for slope in slopes), "the coefficient changes nothing here"
    scale = torch.stack([torch.linalg.vector_norm(slope * gradient) for slope in slopes]).max()
    exact = torch.tensor(found[argument]).reshape(-1)
    torch.testing.assert_close(exact, expected, rtol=1e-2, atol=2e-3 * float(scale))


@pytest.mark.parametrize(("name", "argument"), OTHERS)
def test_what_is_not_differentiable_is_refused(name: str, argument: str) -> None:
    with pytest.raises(ConfigError, match=rf"gradient of '{argument}' is wanted, in which '{name}' is not differ"):
        require_differentiable(METHODS[name], [argument])


def test_a_misspelt_coefficient_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'wieght' is wanted, which 'ties' does not take.*weight, lambda_\.$"):
        require_differentiable(METHODS["ties"], ["weight", "wieght"])
    with pytest.raises(ConfigError, match="none; search this method without gradients"):
        require_differentiable(METHODS["karcher"], ["weight"])


LINEAR: dict[str, Callable[[dict[str, Any]], Sequence[float]]] = {
    "task_arithmetic": lambda own: [own["lambda_"]] * 3,
    "linear": lambda _: [1.0] * 3,
}


@pytest.mark.parametrize("low_rank", [False, True], ids=["dense", "low-rank"])
@pytest.mark.parametrize("name", LINEAR)
def test_the_gradient_of_a_linear_merges_weight_is_an_inner_product(name: str, low_rank: bool) -> None:
    """dL/dwᵢ = λ ⟨dL/dθ, τᵢ⟩, to float32's rounding; also for weights of zero."""
    tensor = Tensors(METHODS[name], low_rank)
    own = coefficients_of(tensor.method, 3, {"normalize": False, "weight": [0.5, 0.0, -1.0]})
    gradient = normal(24, 20, seed=99)
    found = coefficient_gradients(tensor.method, tensor, own, gradient, ["weight"])
    operands = list(zip(*(block.operands for block in tensor), strict=True))
    whole = [torch.cat([one if isinstance(one, Tensor) else one.dense() for one in parts]) for parts in operands]
    expected = [
        factor * float((gradient.double() * part).sum()) for factor, part in zip(LINEAR[name](own), whole, strict=True)
    ]
    assert found["weight"] == pytest.approx(expected, rel=1e-5)


def test_low_rank_operands_are_not_made_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: LowRankDelta) -> Tensor:
        raise AssertionError("a dense copy of B A was made")

    monkeypatch.setattr(LowRankDelta, "dense", refuse)
    tensor = Tensors(get_method("task_arithmetic"), low_rank=True)
    own = coefficients_of(tensor.method, 3, {})
    found = coefficient_gradients(tensor.method, tensor, own, normal(24, 20, seed=99), ["weight", "lambda_"])
    assert all(found.values())


@pytest.mark.parametrize("name", METHODS)
def test_floats_leave_no_graph(name: str) -> None:
    """An ordinary merge pays nothing for being differentiable."""
    tensor = Tensors(METHODS[name], low_rank=False)
    assert not merged(tensor, coefficients_of(tensor.method, tensor.experts, {})).requires_grad


def test_a_gradient_in_bfloat16_is_taken_in_float32() -> None:
    tensor = Tensors(get_method("ties_peft"), low_rank=False)
    own = coefficients_of(tensor.method, 3, {})
    gradient = normal(24, 20, seed=99).bfloat16()
    found = coefficient_gradients(tensor.method, tensor, own, gradient, ["weight"])
    assert found == coefficient_gradients(tensor.method, tensor, own, gradient.float(), ["weight"])
