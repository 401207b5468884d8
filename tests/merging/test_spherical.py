"""Slerp, NuSLERP, Multi-SLERP, the Karcher mean and Model Stock: what follows from angles alone."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from unspoiled.checkpoints import LowRankDelta
from unspoiled.errors import ConfigError
from unspoiled.merging import AdaptedTensor, Block, DenseDelta, Operand, get_method
from unspoiled.merging._inner_products import gram

X, Y = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
ROOT = math.sqrt(0.5)


@dataclass(frozen=True)
class Cut:
    """A tensor in memory, cut into blocks of rows."""

    base: Tensor | None
    tensors: Sequence[Tensor]
    shape: tuple[int, ...]
    rows: int
    deltas: bool
    name: str = "w"

    def __iter__(self) -> Iterator[Block]:
        width = self.tensors[0].shape[-1]
        for start in range(0, len(self.tensors[0]), self.rows):
            part = slice(start, start + self.rows)
            base = None if self.base is None else self.base[part]
            given: list[Operand] = [tensor[part] for tensor in self.tensors]
            if self.deltas and base is not None:
                given = [DenseDelta(tensor[part], base) for tensor in self.tensors]
            yield Block(base, given, start * width)


def merge(
    name: str,
    base: Tensor | None,
    tensors: Sequence[Tensor],
    rows: int = 10**9,
    shape: tuple[int, ...] | None = None,
    **coefficients: object,
) -> Tensor:
    """Merge tensors (task vectors are taken of them where the method wants those), `rows` rows a block."""
    method = get_method(name)
    tensor = Cut(base, tensors, shape or tuple(tensors[0].shape), rows, method.operands == "deltas")
    return torch.cat([merged for _, merged in method.merge_blocks(tensor, coefficients)])


def nuslerp(base: Tensor | None, tensors: Sequence[Tensor], **options: object) -> Tensor:
    defaults = {"weight": [1.0, 1.0], "nuslerp_row_wise": False, "nuslerp_flatten": True}
    return merge("nuslerp", base, tensors, **(defaults | options))  # type: ignore[arg-type]


def multislerp(base: Tensor | None, tensors: Sequence[Tensor], **options: object) -> Tensor:
    defaults = {"weight": [1.0] * len(tensors), "normalize_weights": True, "eps": 1e-8}
    return merge("multislerp", base, tensors, **(defaults | options))  # type: ignore[arg-type]


def karcher(tensors: Sequence[Tensor], **options: object) -> Tensor:
    return merge("karcher", None, tensors, **({"max_iter": 10, "tol": 1e-5} | options))  # type: ignore[arg-type]


def random_models(rows: int = 48, width: int = 31, experts: int = 3, seed: int = 0) -> list[Tensor]:
    """Return a base and experts that share a part of their task vectors."""
    generator = torch.Generator().manual_seed(seed)
    base, common, *own = (torch.randn(rows, width, generator=generator) * 0.02 for _ in range(experts + 2))
    return [base, *(base + 0.4 * common + 0.3 * one for one in own)]


Merge = Callable[[Tensor, list[Tensor], int], Tensor]
METHODS: dict[str, Merge] = {
    "slerp": lambda base, models, rows: merge("slerp", base, models[:1], rows, t=0.3),
    "nuslerp": lambda base, models, rows: nuslerp(base, models[:2], rows=rows),
    "nuslerp rows": lambda base, models, rows: nuslerp(base, models[:2], rows=rows, nuslerp_flatten=False),
    "nuslerp columns": lambda base, models, rows: nuslerp(
        base, models[:2], rows=rows, nuslerp_flatten=False, nuslerp_row_wise=True
    ),
    "multislerp": lambda base, models, rows: multislerp(base, models, rows=rows),
    "karcher": lambda base, models, rows: karcher(models, rows=rows),
    "model_stock": lambda base, models, rows: merge("model_stock", base, models, rows, filter_wise=False),
    "model_stock rows": lambda base, models, rows: merge("model_stock", base, models, rows, filter_wise=True),
}
every_method = pytest.mark.parametrize("merged", METHODS.values(), ids=METHODS)


# --- worked by hand


def test_slerp_of_orthogonal_tensors_by_hand() -> None:
    """Ω = 90°: the weights at t are cos(90° t) and sin(90° t)."""
    halfway = merge("slerp", X, [Y], t=0.5)
    torch.testing.assert_close(halfway, torch.tensor([[2.0 * ROOT, 4.0 * ROOT]]))
    third = merge("slerp", X, [Y], t=1 / 3)
    torch.testing.assert_close(third, torch.tensor([[2.0 * math.sqrt(0.75), 4.0 * 0.5]]))


def test_slerp_ends_at_the_base_and_at_the_other() -> None:
    base, other, *_ = random_models()
    torch.testing.assert_close(merge("slerp", base, [other], t=0.0), base)
    torch.testing.assert_close(merge("slerp", base, [other], t=1.0), other)


def test_slerp_of_unit_tensors_stays_on_the_sphere_and_moves_at_constant_speed() -> None:
    base, other, *_ = (model / model.norm() for model in random_models(seed=3))
    points = [merge("slerp", base, [other], t=t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(abs(point.norm().item() - 1.0) < 1e-5 for point in points)
    steps = [torch.dot(a.flatten(), b.flatten()).acos().item() for a, b in pairwise(points)]
    assert max(steps) - min(steps) < 1e-3


@pytest.mark.parametrize(("angle", "linear"), [(0.03, True), (0.04, False), (math.pi - 0.03, True)])
def test_slerp_is_a_line_where_the_cosine_is_above_09995_in_size(angle: float, linear: bool) -> None:
    """cos 0.03 = 0.99955, cos 0.04 = 0.99920."""
    base, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])
    weights = (0.5, 0.5) if linear else (math.sin(angle / 2) / math.sin(angle),) * 2
    torch.testing.assert_close(
        merge("slerp", base, [other], t=0.5), weights[0] * base + weights[1] * other, rtol=1e-6, atol=1e-7
    )


def test_nuslerp_of_task_vectors_by_hand() -> None:
    base = torch.tensor([[1.0, 1.0]])
    merged = nuslerp(base, [base + X, base + Y], weight=[1.0, 2.0])  # t = 2/3: cos 60° and sin 60°
    torch.testing.assert_close(merged, base + torch.tensor([[2.0 * 0.5, 4.0 * math.sqrt(0.75)]]))


def test_nuslerp_takes_the_middle_where_its_weights_cancel() -> None:
    torch.testing.assert_close(nuslerp(None, [X, Y], weight=[1.0, -1.0]), nuslerp(None, [X, Y]))


def test_multislerp_of_two_equal_weights_is_the_middle_of_the_arc() -> None:
    """By symmetry, the step in the tangent space is none; the length is the mean of the two, 3."""
    torch.testing.assert_close(multislerp(None, [X, Y]), torch.tensor([[3.0 * ROOT, 3.0 * ROOT]]))


def test_the_karcher_mean_of_three_axes_is_the_diagonal() -> None:
    axes = [row.reshape(1, 3) * length for row, length in zip(torch.eye(3), (1.0, 2.0, 6.0), strict=True)]
    torch.testing.assert_close(karcher(axes), torch.full((1, 3), 3.0 / math.sqrt(3.0)))


def test_model_stock_by_hand() -> None:
    """Two task vectors at 60°: t = 2 · 0.5 / (1 + 0.5) = 2/3."""
    base = torch.tensor([[1.0, -1.0]])
    ends = [base + torch.tensor([[3.0, 0.0]]), base + torch.tensor([[1.0, math.sqrt(3.0)]])]
    expected = base + 2 / 3 * torch.tensor([[2.0, math.sqrt(3.0) / 2]])
    torch.testing.assert_close(merge("model_stock", base, ends, filter_wise=False), expected)


def test_model_stock_keeps_what_all_agree_on_and_drops_what_is_orthogonal() -> None:
    base = torch.zeros(2, 2)
    one, other = torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[2.0, 2.0], [0.0, 3.0]])
    merged = merge("model_stock", base, [one, other], filter_wise=True)
    torch.testing.assert_close(merged, torch.tensor([[1.5, 1.5], [0.0, 0.0]]))


# --- laws


@every_method
def test_the_cutting_into_blocks_does_not_matter(merged: Merge) -> None:
    base, *models = random_models()
    whole = merged(base, models, 10**9)
    for rows in (1, 7, 48):
        torch.testing.assert_close(merged(base, models, rows), whole, rtol=0, atol=1e-6)


@every_method
def test_models_that_are_all_the_same_come_out_as_they_are(merged: Merge) -> None:
    base, model, *_ = random_models()
    if merged is METHODS["slerp"]:
        base = model
    torch.testing.assert_close(merged(base, [model] * 3, 5), model, rtol=1e-5, atol=1e-6)


@every_method
def test_models_that_are_the_base_give_the_base(merged: Merge) -> None:
    base = random_models()[0]
    torch.testing.assert_close(merged(base, [base] * 3, 5), base, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["nuslerp", "nuslerp rows", "nuslerp columns", "multislerp", "karcher", "model_stock"])
def test_the_order_of_the_models_does_not_matter(name: str) -> None:
    base, *models = random_models(experts=2)
    torch.testing.assert_close(
        METHODS[name](base, models, 10**9), METHODS[name](base, models[::-1], 10**9), rtol=1e-5, atol=1e-7
    )


@every_method
def test_scaling_all_inputs_scales_the_merge(merged: Merge) -> None:
    base, *models = random_models()
    scaled = merged(4.0 * base, [4.0 * model for model in models], 10**9)
    torch.testing.assert_close(scaled, 4.0 * merged(base, models, 10**9), rtol=1e-5, atol=1e-6)


def test_slerp_nuslerp_karcher_and_multislerp_meet_in_the_middle_of_two_unit_tensors() -> None:
    _, one, other = (model / model.norm() for model in random_models(experts=2, seed=5))
    middle = merge("slerp", one, [other], t=0.5)
    for merged in (nuslerp(None, [one, other]), karcher([one, other]), multislerp(None, [one, other])):
        torch.testing.assert_close(merged, middle, rtol=1e-5, atol=1e-6)


def test_the_inner_products_are_right_to_the_rounding_of_their_operands() -> None:
    """With more than one chunk and low-rank operands: summed in float32, these were off by 6e-6."""
    generator = torch.Generator().manual_seed(0)
    base, *models = (torch.randn(700, 500, generator=generator).bfloat16() for _ in range(3))
    low_rank = LowRankDelta(torch.randn(700, 3, generator=generator), torch.randn(3, 500, generator=generator), 0.5)
    given: list[Operand] = [DenseDelta(models[0], base), low_rank, models[1], AdaptedTensor(base, low_rank)]
    tau = low_rank.b.double() @ low_rank.a.double() * 0.5
    truth = [base, models[0].double() - base.double(), tau, models[1], base.double() + tau]
    flat = torch.stack([tensor.double().flatten() for tensor in truth])

    @dataclass(frozen=True)
    class Whole:
        name: str = "w"
        shape: tuple[int, ...] = (700, 500)

        def __iter__(self) -> Iterator[Block]:
            yield Block(base, given)

    lengths = flat.norm(dim=1)
    errors = (gram(Whole(), with_base=True) - flat @ flat.T).abs() / torch.outer(lengths, lengths)
    assert errors.max() < 3e-9
    assert torch.equal(gram(Whole()), gram(Whole(), with_base=True)[1:, 1:])


# --- against the definitions, in float64


def karcher_reference(tensors: list[Tensor]) -> Tensor:
    """Minimise the sum of squared angles by many small steps on the tensors themselves."""
    vectors = torch.stack([tensor.double().flatten() for tensor in tensors])
    units = vectors / vectors.norm(dim=1, keepdim=True)
    mean = units[0]
    for _ in range(400):
        dots = (units @ mean).clamp(-1, 1)
        angles = dots.acos()
        logs = (units - dots[:, None] * mean) * (angles / angles.sin().clamp(min=1e-12))[:, None]
        mean = mean + 0.2 * logs.mean(0)
        mean = mean / mean.norm()
    return (mean * vectors.norm(dim=1).mean()).reshape(tensors[0].shape)


@pytest.mark.parametrize("spread", [0.02, 0.5, 2.0])
def test_karcher_against_the_definition(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn(20, 30, generator=generator)
    models = [centre * 0.02 * k + spread * 0.02 * torch.randn(20, 30, generator=generator) for k in (1, 2, 3, 1)]
    torch.testing.assert_close(
        karcher(models, max_iter=100, tol=1e-9).double(), karcher_reference(models), rtol=1e-4, atol=2e-6
    )


def length(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    return torch.linalg.vector_norm(x, dim=dim, keepdim=True)


def spherical(x: Tensor, y: Tensor, t: float, dim: int | tuple[int, ...]) -> Tensor:
    """Return the interpolation along the arc by the half-angle of the unit vectors, float64."""
    x, y = x.double(), y.double()
    u, v = (z / length(z, dim) for z in (x, y))
    angle = 2 * torch.atan2(length(u - v, dim), length(u + v, dim))
    return (torch.sin((1 - t) * angle) * x + torch.sin(t * angle) * y) / torch.sin(angle)


@pytest.mark.parametrize(
    ("flatten", "row_wise", "dim"), [(True, False, (0, 1, 2)), (False, False, 2), (False, True, 0)]
)
@pytest.mark.parametrize("rows", [1, 4, 10**9])
def test_nuslerp_of_a_stack_of_matrices(flatten: bool, row_wise: bool, dim: int | tuple[int, ...], rows: int) -> None:
    """Rows are of the last dimension; `nuslerp_row_wise` is mergekit's first dimension, over which blocks are cut."""
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(5, 6, 7, generator=generator) for _ in range(2))
    merged = nuslerp(
        None,
        [x.reshape(30, 7), y.reshape(30, 7)],
        rows=rows,
        shape=(5, 6, 7),
        weight=[3.0, 1.0],
        nuslerp_flatten=flatten,
        nuslerp_row_wise=row_wise,
    )
    torch.testing.assert_close(merged.reshape(5, 6, 7).double(), spherical(x, y, 0.25, dim), rtol=1e-4, atol=1e-5)


def test_nuslerp_has_one_angle_for_a_vector_whichever_way() -> None:
    """A vector comes as one row, [1, n]: along its first dimension it is still one vector, not n columns."""
    x, y = random_models(1, 40, 1)
    whole = nuslerp(None, [x, y])
    for row_wise in (False, True):
        ways = nuslerp(None, [x, y], shape=(40,), nuslerp_flatten=False, nuslerp_row_wise=row_wise)
        torch.testing.assert_close(ways, whole)


def test_multislerp_against_the_definition() -> None:
    base, *models = random_models(experts=4)
    weights = torch.tensor([0.1, 0.4, 0.2, 0.6], dtype=torch.float64)
    tau = torch.stack([(model.double() - base.double()).flatten() for model in models])
    shares = weights / weights.sum()
    units = tau / tau.norm(dim=1, keepdim=True)
    mean = shares @ units
    mean = mean / mean.norm()
    tangent = shares @ (units - (units @ mean)[:, None] * mean)
    angle = tangent.norm()
    expected = (mean * angle.cos() + tangent / angle * angle.sin()) * (shares @ tau.norm(dim=1))
    merged = multislerp(base, models, weight=weights.tolist())
    torch.testing.assert_close(merged.double(), base.double() + expected.reshape(base.shape), rtol=1e-5, atol=1e-7)


def test_without_normalizing_multislerp_multiplies_the_length_by_the_sum_of_weights() -> None:
    """Equal tensors: the direction stays, the length is Σ wᵢ ‖x‖."""
    torch.testing.assert_close(multislerp(None, [X, X], weight=[1.0, 1.0], normalize_weights=False), 2.0 * X)


# --- inputs without a direction


@pytest.mark.parametrize("name", [name for name in METHODS if name != "multislerp"])
@pytest.mark.parametrize("kind", ["zero", "opposite", "threefold opposite", "parallel"])
def test_degenerate_task_vectors_and_tensors_stay_finite_and_bounded(name: str, kind: str) -> None:
    """In float32, dividing by the sine of an angle that is rounding gave results many times their inputs."""
    _, x = random_models(experts=1)
    other = {"zero": torch.zeros_like(x), "opposite": -x, "threefold opposite": -3.0 * x, "parallel": 3.0 * x}[kind]
    base = x if name == "slerp" else torch.zeros_like(x)
    merged = METHODS[name](base, [other, x], 10**9)
    assert torch.isfinite(merged).all()
    assert merged.norm() <= 3.01 * x.norm()


def test_opposite_tensors_by_hand() -> None:
    """The arc is not unique: slerp and nuslerp take the line, the Karcher search stays where it starts."""
    _, x = random_models(experts=1)
    torch.testing.assert_close(merge("slerp", x, [-3.0 * x], t=0.25), 0.0 * x, rtol=0, atol=1e-7)
    torch.testing.assert_close(nuslerp(None, [x, -3.0 * x]), -x)
    torch.testing.assert_close(karcher([x, -3.0 * x]), 2.0 * x)
    torch.testing.assert_close(karcher([x, x, -x]), x)


def test_a_zero_tensor_counts_in_the_length_of_a_karcher_mean_only() -> None:
    torch.testing.assert_close(karcher([X, torch.zeros_like(X)]), 0.5 * X)
    assert torch.equal(karcher([torch.zeros(2, 2)] * 2), torch.zeros(2, 2))


def test_models_that_cancel_out_have_no_multislerp() -> None:
    """mergekit refuses three or more that do so exactly; of two, the weighted sum is taken."""
    _, x, y = random_models(experts=2)
    with pytest.raises(ConfigError, match=r"multislerp.*cancel out.*Change the weights"):
        multislerp(None, [x, -3.0 * x, y], weight=[1.0, 1.0, 0.0])
    torch.testing.assert_close(multislerp(None, [x, -3.0 * x]), -x)
    with pytest.raises(ConfigError, match=r"multislerp with normalize: the weights .* sum to 0"):
        multislerp(None, [x, y], weight=[1.0, -1.0])


def test_model_stock_keeps_the_base_where_its_ratio_has_no_value() -> None:
    """Opposite task vectors: 1 + (N − 1) cos = 0."""
    base, x = random_models(experts=1)
    merged = merge("model_stock", base, [base + x, base - x], filter_wise=False)
    torch.testing.assert_close(merged, base)


def test_one_model_alone_is_that_model() -> None:
    base, x = random_models(experts=1)
    torch.testing.assert_close(karcher([x]), x, rtol=0, atol=0)
    torch.testing.assert_close(multislerp(base, [x], weight=[0.3]), x)
