"""Searching the coefficients of a merge: the space, the strategies, and the study that records them."""

from unspoiled.search._space import Granularity, Range, SearchSpace, block_label, module_kinds
from unspoiled.search._strategy import (
    Evaluation,
    Evaluator,
    Executor,
    GradientRequest,
    Proposal,
    Rival,
    Strategy,
)
from unspoiled.search.cocktail import Cocktail, cocktail_start, cocktail_weights
from unspoiled.search.evolve import Evolve, population_size
from unspoiled.search.gradient import Gradient
from unspoiled.search.grid import Grid, even_weights, uniform
from unspoiled.search.parents import Parents
from unspoiled.search.pareto import Pareto, coordinates, front, hypervolume
from unspoiled.search.random import Random
from unspoiled.search.sweep import Sweep

__all__ = [
    "Cocktail",
    "Evaluation",
    "Evaluator",
    "Evolve",
    "Executor",
    "Gradient",
    "GradientRequest",
    "Granularity",
    "Grid",
    "Parents",
    "Pareto",
    "Proposal",
    "Random",
    "Range",
    "Rival",
    "SearchSpace",
    "Strategy",
    "Sweep",
    "block_label",
    "cocktail_start",
    "cocktail_weights",
    "coordinates",
    "even_weights",
    "front",
    "hypervolume",
    "module_kinds",
    "population_size",
    "uniform",
]
