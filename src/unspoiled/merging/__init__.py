"""The mathematics of merging and its two engines: `stream` (disk to disk) and `live` (in memory)."""

from unspoiled.merging import linear as _linear
from unspoiled.merging import task_arithmetic as _task_arithmetic
from unspoiled.merging._method import MergeFunction, Method, Parameter, get_method, method, methods
from unspoiled.merging._operands import AdaptedTensor, Delta, DenseDelta, Weights, add_scaled, sum_scaled
from unspoiled.merging._plan import DTYPES, MergePlan, Models
from unspoiled.merging.extract import ExtractedTensor, Extraction, extract_lora
from unspoiled.merging.live import LiveModel
from unspoiled.merging.stream import materialize, merge_to_directory

del _linear, _task_arithmetic

__all__ = [
    "DTYPES",
    "AdaptedTensor",
    "Delta",
    "DenseDelta",
    "ExtractedTensor",
    "Extraction",
    "LiveModel",
    "MergeFunction",
    "MergePlan",
    "Method",
    "Models",
    "Parameter",
    "Weights",
    "add_scaled",
    "extract_lora",
    "get_method",
    "materialize",
    "merge_to_directory",
    "method",
    "methods",
    "sum_scaled",
]
