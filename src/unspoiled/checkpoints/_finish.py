"""Complete a merged checkpoint: config, tokenizer, recipe, and last the manifest that proves it whole."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from unspoiled import __version__
from unspoiled.checkpoints._reader import listed, read_json, safe_path
from unspoiled.checkpoints._source import ModelSource
from unspoiled.checkpoints._tokenizer import TOKENIZER_FILES
from unspoiled.errors import CheckpointError
from unspoiled.files import MANIFEST_NAME, hash_file, hash_value, write_atomic, write_json_atomic

RECIPE_NAME = "mergekit_config.yml"
"""The name under which mergekit, and the hub's model pages, look for a merge's recipe."""

_FORMAT = 1

_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_LAYER_INDICES = {"mlp_only_layers", "moe_layers", "cross_attention_layers", "full_attn_idxs", "attn_layer_indices"}
_NOT_OF_LAYERS = ("architectures", "_token_id", "_token_ids")  # as long as a small model is deep, they look like it


@dataclass(frozen=True)
class FileRecord:
    """What the manifest says about a file: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `unspoiled.json`.

    Attributes:
        tool_version: The version of unspoiled that wrote the checkpoint.
        files: Every other file by its path relative to the directory.
    """

    tool_version: str
    files: Mapping[str, FileRecord]


def finish_checkpoint(
    staging: Path,
    *,
    source: ModelSource,
    dtype: torch.dtype,
    recipe_yaml: str,
    chat_template: str | None = None,
    extra: Mapping[str, str] | None = None,
    tie_word_embeddings: bool | None = None,
    tokenizer: Path | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Add to the weights in `staging` everything a checkpoint needs, and write the completion manifest last.

    Args:
        staging: The directory in which `CheckpointWriter` wrote the weights.
        source: The model whose config the merge takes, and its generation config if `tokenizer` has none. A raw file
            without a config gives neither.
        dtype: The dtype of the weights, recorded in the config.
        recipe_yaml: The recipe in mergekit's YAML, written as `mergekit_config.yml`.
        chat_template: The chat template of the merged model; None keeps the tokenizer's own.
        extra: Further files, name → text, such as the model card.
        tie_word_embeddings: Whether the head is the embedding (`output_layout(...).tied`); None keeps the
            source's.
        tokenizer: The directory to take the tokenizer and the generation config from; None for the source's, `staging`
            if they are there.
        config: The config in place of the source's, where layers or vocabulary are others.

    Raises:
        CheckpointError: a damaged or unsafe file in the source, or a name in `extra` that is taken or unsafe.
    """
    tokenizer = source.tokenizer_directory if tokenizer is None else tokenizer
    config = source.checkpoint.config if config is None else config
    if config:
        write_json_atomic(staging / "config.json", merged_config(config, dtype, tie_word_embeddings))
    # the tokens that end a turn belong to the template, so the generation config goes with the tokenizer
    has_own = (tokenizer / "generation_config.json").exists()
    _copy(tokenizer if has_own else source.directory, staging, "generation_config.json")
    for name in TOKENIZER_FILES:
        _copy(tokenizer, staging, name)
    for path in sorted(tokenizer.glob("additional_chat_templates/*.jinja")):
        (staging / "additional_chat_templates").mkdir(exist_ok=True)
        _copy(tokenizer, staging, f"additional_chat_templates/{path.name}")
    if chat_template is not None:
        _set_chat_template(staging, chat_template)
    write_atomic(staging / RECIPE_NAME, recipe_yaml)
    for name, text in (extra or {}).items():
        if not name or Path(name).name != name or name == MANIFEST_NAME or (staging / name).exists():
            raise CheckpointError(f"{staging}: {name!r} can't be the name of a further file: it is taken or not plain.")
        write_atomic(staging / name, text)
    write_manifest(staging)


def merged_config(
    config: Mapping[str, Any], dtype: torch.dtype, tie_word_embeddings: bool | None = None
) -> dict[str, Any]:
    """Return a merged model's config.json: the source's with the new dtype and tying, without its origin."""
    dtype_name = str(dtype).removeprefix("torch.")

    def adapt(section: Mapping[str, Any], *, top: bool) -> dict[str, Any]:
        dropped = {"_name_or_path", "_commit_hash", "torch_dtype", "dtype"}
        result = {key: value for key, value in section.items() if key not in dropped}
        if top or "dtype" in section or "torch_dtype" in section:
            # transformers 5 writes "dtype" and reads both; up to 4.55 it knows "torch_dtype" only.
            result["torch_dtype" if "torch_dtype" in section and "dtype" not in section else "dtype"] = dtype_name
        if tie_word_embeddings is not None and (top or "tie_word_embeddings" in section):
            result["tie_word_embeddings"] = tie_word_embeddings
        if isinstance(section.get("text_config"), Mapping):
            result["text_config"] = adapt(section["text_config"], top=False)
        return result

    return adapt(config, top=True)


def config_of_layers(config: Mapping[str, Any], origins: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, Any]:
    """Return a config for a model of other layers: their number, and every list that is about layers.

    Such a list has an entry for each layer, or names layers by their indices. Tokens and architectures, which are
    lists too, are left as they are.

    Args:
        config: The config that the new model takes at large.
        origins: For each layer of the new model, the config of the model it was in and its index there.
    """
    count = _layer_count(config)
    adapted = {key: len(origins) if key in _LAYER_COUNTS else value for key, value in config.items()}
    for key, value in config.items():
        if not isinstance(value, list) or key.endswith(_NOT_OF_LAYERS):
            continue
        if key in _LAYER_INDICES:
            adapted[key] = [new for new, (owner, old) in enumerate(origins) if old in _list(owner, key)]
        elif len(value) == count:
            adapted[key] = [_entry(owner, key, old, value) for owner, old in origins]
    if isinstance(text := config.get("text_config"), Mapping):
        adapted["text_config"] = config_of_layers(
            text, [(owner.get("text_config", owner), old) for owner, old in origins]
        )
    return adapted


def _layer_count(config: Mapping[str, Any]) -> int | None:
    return next((config[key] for key in _LAYER_COUNTS if isinstance(config.get(key), int)), None)


def _list(config: Mapping[str, Any], key: str) -> list[Any]:
    value = config.get(key)
    return value if isinstance(value, list) else []


def _entry(owner: Mapping[str, Any], key: str, layer: int, otherwise: list[Any]) -> Any:
    """Return what a config says of a layer, or, where it says nothing, what the other config does."""
    own = _list(owner, key)
    if len(own) == _layer_count(owner):
        return own[layer]
    if layer < len(otherwise):
        return otherwise[layer]
    raise CheckpointError(
        f"the config of a model to stack has no {key!r} for its layer {layer}. Add the list to its config.json, or "
        "stack layers of models that have it."
    )


def write_manifest(directory: Path) -> None:
    """Hash every file and write `unspoiled.json`; the directory counts as complete from then on."""
    files = {
        path.relative_to(directory).as_posix(): {"size": path.stat().st_size, "sha256": hash_file(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST_NAME
    }
    write_json_atomic(
        directory / MANIFEST_NAME,
        {"format": _FORMAT, "tool": f"unspoiled {__version__}", "files": files},
    )


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a checkpoint that we wrote.

    Raises:
        CheckpointError: there is none (the directory is incomplete or not ours), or it can't be read.
    """
    path = directory / MANIFEST_NAME
    if not path.exists():
        raise CheckpointError(
            f"{directory} has no {MANIFEST_NAME}: it is incomplete or unspoiled didn't write it. Merge again."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records = {
            name: FileRecord(int(entry["size"]), str(entry["sha256"])) for name, entry in content["files"].items()
        }
        return Manifest(str(content["tool"]).removeprefix("unspoiled "), MappingProxyType(records))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({type(error).__name__}: {error}). Merge again.") from error


def verify_manifest(directory: Path) -> None:
    """Compare every file with the manifest's sizes and hashes.

    Raises:
        CheckpointError: files are missing or changed, or weight files appeared; the message names each.
    """
    manifest = read_manifest(directory)
    problems = []
    for name, record in manifest.files.items():
        path = safe_path(directory, name)
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != record.size:
            problems.append(f"{name} has {path.stat().st_size} bytes instead of {record.size}")
        elif hash_file(path) != record.sha256:
            problems.append(f"{name} has another content (SHA-256) than was written")
    strange = sorted(path.name for path in directory.glob("*.safetensors") if path.name not in manifest.files)
    if strange:
        problems.append(f"weights that weren't written with it: {listed(strange)}")
    if problems:
        raise CheckpointError(f"{directory} is not as it was written: {'; '.join(problems)}. Merge or copy it again.")


def checkpoint_hash(directory: Path) -> str:
    """Return a hash of all that a checkpoint's answers depend on, by its manifest: weights, config, tokenizer.

    The card and the recipe are left out: the card is written again once there are results to put on it.

    Raises:
        CheckpointError: there is no manifest, or it can't be read.
    """
    files = read_manifest(directory).files.items()
    return hash_value({name: record.sha256 for name, record in files if name not in {"README.md", RECIPE_NAME}})


def _copy(source: Path, staging: Path, name: str) -> None:
    if (source / name).exists():
        write_atomic(staging / name, safe_path(source, name).read_bytes())


def _set_chat_template(staging: Path, template: str) -> None:
    """Write the template where transformers looks first, and take it out of the older places."""
    write_atomic(staging / "chat_template.jinja", template)
    (staging / "chat_template.json").unlink(missing_ok=True)
    if (staging / "tokenizer_config.json").exists():
        config = read_json(staging, "tokenizer_config.json")
        if config.pop("chat_template", None) is not None:
            write_json_atomic(staging / "tokenizer_config.json", config)
