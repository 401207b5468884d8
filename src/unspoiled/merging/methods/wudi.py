"""WUDI: find the task vector that interferes least with each expert's, where that expert's inputs lie."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, dense, sum_scaled

_EMBEDDINGS = ("embed_tokens", "wte", "wpe", "word_embeddings", "embed_positions", "token_embedding")
_BETAS, _EPS = (0.9, 0.999), 1e-8  # Adam's defaults, which the authors' code uses


def _measure(tensor: TensorBlocks) -> bool:
    """Return whether the tensor is a linear layer's weight (or several of them, of a mixture of experts)."""
    is_matrix = len(tensor.shape) >= 2 and tensor.shape[-2] > 1
    return is_matrix and not any(name in tensor.name for name in _EMBEDDINGS)


@method(
    "wudi",
    operands="deltas",
    base="required",
    whole=True,
    squares=2,
    measure=_measure,
    paper="Cheng et al., Whoever Started the Interference Should End It, arXiv 2503.08099",
    parameters=[
        # through the descent: its graph would hold the tensor several times for every step
        Parameter("weight", default=1.0, differentiable=False),
        Parameter("steps", default=300, low=0, scope="merge"),
        Parameter("lr", default=1e-5, low=0.0, scope="merge", differentiable=False),
        Parameter("lambda", default=1.0, scope="merge"),
    ],
)
def wudi(
    base: Tensor,
    deltas: Sequence[Operand],
    *,
    measured: bool,
    weight: Sequence[float],
    steps: int,
    lr: float,
    lambda_: Number,
) -> Tensor:
    """Return θ = θ_base + λ τ, float32, of the base's shape, where τ minimises Σᵢ ‖(τ − τᵢ) τᵢᵀ‖² / ‖τᵢ‖².

    The minimum is sought by Adam from Σ wᵢ τᵢ, in a fixed number of steps. The rows of τᵢ lie near the inputs that the
    expert was trained on, so that the loss stands for the change of its outputs; that holds for linear layers. Other
    tensors (vectors, matrices of one row, embeddings) become θ_base + λ Σ wᵢ τᵢ / N. The authors' code leaves these
    the base's, which would drop what experts learned of special tokens. Experts that don't change the tensor have no
    part in the loss.

    Args:
        base: The base's matrix, any floating dtype.
        deltas: One task vector per expert, of the base's shape.
        measured: Whether the tensor is a linear layer's weight.
        weight: wᵢ, any real number, multiplies the task vector; the paper's are all 1.
        steps: Adam's steps, ≥ 0; the paper's 300.
        lr: Adam's learning rate, ≥ 0, in units of the weights; the paper's 1e-5.
        lambda_: λ, any real number; the paper's 1.
    """
    if not measured:
        return sum_scaled(base, deltas, [lambda_ * w / len(deltas) for w in weight])
    values = [dense(delta) * w for delta, w in zip(deltas, weight, strict=True)]
    merged = torch.stack(values).sum(dim=0)
    curvature, pull = _loss(values)
    return _adam(merged, curvature, pull, steps=steps, lr=lr).mul_(lambda_).add_(base)


def _loss(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return A [width, width] and B [rows, width] of the loss's gradient, 2 (τ A − B).

    A = Σ τᵢᵀ τᵢ / ‖τᵢ‖² and B = Σ τᵢ τᵢᵀ τᵢ / ‖τᵢ‖².
    """
    rows, width = values[0].shape
    curvature, pull = values[0].new_zeros(width, width), values[0].new_zeros(rows, width)
    for value in values:
        square = float(torch.linalg.vector_norm(value, dtype=torch.float64)) ** 2
        if square > 0:
            products = (value.T @ value).div_(square)
            curvature.add_(products)
            pull.addmm_(value, products)
    return curvature, pull


def _adam(point: Tensor, curvature: Tensor, pull: Tensor, *, steps: int, lr: float) -> Tensor:
    """Descend from `point`, which is overwritten. Source: Kingma & Ba, Adam, arXiv 1412.6980, Algorithm 1."""
    mean, square = torch.zeros_like(point), torch.zeros_like(point)
    for step in range(1, steps + 1):
        gradient = torch.addmm(pull, point, curvature, beta=-1).mul_(2)
        mean.lerp_(gradient, 1 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        scale = (square / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPS)
        point.addcdiv_(mean, scale, value=-lr / (1 - _BETAS[0] ** step))
    return point
