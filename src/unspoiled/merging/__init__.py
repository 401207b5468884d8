"""The mathematics of merging and its two engines: `stream` (disk to disk) and `live` (in memory)."""

import unspoiled.merging.methods  # noqa: F401 - registers them
from unspoiled.merging._device import free_memory
from unspoiled.merging._gradients import CoefficientGradients, Gradients
from unspoiled.merging._inner_products import gram
from unspoiled.merging._method import (
    Block,
    BlockSource,
    MergeFunction,
    Method,
    Parameter,
    TensorBlocks,
    all_methods,
    get_method,
    method,
)
from unspoiled.merging._operands import (
    AdaptedTensor,
    Delta,
    DenseDelta,
    Operand,
    Weights,
    add_scaled,
    dense,
    sum_scaled,
)
from unspoiled.merging._plan import DTYPES, MergePlan, Models
from unspoiled.merging._statistics import Statistic, StatisticsFile, StatisticsOf, statistic_name
from unspoiled.merging.extract import ExtractedTensor, Extraction, extract_lora
from unspoiled.merging.live import LiveModel
from unspoiled.merging.stages import merge_stages
from unspoiled.merging.stream import MEMORY, SHARD_SIZE, materialize, merge_to_directory

__all__ = [
    "DTYPES",
    "MEMORY",
    "SHARD_SIZE",
    "AdaptedTensor",
    "Block",
    "BlockSource",
    "CoefficientGradients",
    "Delta",
    "DenseDelta",
    "ExtractedTensor",
    "Extraction",
    "Gradients",
    "LiveModel",
    "MergeFunction",
    "MergePlan",
    "Method",
    "Models",
    "Operand",
    "Parameter",
    "Statistic",
    "StatisticsFile",
    "StatisticsOf",
    "TensorBlocks",
    "Weights",
    "add_scaled",
    "all_methods",
    "dense",
    "extract_lora",
    "free_memory",
    "get_method",
    "gram",
    "materialize",
    "merge_stages",
    "merge_to_directory",
    "method",
    "statistic_name",
    "sum_scaled",
]
