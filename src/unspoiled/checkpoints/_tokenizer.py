"""Tokenizers and chat templates as files: what a model reads its text through, and how two of them differ."""

import json
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

from unspoiled.checkpoints._reader import read_json, safe_path
from unspoiled.errors import CheckpointError
from unspoiled.files import hash_file, hash_value

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json"),
)
"""Every file that may belong to a tokenizer, in the names transformers gives them."""

MAX_TEMPLATE_BYTES = 1_000_000
"""The largest chat template that is read; real ones are below 50 kB, and a template runs in every request."""

_MODEL_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt")
_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
_SHOWN_TOKENS = 5
_SHOWN_DIFF_LINES = 20


def chat_template(directory: Path) -> str | None:
    """Return a model's default chat template (Jinja source, not rendered), or None if it has none.

    Raises:
        CheckpointError: a damaged tokenizer_config.json, a link out of the directory, or a template of more than
            `MAX_TEMPLATE_BYTES`.
    """
    if (directory / "chat_template.jinja").exists():
        path = safe_path(directory, "chat_template.jinja")
        _require_template_size(path, path.stat().st_size)
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is not UTF-8 text ({error}). Get the file again.") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (directory / name).exists():
            found = _default_template(read_json(directory, name).get("chat_template"))
            if found is not None:
                _require_template_size(directory / name, len(found.encode("utf-8", "surrogatepass")))
                return found
    return None


def hash_tokenizer(directory: Path) -> str:
    """Return a hash of the files of a tokenizer and its chat template, by their names; links are followed."""
    present = [name for name in TOKENIZER_FILES if (directory / name).is_file()]
    return hash_value([[name, hash_file(directory / name)] for name in present])


def _require_template_size(path: Path, size: int) -> None:
    if size > MAX_TEMPLATE_BYTES:
        raise CheckpointError(
            f"{path}: the chat template has {size:,} bytes, and at most {MAX_TEMPLATE_BYTES:,} are read. Replace it "
            "by the template of the model that this one was tuned from."
        )


def _default_template(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # named templates: [{"name": ..., "template": ...}, ...]
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        template = named.get("default")
        return template if isinstance(template, str) else None
    return None


def tokenizer_signature(directory: Path) -> str:
    """Return a SHA-256 of what makes ids out of text: vocabulary, merges, added tokens, splitting rules.

    Equal signatures mean equal ids for every text; serialisation details (key order, merges as strings or
    pairs, padding and truncation settings) don't count.

    Raises:
        CheckpointError: the directory has no tokenizer, or a damaged one.
    """
    if not (directory / "tokenizer.json").exists():
        for name in _MODEL_FILES:
            if (directory / name).exists():
                return hash_value([name, hash_file(safe_path(directory, name))])
        raise CheckpointError(f"{directory} has no tokenizer (no tokenizer.json). Copy the tokenizer's files there.")
    content = _content(directory)
    return hash_value(
        {key: value for key, value in content.items() if key != "ids"} | {"ids": sorted(content["ids"].items())}
    )


def compare_tokenizers(first: Path, second: Path) -> list[str]:
    """Return how the second model's tokenizer and chat template differ from the first's, one item each.

    An empty list means that both read and write text alike. See `vocabulary_differences` for those that make
    the models' embedding rows mean different tokens.
    """
    return vocabulary_differences(first, second) + template_differences(first, second)


def vocabulary_differences(first: Path, second: Path) -> list[str]:
    """Return the differences that change ids: vocabulary, merges, added tokens, splitting rules."""
    if tokenizer_signature(first) == tokenizer_signature(second):
        return []
    if not ((first / "tokenizer.json").exists() and (second / "tokenizer.json").exists()):
        return ["the tokenizers are stored in different files or forms, so they can't be compared token by token"]
    one, other = _content(first), _content(second)
    differences: list[str] = []
    if len(one["ids"]) != len(other["ids"]):
        differences.append(f"vocabulary size: {len(one['ids'])} and {len(other['ids'])}")
    moved = [
        f"{token!r} ({one['ids'].get(token, 'absent')} and {other['ids'].get(token, 'absent')})"
        for token in sorted(one["ids"].keys() | other["ids"].keys())
        if one["ids"].get(token) != other["ids"].get(token)
    ]
    if moved:
        rest = f" and {len(moved) - _SHOWN_TOKENS} more" if len(moved) > _SHOWN_TOKENS else ""
        differences.append(f"token ids: {', '.join(moved[:_SHOWN_TOKENS])}{rest}")
    for key, label in (
        ("model", "model (merges, scores or settings)"),
        ("added_tokens", "properties of added or special tokens"),
        ("normalizer", "text normalisation"),
        ("pre_tokenizer", "splitting of text into words"),
    ):
        if one[key] != other[key]:
            differences.append(f"{label}: not the same")
    return differences


def template_differences(first: Path, second: Path) -> list[str]:
    """Return the differences that don't change ids: the special tokens' roles and the chat template."""
    differences = []
    one, other = (_special_tokens(directory) for directory in (first, second))
    for role in _SPECIAL_TOKENS:
        if one.get(role) != other.get(role):
            differences.append(f"{role}: {one.get(role)!r} and {other.get(role)!r}")
    templates = (chat_template(first), chat_template(second))
    if templates[0] != templates[1]:
        if None in templates:
            differences.append(f"chat template: only {first if templates[1] is None else second} has one")
        else:
            differences.append("chat template:\n" + _diff(templates[0] or "", templates[1] or "", first, second))
    return differences


def _diff(one: str, other: str, first: Path, second: Path) -> str:
    lines = list(unified_diff(one.splitlines(), other.splitlines(), str(first), str(second), lineterm="", n=1))
    if len(lines) > _SHOWN_DIFF_LINES:
        lines = [*lines[:_SHOWN_DIFF_LINES], f"... and {len(lines) - _SHOWN_DIFF_LINES} more lines"]
    if not lines:  # the texts differ in line ends only
        lines = ["(only in line ends)"]
    return "\n".join(lines)


def _special_tokens(directory: Path) -> dict[str, str | None]:
    if not (directory / "tokenizer_config.json").exists():
        return {}
    config = read_json(directory, "tokenizer_config.json")
    values = {role: config.get(role) for role in _SPECIAL_TOKENS}
    return {role: value.get("content") if isinstance(value, dict) else value for role, value in values.items()}


def _content(directory: Path) -> dict[str, Any]:
    """Return what decides a tokenizer's ids, in a form that can be compared."""
    raw = read_json(directory, "tokenizer.json")
    model = raw.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise CheckpointError(f"{directory / 'tokenizer.json'} has no vocabulary. Get the file again.")
    added = [token for token in raw.get("added_tokens") or [] if isinstance(token, Mapping)]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [token, score], the id is the position
        ids = {str(token[0]): index for index, token in enumerate(vocabulary)}
        scores = hash_value([token[1] for token in vocabulary])
    else:
        ids, scores = dict(vocabulary), ""
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or []]
    settings = {key: value for key, value in model.items() if key not in {"vocab", "merges"}}
    return {
        "ids": ids | {token["content"]: token["id"] for token in added},
        "model": hash_value([settings, merges, scores]),
        "added_tokens": sorted(json.dumps(token, sort_keys=True) for token in added),
        "normalizer": raw.get("normalizer"),
        "pre_tokenizer": raw.get("pre_tokenizer"),
    }
