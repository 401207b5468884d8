"""Searching the coefficients of a merge: the space, the strategies, and the study that records them."""

from unspoiled.search._descent import steps_begun
from unspoiled.search._evaluator import LiveEvaluator
from unspoiled.search._executor import InProcess
from unspoiled.search._listed import Listed
from unspoiled.search._ray import RayWorkers
from unspoiled.search._space import EMBEDDINGS, Granularity, Range, SearchSpace, block_label, module_kinds, tensor_kinds
from unspoiled.search._storage import require_storage, sqlite_url
from unspoiled.search._strategy import Evaluation, Evaluator, Executor, GradientRequest, Proposal, Rival, Strategy
from unspoiled.search._study import Study
from unspoiled.search._trial import Trial, best_trials
from unspoiled.search.cocktail import Cocktail, cocktail_start, cocktail_weights
from unspoiled.search.evolve import Evolve, population_size
from unspoiled.search.gradient import Gradient
from unspoiled.search.grid import Grid, even_weights, uniform
from unspoiled.search.parents import Parents
from unspoiled.search.pareto import Pareto, coordinates, front, hypervolume
from unspoiled.search.random import Random
from unspoiled.search.sweep import Sweep

__all__ = [
    "EMBEDDINGS",
    "Cocktail",
    "Evaluation",
    "Evaluator",
    "Evolve",
    "Executor",
    "Gradient",
    "GradientRequest",
    "Granularity",
    "Grid",
    "InProcess",
    "Listed",
    "LiveEvaluator",
    "Parents",
    "Pareto",
    "Proposal",
    "Random",
    "Range",
    "RayWorkers",
    "Rival",
    "SearchSpace",
    "Strategy",
    "Study",
    "Sweep",
    "Trial",
    "best_trials",
    "block_label",
    "cocktail_start",
    "cocktail_weights",
    "coordinates",
    "even_weights",
    "front",
    "hypervolume",
    "module_kinds",
    "population_size",
    "require_storage",
    "sqlite_url",
    "steps_begun",
    "tensor_kinds",
    "uniform",
]
