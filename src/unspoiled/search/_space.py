"""The genome of a search: which coefficients move, and the recipe that a genome stands for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unspoiled.config import Dtype, ModelEntry, Recipe
from unspoiled.errors import ConfigError

Granularity = Literal["model", "group", "layer"]


@dataclass(frozen=True)
class SearchSpace:
    """The weights of a merge as a flat vector: expert by expert, and within one from the first layer to the last.

    Args:
        method: A merge method whose `weight` is searched.
        base: The base model, as recipes name it.
        experts: The experts' model strings by name, in order.
        layers: Number of layers of the architecture, at least 1.
        granularity: One weight per expert (`model`), per expert and group of layers (`group`), or per expert
            and layer (`layer`). Tensors of no layer (embeddings, final norm, head) take the first one's.
        groups: Number of layer groups for `group`, from 1 to `layers`; sizes differ by one at most.
        bounds: Smallest and largest weight.
        dtype: The recipes' output dtype, in mergekit's words.
    """

    method: str
    base: str
    experts: Mapping[str, str]
    layers: int
    granularity: Granularity = "model"
    groups: int = 1
    bounds: tuple[float, float] = (0.0, 1.5)
    dtype: Dtype = "bfloat16"

    def __post_init__(self) -> None:
        if self.granularity == "group" and not 1 <= self.groups <= self.layers:
            raise ConfigError(
                f"search.layer_groups is {self.groups}: choose 1 to {self.layers}, the model's number of layers."
            )

    @property
    def blocks(self) -> list[range]:
        """The runs of layers that share a weight, first to last."""
        count = {"model": 1, "group": self.groups, "layer": self.layers}[self.granularity]
        edges = [i * self.layers // count for i in range(count + 1)]
        return [range(a, b) for a, b in itertools.pairwise(edges)]

    @property
    def labels(self) -> list[str]:
        """A name per coefficient: `EXPERT`, or `EXPERT/FIRST-LAST` with layer numbers."""
        if self.granularity == "model":
            return list(self.experts)
        return [f"{name}/{block_label(block)}" for name in self.experts for block in self.blocks]

    @property
    def size(self) -> int:
        """The number of coefficients."""
        return len(self.experts) * len(self.blocks)

    def constant(self, weights: Sequence[float]) -> tuple[float, ...]:
        """Return the genome with one weight per expert, the same for all layers."""
        return tuple(weight for weight in weights for _ in self.blocks)

    def recipe(self, genome: Sequence[float]) -> Recipe:
        """Return the recipe that a genome (of length `size`) stands for."""
        if len(genome) != self.size:
            raise ValueError(f"the genome has {len(genome)} values, the space {self.size}")
        blocks = self.blocks
        entries = []
        for i, model in enumerate(self.experts.values()):
            own = genome[i * len(blocks) : (i + 1) * len(blocks)]
            weight: float | tuple[float, ...] = own[0]
            if len(blocks) > 1:  # one entry per layer: a gradient that is exact at every layer
                weight = tuple(w for w, block in zip(own, blocks, strict=True) for _ in block)
            entries.append(ModelEntry(model=model, parameters={"weight": weight}))
        return Recipe(
            merge_method=self.method,
            base_model=self.base if self.method != "linear" else None,
            models=tuple(entries),
            dtype=self.dtype,
        )


def block_label(block: range) -> str:
    """Return `FIRST-LAST`, or one number for a block of one layer."""
    return str(block[0]) if len(block) == 1 else f"{block[0]}-{block[-1]}"
