"""The tokens of one model: what its tokenizer.json says, and what its configs add to that when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unspoiled.checkpoints._reader import read_json
from unspoiled.errors import CheckpointError

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class ModelTokens:
    """The tokens of a model that has a tokenizer.json.

    Attributes:
        directory: The tokenizer's directory.
        content: The content of tokenizer.json.
        ids: Every token's id, added tokens included.
        added: The added tokens' entries of tokenizer.json (`content`, `id` and the flags `special`, `lstrip`,
            `rstrip`, `normalized`, `single_word`) by their text.
    """

    directory: Path
    content: Mapping[str, Any]
    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]

    @property
    def model(self) -> Mapping[str, Any]:
        """The `model` section of tokenizer.json."""
        return self.content["model"]  # type: ignore[no-any-return]


def added_token(text: str, token_id: int, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an added token's entry as tokenizer.json has it; flags that aren't given are false."""
    return {"id": token_id, "content": text} | {flag: bool((flags or {}).get(flag, False)) for flag in _FLAGS}


def differing_flags(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the flags in which two added tokens differ."""
    return [flag for flag in _FLAGS if bool(one.get(flag, False)) != bool(other.get(flag, False))]


def read_model_tokens(directory: Path) -> ModelTokens:
    """Read the tokens of a tokenizer.json.

    Tokens that only tokenizer_config.json or added_tokens.json name (an added `[PAD]`, often) count too, under
    the next free ids, since transformers adds them so when it loads the tokenizer.

    Raises:
        CheckpointError: no tokenizer.json, a damaged one, or two tokens with one id.
    """
    path = directory / "tokenizer.json"
    if not path.exists():
        raise CheckpointError(
            f"{directory} has no tokenizer.json, without which its tokens can't be compared with the other models'. "
            "Write one with transformers: AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)."
        )
    content = read_json(directory, "tokenizer.json")
    ids = _vocabulary(path, content)
    added: dict[str, Mapping[str, Any]] = {}
    for entry in content.get("added_tokens") or []:
        if not (isinstance(entry, Mapping) and isinstance(entry.get("content"), str) and _is_id(entry.get("id"))):
            raise CheckpointError(f"{path}: the added token {entry!r} has no text or no id. Get the file again.")
        text = entry["content"]
        token_id = ids.setdefault(text, entry["id"])  # the vocabulary's id holds where both have one
        added[text] = added_token(text, token_id, entry)
    for text, flags in _named_in_configs(directory).items():
        if text not in ids:
            ids[text] = max(ids.values(), default=-1) + 1
            added[text] = added_token(text, ids[text], flags)
    if len(set(ids.values())) != len(ids):
        raise _shared_id(path, ids)
    return ModelTokens(directory, content, MappingProxyType(ids), MappingProxyType(added))


def _vocabulary(path: Path, content: Mapping[str, Any]) -> dict[str, int]:
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    try:
        if isinstance(vocabulary, list):  # Unigram: [token, score], the id is the position
            return {str(token): index for index, (token, _score) in enumerate(vocabulary)}
        if isinstance(vocabulary, dict) and all(_is_id(token_id) for token_id in vocabulary.values()):
            return dict(vocabulary)
    except (TypeError, ValueError):
        pass
    raise CheckpointError(f"{path} has no vocabulary that can be read. Get the file again.")


def _named_in_configs(directory: Path) -> dict[str, Mapping[str, Any]]:
    """Return the tokens, with their flags, that the files beside tokenizer.json name, in the order of loading."""
    named: dict[str, Mapping[str, Any]] = {}
    config = read_json(directory, "tokenizer_config.json") if (directory / "tokenizer_config.json").exists() else {}
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, Mapping):
        entries = {int(key): value for key, value in decoder.items() if str(key).isdecimal()}
        for _, entry in sorted(entries.items()):
            if isinstance(entry, Mapping) and isinstance(entry.get("content"), str):
                named[entry["content"]] = entry
    elif (directory / "added_tokens.json").exists():
        ids = read_json(directory, "added_tokens.json")
        named |= {text: {} for text in sorted(ids, key=lambda text: int(ids[text]) if _is_id(ids[text]) else 0)}
    roles = [config.get(role) for role in _ROLES]
    further = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    roles += list(further.values()) if isinstance(further, Mapping) else list(further)
    for value in roles:
        text = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(text, str) and text:
            flags = value if isinstance(value, Mapping) else {}
            named.setdefault(text, {**flags, "special": True})
    return named


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shared_id(path: Path, ids: Mapping[str, int]) -> CheckpointError:
    seen: dict[int, str] = {}
    for token, token_id in ids.items():
        if token_id in seen:
            return CheckpointError(
                f"{path}: the tokens {seen[token_id]!r} and {token!r} have the same id {token_id}. Correct the file."
            )
        seen[token_id] = token
    raise AssertionError("no id is shared")
