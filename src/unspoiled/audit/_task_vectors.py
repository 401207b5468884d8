"""The experts' task vectors before any merge: how large, where out of line, and how they point to each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from unspoiled.audit._layers import EMBEDDINGS, HEAD, Layers
from unspoiled.audit._record import LayerOutlier, TaskVectors
from unspoiled.checkpoints import ModelSource
from unspoiled.config import ModelEntry, Recipe
from unspoiled.inference import Progress, silent
from unspoiled.merging import BlockSource, MergePlan, Models, TensorBlocks, gram

OUTLIER = 3.5
"""Robust standard deviations beyond which a layer is an outlier (Iglewicz and Hoaglin, 1993)."""
_LEAST_DEVIATION = 0.05  # of the logarithms: layers within 19% of the median are never outliers, however alike the rest
_LEAST_LAYERS = 4  # of fewer, most are not "the rest"


def task_vectors(
    base: ModelSource, experts: Mapping[str, ModelSource], safest: str, *, progress: Progress = silent
) -> TaskVectors:
    """Measure every expert's task vector τ = θ_expert − θ_base, layer by layer.

    Tensors are read a block of rows at a time, adapters as their two factors; products are summed in float64. An expert
    that is the base itself has a task vector of zeros.

    Args:
        base: The common ancestor.
        experts: The experts by name, full checkpoints or LoRA adapters, all of the base's architecture.
        safest: The expert whose task vector is the safety vector.
        progress: Called with (tensors read, tensors in all).

    Raises:
        CheckpointError: A tensor has NaN or Inf.
        PreflightError: The models' tensors don't have the same names and shapes.
    """
    moved = {name: source for name, source in experts.items() if str(source.ref) != str(base.ref)}
    if not moved:  # nothing to plan: a merge has at least one expert
        zeros = {label: torch.zeros(1, 1, dtype=torch.float64) for label in Layers(list(base.tensors)).labels}
        return _measured(dict.fromkeys(experts), zeros, safest)
    recipe = Recipe(
        merge_method="task_arithmetic",
        base_model=str(base.ref),
        models=tuple(ModelEntry(model=str(source.ref), parameters={"weight": 1.0}) for source in moved.values()),
    )
    plan = MergePlan(recipe, Models({str(source.ref): source for source in [base, *moved.values()]}))
    layers = Layers(list(plan.tensors))
    size = 1 + len(moved)
    products = {label: torch.zeros(size, size, dtype=torch.float64) for label in layers.labels}
    for done, tensor in enumerate(plan.tensors.values(), start=1):
        if tensor.dtype.is_floating_point and 0 not in tensor.shape:
            blocks = _base_alone(tensor) if tensor.copied else tensor.checked_once()
            found = gram(blocks, with_base=True)
            products[layers.of(tensor.name)][: len(found), : len(found)] += found
        progress(done, len(plan.tensors))
    index = {name: place for place, name in enumerate(moved, start=1)}
    return _measured({name: index.get(name) for name in experts}, products, safest)


def outliers(relative_norms: Mapping[str, Sequence[float]], labels: Sequence[str]) -> list[LayerOutlier]:
    """Return the layers whose relative norm is out of line with the same expert's other layers.

    The score is z = (ln r − median) / max(1.4826 · MAD, 0.05) over the layers that the expert changes. An outlier has
    |z| > 3.5: far larger than the others where z is positive, far smaller where it is negative. An expert that changes
    fewer than four layers has none. Embeddings and head are not judged: they have no like.

    Args:
        relative_norms: By expert, ‖τ‖ / ‖θ_base‖ of each layer, at least 0.
        labels: The layers.
    """
    found = []
    for expert, norms in relative_norms.items():
        judged = [(label, norm) for label, norm in zip(labels, norms, strict=True) if label not in (EMBEDDINGS, HEAD)]
        logs = {label: math.log(norm) for label, norm in judged if norm > 0.0}
        if len(logs) < _LEAST_LAYERS:
            continue
        middle = median(logs.values())
        deviation = 1.4826 * median(abs(value - middle) for value in logs.values())
        for label, value in logs.items():
            score = (value - middle) / max(deviation, _LEAST_DEVIATION)
            if abs(score) > OUTLIER:
                found.append(LayerOutlier(expert=expert, layer=label, relative_norm=math.exp(value), score=score))
    return found


def _base_alone(tensor: TensorBlocks) -> TensorBlocks:
    """Return a tensor that no expert changes without the experts, whose task vectors are zero there."""
    return BlockSource(lambda: (replace(block, operands=()) for block in tensor), tensor.shape, tensor.name)


def _measured(index: Mapping[str, int | None], products: Mapping[str, Tensor], safest: str) -> TaskVectors:
    """Turn inner products, base first, into norms and cosines; an expert of no index is the base itself."""
    whole = torch.stack(list(products.values())).sum(0)

    def norm(of: Tensor, expert: str) -> float:
        place = index[expert]
        return 0.0 if place is None else math.sqrt(float(of[place, place]))

    def cosine(of: Tensor, one: str, other: str) -> float | None:
        first, second, size = index[one], index[other], norm(of, one) * norm(of, other)
        if first is None or second is None or size == 0.0:
            return None
        return max(-1.0, min(1.0, float(of[first, second]) / size))

    def relative(of: Tensor, expert: str) -> float:
        base = math.sqrt(float(of[0, 0]))
        return norm(of, expert) / (base or 1.0)  # a base of zeros has no scale: the norm itself

    norms = {expert: [relative(of, expert) for of in products.values()] for expert in index}
    return TaskVectors(
        layers=list(products),
        norms={expert: norm(whole, expert) for expert in index},
        relative_norms=norms,
        outliers=outliers(norms, list(products)),
        cosines={one: {other: cosine(whole, one, other) or 0.0 for other in index} for one in index},
        safety_cosines={expert: [cosine(of, expert, safest) for of in products.values()] for expert in index},
    )
