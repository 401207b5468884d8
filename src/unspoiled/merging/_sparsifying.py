"""The methods that sparsify task vectors: each has its own way to choose entries, and all sum up what is kept alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from unspoiled.merging._consensus import merge_agreeing, merge_sparse
from unspoiled.merging._method import Parameter, method
from unspoiled.merging._numbers import Number
from unspoiled.merging._operands import Operand, total_weight
from unspoiled.merging._sparsify import Sparse, kept_entries

F = TypeVar("F", bound=Callable[..., list[Sparse]])

_SUM = """Return θ = θ_base + λ · Σ wᵢ τ̂ᵢ, float32, of the base's shape.

With `normalize` the sum is divided by Σ wᵢ; weights that sum to zero raise ConfigError."""

_AGREEING = """Return θ = θ_base + λ · Σ_{i agrees} wᵢ τ̂ᵢ, float32, of the base's shape.

An entry agrees if it isn't zero and has the sign of Σ wᵢ τ̂ᵢ, a sum of zero counting as positive. These are mergekit's
semantics; the code of TIES's paper elects by Σ τ̂ᵢ, without the weights. With `normalize` the sum is divided, entry by
entry, by Σ_{i agrees} wᵢ."""

_ARGUMENTS = """
    base: The base's rows, any floating dtype.
    kept: The kept entries of each expert's task vector.
    measured: What is kept, and the factor that restores its size.
    weight: wᵢ, any real number.
    normalize: Divide by the weights, so that a single one cancels out.
    lambda_: λ, any real number."""


def sparsifying(
    name: str, *, agreeing: bool, normalize: bool, rescale: bool, paper: str, parameters: Sequence[Parameter]
) -> Callable[[F], F]:
    """Register the merge method `name`: the decorated function chooses entries of the task vectors, which are summed.

    The function is the method's `measure`. Its docstring says what τ̂ᵢ is, and under `Args:` what its parameters are; it
    becomes part of the documentation of the registered merge.

    Args:
        name: The name in a recipe.
        agreeing: Sum the entries that agree in sign (TIES's election), instead of all.
        normalize: The default of the parameter `normalize`.
        rescale: The default of the parameter `rescale`.
        paper: Where the method comes from.
        parameters: Those that choose the entries; `weight`, `normalize`, `rescale` and `lambda` are added.
    """

    def register(keep: F) -> F:
        merge = _agreeing_merge() if agreeing else _sparse_merge(name)
        merge.__name__ = merge.__qualname__ = name
        merge.__doc__ = _documentation(keep, agreeing=agreeing)
        method(
            name,
            operands="deltas",
            base="required",
            measure=keep,
            prepare=kept_entries,
            in_pieces=True,
            ignored=("int8_mask",),
            paper=paper,
            parameters=[
                Parameter("weight"),
                *parameters,
                Parameter("normalize", default=normalize, scope="merge"),
                Parameter("rescale", default=rescale, scope="merge"),
                Parameter("lambda", default=1.0, scope="merge"),
            ],
        )(merge)
        return keep

    return register


def _sparse_merge(name: str) -> Callable[..., Tensor]:
    def merge(
        base: Tensor,
        kept: Sequence[Operand],
        *,
        measured: Sequence[Sparse],
        weight: Sequence[Number],
        normalize: bool,
        lambda_: Number,
    ) -> Tensor:
        factor = lambda_ / total_weight(weight, name) if normalize else lambda_
        return merge_sparse(base, kept, weight=weight, scale=[one.scale for one in measured], lambda_=factor)

    return merge


def _agreeing_merge() -> Callable[..., Tensor]:
    def merge(
        base: Tensor,
        kept: Sequence[Operand],
        *,
        measured: Sequence[Sparse],
        weight: Sequence[Number],
        normalize: bool,
        lambda_: Number,
    ) -> Tensor:
        scale = [one.scale for one in measured]
        return merge_agreeing(base, kept, weight=weight, scale=scale, normalize=normalize, lambda_=lambda_)

    return merge


def _documentation(keep: Callable[..., object], *, agreeing: bool) -> str:
    text, _, arguments = (inspect.getdoc(keep) or "").partition("\n\nArgs:")
    return f"{_AGREEING if agreeing else _SUM}\n\n{text}\n\nArgs:{_ARGUMENTS}{arguments}"
