"""Karcher: the mean of the models' directions on the sphere, in its own geometry."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unspoiled.merging._inner_products import gram
from unspoiled.merging._method import Parameter, TensorBlocks, method
from unspoiled.merging._operands import Operand, sum_scaled

_UNTOLD = 1e-3  # lengths, and angles beside π, below which weights above 1000 would amplify the rounding of the sum


def _measure(tensor: TensorBlocks) -> Tensor:
    return gram(tensor)


def _decide(products: Tensor, *, max_iter: int, tol: float) -> list[float]:
    count = len(products)
    if count == 1:
        return [1.0]
    norms = products.diagonal().sqrt()
    valid = (norms > tol).nonzero().view(-1)
    weights = torch.zeros(count, dtype=products.dtype)
    if len(valid):
        lengths = norms[valid]
        cosines = products[valid][:, valid] / torch.outer(lengths, lengths)
        weights[valid] = karcher_mean(cosines, max_iter, tol) / lengths * norms.mean()
    coefficients: list[float] = weights.tolist()
    return coefficients


def karcher_mean(cosines: Tensor, max_iter: int, tol: float) -> Tensor:
    """Return the Karcher mean of unit vectors as coefficients on them, by steps along the sphere.

    The vectors are known by their inner products alone: every iterate lies in their span.

    Args:
        cosines: ⟨uᵢ, uⱼ⟩, float64 [vectors, vectors].
        max_iter: Most steps.
        tol: Angles and steps below this count as zero.

    Returns:
        float64 [vectors]. Where the vectors cancel out, the search starts at the first. One opposite to the mean,
        from where every way to it is as short, pulls nowhere.
    """
    count = len(cosines)
    mean = torch.full((count,), 1.0 / count, dtype=cosines.dtype)
    length = _norm(mean, cosines)
    mean = torch.eye(count, dtype=cosines.dtype)[0] if length < max(tol, _UNTOLD) else mean / length
    for _ in range(max_iter):
        along = (cosines @ mean).clamp(-1.0, 1.0)
        angles = torch.acos(along)
        pulls = ((angles >= tol) & (angles <= math.pi - _UNTOLD)).to(cosines.dtype)
        stretch = pulls * angles / torch.sin(angles).clamp(min=1e-12) / count
        tangent = stretch - (stretch * along).sum() * mean
        step = _norm(tangent, cosines)
        if step < max(tol, 1e-12):
            break
        mean = math.cos(step) * mean + math.sin(step) / step * tangent
        mean = mean / _norm(mean, cosines)
    return mean


@method(
    "karcher",
    operands="tensors",
    paper="Karcher, Riemannian center of mass and mollifier smoothing, doi 10.1002/cpa.3160300502",
    parameters=[
        Parameter("max_iter", default=10, low=0, high=100_000, scope="merge"),
        Parameter("tol", default=1e-5, low=0.0, scope="merge", differentiable=False),  # only ends the search
    ],
    measure=_measure,
    decide=_decide,
)
def karcher(
    base: Tensor | None,  # noqa: ARG001 - one signature for every method
    tensors: Sequence[Operand],
    *,
    measured: Sequence[float],
) -> Tensor:
    """Return θ = s · argmin_u Σ angle(u, θᵢ)², ‖u‖ = 1, with s the mean of the ‖θᵢ‖, float32.

    Args:
        base: Not used.
        tensors: One weight per model; one alone is returned as it is.
        measured: The coefficients of the tensors, after at most `max_iter` steps toward the mean, in [0, 100000].
            Steps and angles below `tol` end the search; a tensor with a smaller norm has no direction and counts in s
            only. At least 0.
    """
    return sum_scaled(None, tensors, measured)


def _norm(coefficients: Tensor, cosines: Tensor) -> float:
    return math.sqrt(max(0.0, float(coefficients @ cosines @ coefficients)))
