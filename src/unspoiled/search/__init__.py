"""Searching the coefficients of a merge: the space, the strategies, and the study that records them."""

from unspoiled.search._evaluator import LiveEvaluator
from unspoiled.search._space import Granularity, Range, SearchSpace, block_label, module_kinds, tensor_kinds
from unspoiled.search._strategy import (
    Evaluation,
    Evaluator,
    Executor,
    GradientRequest,
    Proposal,
    Rival,
    Strategy,
)

__all__ = [
    "Evaluation",
    "Evaluator",
    "Executor",
    "GradientRequest",
    "Granularity",
    "LiveEvaluator",
    "Proposal",
    "Range",
    "Rival",
    "SearchSpace",
    "Strategy",
    "block_label",
    "module_kinds",
    "tensor_kinds",
]
