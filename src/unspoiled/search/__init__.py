"""Searching the coefficients of a merge: the space, the strategies, and the study that records them."""

from unspoiled.search._space import Granularity, SearchSpace, block_label
from unspoiled.search._strategy import Proposal, Strategy
from unspoiled.search._study import Study, Trial, best_trials, sqlite_url
from unspoiled.search.cocktail import Cocktail, cocktail_weights
from unspoiled.search.evolve import Evolve, population_size
from unspoiled.search.grid import PAPER_WEIGHTS, Grid, uniform

__all__ = [
    "PAPER_WEIGHTS",
    "Cocktail",
    "Evolve",
    "Granularity",
    "Grid",
    "Proposal",
    "SearchSpace",
    "Strategy",
    "Study",
    "Trial",
    "best_trials",
    "block_label",
    "cocktail_weights",
    "population_size",
    "sqlite_url",
    "uniform",
]
