"""Searching the coefficients of a merge: the space, the strategies, and the study that records them."""

from unspoiled.search._executor import InProcess
from unspoiled.search._ray import RayWorkers
from unspoiled.search._space import Granularity, Range, SearchSpace, block_label, module_kinds
from unspoiled.search._storage import sqlite_url
from unspoiled.search._strategy import (
    Evaluation,
    Evaluator,
    Executor,
    GradientRequest,
    Proposal,
    Rival,
    Strategy,
)
from unspoiled.search._study import Study
from unspoiled.search._trial import Trial, best_trials

__all__ = [
    "Evaluation",
    "Evaluator",
    "Executor",
    "GradientRequest",
    "Granularity",
    "InProcess",
    "Proposal",
    "Range",
    "RayWorkers",
    "Rival",
    "SearchSpace",
    "Strategy",
    "Study",
    "Trial",
    "best_trials",
    "block_label",
    "module_kinds",
    "sqlite_url",
]
