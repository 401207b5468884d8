"""PCB: weigh every entry by its share of the competition within its expert and between the experts."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, add_scaled_product, all_dense, dense
from unspoiled.merging._order_statistics import Cut, cuts


@dataclass(frozen=True)
class _Products:
    """The range of τᵢ ⊙ τⱼ over the tensor, and the softmax's denominator, which the whole tensor decides."""

    low: Tensor
    high: Tensor
    total: Tensor

    def normalized(self, values: Sequence[Tensor], i: int, j: int) -> Tensor:
        """Return a block of τᵢ ⊙ τⱼ moved to [0, 1]; zero where the product is the same everywhere."""
        span = float(self.high[i, j] - self.low[i, j])
        product = values[i] * values[j]
        return product.sub_(float(self.low[i, j])).div_(span) if span > 0 else product.zero_()

    def score(self, values: Sequence[Tensor], i: int) -> Tensor:
        """Return a block of βᵢ, up to a factor that its normalisation takes out again; all are positive."""
        experts = range(len(values))
        inter = torch.zeros_like(values[0])
        for j in experts:
            inter.add_(self.normalized(values, i, j).exp_(), alpha=1 / float(self.total[i, j]))
        # divided by their least possible values' magnitude: the products of N exponents stay in float32's range
        return self.normalized(values, i, i).sub_(1.0).mul_(len(values)).exp_().mul_(inter).abs_()  # NaN has a sign


@dataclass(frozen=True)
class _Competition:
    products: _Products
    cut: list[Cut]
    low: list[float]
    high: list[float]

    def shares(self, values: Sequence[Tensor], i: int, first: int) -> Tensor:
        """Return a block of β̂ᵢ, in [0, 1]."""
        score = self.cut[i].keep(self.products.score(values, i), first)
        span = self.high[i] - self.low[i]
        return score.sub_(self.low[i]).div_(span) if span > 0 else torch.ones_like(score)


def _measure(tensor: TensorBlocks, *, density: float) -> _Competition:
    products = _products(tensor)
    size = math.prod(tensor.shape)
    keep = min(max(1, int(density * size)), size)

    def columns() -> Iterator[tuple[int, Callable[[int], Tensor]]]:
        for block in tensor:
            yield block.first, partial(products.score, [dense(operand) for operand in block.operands])

    experts = products.low.shape[0]
    found = cuts(columns, [lambda _: [keep, 1, size]] * experts)
    # the masked scores' least is 0 as soon as something is dropped
    low = [0.0 if keep < size else least.threshold for _, _, least in found]
    return _Competition(products, [kept for kept, _, _ in found], low, [most.threshold for _, most, _ in found])


def _products(tensor: TensorBlocks) -> _Products:
    low = high = total = torch.empty(0)
    for block in tensor:
        values = [dense(operand) for operand in block.operands]
        found = [[torch.aminmax(one * other) for other in values] for one in values]
        least = torch.tensor([[float(pair.min) for pair in row] for row in found])
        most = torch.tensor([[float(pair.max) for pair in row] for row in found])
        low = torch.minimum(low, least) if low.numel() else least
        high = torch.maximum(high, most) if high.numel() else most
    bare = _Products(low, high, total)
    total = torch.zeros(low.shape, dtype=torch.float64)
    for block in tensor:
        values = [dense(operand) for operand in block.operands]
        for i in range(len(values)):
            for j in range(len(values)):
                total[i, j] += float(bare.normalized(values, i, j).exp_().sum())
    return _Products(low, high, total)


@method(
    "pcb",
    operands="deltas",
    base="required",
    measure=_measure,
    prepare=all_dense,
    paper="Du et al., Parameter Competition Balancing for Model Merging, arXiv 2410.02396",
    parameters=[
        Parameter("weight", default=1.0),
        Parameter("density", default=0.1, low=0.0, high=1.0, scope="merge", differentiable=False),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def pcb(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: _Competition,
    first: int,
    weight: Sequence[Number],
    lambda_: Number,
) -> Tensor:
    """Return θ = θ_base + λ · Σ β̂ᵢ ⊙ wᵢ τᵢ / Σ β̂ᵢ, float32, of the base's shape; the base's where all β̂ᵢ are zero.

    βᵢ = softmax(N · norm(τᵢ ⊙ τᵢ)) ⊙ Σⱼ softmax(norm(τᵢ ⊙ τⱼ)), for N experts; norm moves the least value to 0 and the
    greatest to 1, and the softmax is over the entries of the tensor. β̂ᵢ = norm(mᵢ ⊙ βᵢ), where mᵢ keeps the
    max(1, ⌊density · n⌋) largest of βᵢ; of equal ones the earlier. The paper takes norm, softmax and ranking over all
    the model's parameters at once; here they are taken tensor by tensor. The authors' code has the square of the
    normalised magnitude, tanh(τᵢ Σⱼ τⱼ) and clamped extremes in place of the formula's terms; this is the formula.

    Args:
        base: The base's rows, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: The ranges, denominators and thresholds of the whole tensor; `density`, the share of each expert's
            entries to keep, in [0, 1], decides on them.
        first: The place of the block's first element in the tensor.
        weight: wᵢ, any real number.
        lambda_: λ, any real number.
    """
    values = [dense(delta) for delta in deltas]
    total, shares = torch.zeros_like(values[0]), torch.zeros_like(values[0])
    for i, w in enumerate(weight):
        share = measured.shares(values, i, first)
        add_scaled_product(total, values[i], share, w)
        shares.add_(share)
    return total.div_(shares.add_(torch.eq(shares, 0.0, out=torch.empty_like(shares)))).mul_(lambda_).add_(base)
