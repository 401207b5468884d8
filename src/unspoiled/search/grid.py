"""The data-free baselines: cells of a grid with the same values for all experts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from unspoiled.search._listed import Listed
from unspoiled.search._space import SearchSpace
from unspoiled.search._strategy import Proposal

PAPER_WEIGHTS = (0.1, 0.25, 0.33, 0.5, 1.0)
PAPER_DENSITIES = (0.25, 0.5, 1.0)
PAPER_POSITIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Grid(Listed):
    """Try every cell of the paper's grid once: what one would search by hand, without data.

    A cell has one value per parameter, for all experts and layers. The cells cross the `weight`s with the densities
    {¼, ½, 1} where the space moves `density`, and with `t` from 0.1 to 1 where it moves `t` (SLERP). Values outside of
    a parameter's range are left out; every other parameter, and one that has no value left, stays at its start.

    Source: arXiv 2406.14563, section 4.

    Args:
        space: What moves.
        weights: The weights; the paper's for three models by default.
        name: The strategy's name.
    """

    def __init__(self, space: SearchSpace, weights: Sequence[float] = PAPER_WEIGHTS, *, name: str = "grid") -> None:
        axes = {"weight": tuple(weights), "density": PAPER_DENSITIES, "t": PAPER_POSITIONS}
        values = []
        for parameter, range_ in space.ranges.items():
            inside = [value for value in axes.get(parameter, ()) if range_.low <= value <= range_.high]
            values.append(inside or [range_.start])
        cells = [dict(zip(space.ranges, cell, strict=True)) for cell in itertools.product(*values)]
        super().__init__(name, [_proposal(space, i, space.same(cell)) for i, cell in enumerate(cells)])


def uniform(space: SearchSpace) -> Listed:
    """Return the one merge that one would make by hand: weight 1/N for each of the N experts, the rest at its start."""
    return Listed("uniform", [_proposal(space, 0, even_weights(space))])


def even_weights(space: SearchSpace) -> tuple[float, ...]:
    """Return the genome with weight 1/N for each of the N experts, every other parameter at its start."""
    return space.constant([1 / len(space.experts)] * len(space.experts))


def _proposal(space: SearchSpace, number: int, genome: tuple[float, ...]) -> Proposal:
    return Proposal(number, space.recipe(genome), space.named(genome))
