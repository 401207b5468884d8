"""Configs and recipes: read from YAML with line numbers in every error, written back readable."""

from unspoiled.config._layers import count_layers, layer_index, layer_stack, stack_depths
from unspoiled.config._recipe import (
    Dtype,
    FilteredValue,
    ModelEntry,
    ParameterValue,
    Recipe,
    Tokenizer,
    parse_recipe,
    read_recipe,
    resolve,
)
from unspoiled.config._run import (
    BunchConfig,
    DomainConfig,
    EvaluateConfig,
    ExpertConfig,
    GenerateConfig,
    MergeConfig,
    RunConfig,
    RuntimeConfig,
    SearchConfig,
    as_plain,
    read_run_config,
)
from unspoiled.config._starter import write_starter
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
    "BunchConfig",
    "Document",
    "DomainConfig",
    "Dtype",
    "EvaluateConfig",
    "ExpertConfig",
    "FilteredValue",
    "GenerateConfig",
    "MergeConfig",
    "ModelEntry",
    "ParameterValue",
    "Recipe",
    "RunConfig",
    "RuntimeConfig",
    "SearchConfig",
    "Tokenizer",
    "as_plain",
    "count_layers",
    "dump_yaml",
    "json_schema",
    "layer_index",
    "layer_stack",
    "load_yaml",
    "load_yaml_documents",
    "load_yaml_file",
    "parse_recipe",
    "read_recipe",
    "read_run_config",
    "resolve",
    "stack_depths",
    "validate",
    "write_starter",
]
