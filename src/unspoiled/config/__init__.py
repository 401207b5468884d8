"""Configs and recipes: read from YAML with line numbers in every error, written back readable."""

from unspoiled.config._audit import AuditConfig
from unspoiled.config._data import (
    REFUSAL_RULES,
    TAXONOMIES,
    ConsistencyConfig,
    GenerateConfig,
    GuardConfig,
    ServedModel,
    TaskExamples,
)
from unspoiled.config._evaluation import EvaluationConfig
from unspoiled.config._layers import count_layers, layer_index, layer_stack, stack_depths
from unspoiled.config._names import BASE, PARENTS, QUESTIONER, UNIFORM
from unspoiled.config._recipe import BUILT_IN_TEMPLATES, Dtype, ModelEntry, Recipe, Slice, SliceSource
from unspoiled.config._recipe_values import FilteredValue, ParameterValue, interpolation, resolve
from unspoiled.config._run import (
    BunchConfig,
    DomainConfig,
    EvaluateConfig,
    ExpertConfig,
    MeasureConfig,
    MergeConfig,
    RunConfig,
    RuntimeConfig,
    TrackerName,
    as_plain,
    read_run_config,
)
from unspoiled.config._search import ObjectiveConfig, SearchConfig, StrategyName
from unspoiled.config._stages import (
    parse_recipe,
    parse_recipes,
    read_recipe,
    read_recipes,
    recipes_to_yaml,
    stage_name,
)
from unspoiled.config._starter import write_starter
from unspoiled.config._tokenizer_rules import ModelToken, Tokenizer, TokenRule, ZeroToken
from unspoiled.config._write import dump_yaml
from unspoiled.config._yaml import (
    Document,
    json_schema,
    load_yaml,
    load_yaml_documents,
    load_yaml_file,
    validate,
)

__all__ = [
    "BASE",
    "BUILT_IN_TEMPLATES",
    "PARENTS",
    "QUESTIONER",
    "REFUSAL_RULES",
    "TAXONOMIES",
    "UNIFORM",
    "AuditConfig",
    "BunchConfig",
    "ConsistencyConfig",
    "Document",
    "DomainConfig",
    "Dtype",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExpertConfig",
    "FilteredValue",
    "GenerateConfig",
    "GuardConfig",
    "MeasureConfig",
    "MergeConfig",
    "ModelEntry",
    "ModelToken",
    "ObjectiveConfig",
    "ParameterValue",
    "Recipe",
    "RunConfig",
    "RuntimeConfig",
    "SearchConfig",
    "ServedModel",
    "Slice",
    "SliceSource",
    "StrategyName",
    "TaskExamples",
    "TokenRule",
    "Tokenizer",
    "TrackerName",
    "ZeroToken",
    "as_plain",
    "count_layers",
    "dump_yaml",
    "interpolation",
    "json_schema",
    "layer_index",
    "layer_stack",
    "load_yaml",
    "load_yaml_documents",
    "load_yaml_file",
    "parse_recipe",
    "parse_recipes",
    "read_recipe",
    "read_recipes",
    "read_run_config",
    "recipes_to_yaml",
    "resolve",
    "stack_depths",
    "stage_name",
    "validate",
    "write_starter",
]
