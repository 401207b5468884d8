"""Tied embeddings: the output head that is the input embedding under another name.

A checkpoint may leave the tied head out (the usual form), store a copy of it, or contradict its own config.
Everything else in this package sees one form: the head is not among the tensors, and `aliases` says which
tensor it shares.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Any

_SHARED = ("shared.weight", "model.shared.weight")
"""The embedding of an encoder and its decoder; old checkpoints store copies of it beside it."""

_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "backbone.embeddings.weight",
)
_HEADS = ("lm_head.weight", "embed_out.weight", "language_model.lm_head.weight", "output.weight")


_FURTHER_HEADS = ("shared_head.head.weight",)  # of the layers that predict several tokens ahead
_HEAD_BIASES = ("lm_head.bias", "embed_out.bias")


def embedding_names(tensors: Iterable[str]) -> tuple[str, ...]:
    """Return the tensors that have one row per token: input embeddings, stored output heads, their biases.

    Args:
        tensors: The checkpoint's tensors by name; only names are looked at.
    """
    return tuple(name for name in tensors if name.endswith(_EMBEDDINGS + _FURTHER_HEADS) or _is_head(name))


def _is_head(name: str) -> bool:
    """Tell heads, at the top or in a part of a composite model, from a layer's `output.weight`."""
    parts = name.split(".")
    last = ".".join(parts[-2:])
    return last in _HEADS + _HEAD_BIASES and not any(part.isdigit() for part in parts)


def says_tied(config: Mapping[str, Any]) -> bool | None:
    """Return `tie_word_embeddings` of a config or of its text part; None if it says nothing."""
    text = config.get("text_config")
    for section in (config, text if isinstance(text, Mapping) else {}):
        if isinstance(section.get("tie_word_embeddings"), bool):
            return bool(section["tie_word_embeddings"])
    return None


def tied_names(config: Mapping[str, Any], tensors: Mapping[str, object]) -> dict[str, str]:
    """Return the output head's name → the input embedding's name, or nothing for an untied model.

    The config decides; when it is silent, the model is tied exactly if no head is stored. The head may be
    among `tensors` (a stored copy) or not. Whether a stored copy is equal is for the caller to check.

    Args:
        config: The content of config.json.
        tensors: The checkpoint's tensors by name; only names are looked at.
    """
    embeddings = [name for name in _SHARED if name in tensors] or [
        name for name in tensors if name.endswith(_EMBEDDINGS)
    ]
    stored = stored_head(tensors)
    tied = says_tied(config)
    if len(embeddings) != 1 or tied is False or (tied is None and stored is not None):
        return {}
    inside = embeddings[0].startswith("language_model.")
    return {stored or ("language_model.lm_head.weight" if inside else _HEADS[0]): embeddings[0]}


def stored_head(tensors: Container[str]) -> str | None:
    """Return the name of the output head among these tensors, or None if no head is stored."""
    return next((name for name in _HEADS if name in tensors), None)


def is_input_side(name: str) -> bool:
    """Tell whether a tensor outside of layers precedes them (embeddings of tokens, positions, images), not follows."""
    if name.endswith(_HEADS) and not name.endswith(_EMBEDDINGS):
        return False
    embeddings = ("embed", "wte", "wpe", "word_embeddings", "tok_embeddings")
    return any(part.startswith(embeddings) for part in name.split("."))
