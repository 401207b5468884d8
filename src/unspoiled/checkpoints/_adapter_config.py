"""What an adapter_config.json may say, and what each option we don't implement would have changed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unspoiled.errors import CheckpointError

_USED = {
    *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"),
    *("bias", "init_lora_weights"),
}

_WITHOUT_EFFECT_ON_WEIGHTS = {
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout"),
    *("runtime_config", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config"),
    *("megatron_core", "qalora_group_size", "ensure_weight_tying"),
}
"""Options that say where, how or from what the factors were trained: the factors hold the outcome."""

_REFUSED = {
    "use_dora": "DoRA rescales the sum by learnt magnitudes",
    "modules_to_save": "whole modules were trained beside the LoRA factors",
    "trainable_token_indices": "single embedding rows were trained",
    "lora_bias": "biases were trained with the LoRA factors",
    "layer_replication": "the adapter repeats layers of the base",
    "target_parameters": "factors were put on parameters of mixture-of-experts layers",
    "use_qalora": "QA-LoRA pools the inputs in groups",
    "use_bdlora": "the factors are block-diagonal",
    "alora_invocation_tokens": "an activated LoRA applies to a part of the tokens only",
    "arrow_config": "Arrow routes between adapters at run time",
    "kasa_config": "KaSA adds singular values to the factors",
    "monteclora_config": "MonteCLoRA draws its weights at random",
    "megatron_config": "Megatron splits the layers differently",
}

_PLAIN_INITIALISATIONS = (True, False, None, "gaussian", "eva")

_WAY_OUT = "Merge it into its base with PEFT's merge_and_unload, save the result, and use that as a full checkpoint."


def check_adapter_config(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse an adapter that changes its base in any other way than by scale · B A.

    Unknown options that are set are refused as well: a newer PEFT may have given them a meaning.

    Raises:
        CheckpointError: names the file and every option that stands in the way.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{file}: peft_type is {kind!r}; only 'LORA' adapters can be merged. {_WAY_OUT}")
    reasons = [f"{option} ({reason})" for option, reason in _REFUSED.items() if config.get(option)]
    if config.get("bias", "none") != "none":
        reasons.append(f"bias={config['bias']!r} (biases of the base were trained)")
    start = config.get("init_lora_weights")
    if not any(start is plain or start == plain for plain in _PLAIN_INITIALISATIONS):
        reasons.append(f"init_lora_weights={start!r} (this start changes the base's weights as well)")
    known = _USED | _WITHOUT_EFFECT_ON_WEIGHTS | _REFUSED.keys()
    reasons += [
        f"{option}={value!r} (unknown to this version)"
        for option, value in config.items()
        if option not in known and value
    ]
    if reasons:
        raise CheckpointError(f"{file}: not supported: {'; '.join(reasons)}. {_WAY_OUT}")
    for option in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(option) or {}, dict):
            raise CheckpointError(f"{file}: {option} is {config[option]!r}, not a map from module names to numbers.")


def pattern_value(file: Path, config: Mapping[str, Any], option: str, module: str, default: object) -> object:
    """Return what `rank_pattern` or `alpha_pattern` gives a module: the first pattern that matches its end.

    As in PEFT, a pattern is a regular expression for the whole module name or what follows one of its dots.
    """
    for pattern, value in (config.get(option) or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise CheckpointError(f"{file}: {option} has {pattern!r}, not a regular expression ({error}).") from error
    return default
