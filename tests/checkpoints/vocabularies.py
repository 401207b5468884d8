"""Models of different vocabularies for the tests: an embedding whose rows say whose they are, and a tokenizer."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tiny import tiny_tokenizer
from unspoiled.checkpoints import ModelRef, ModelSource, open_model

EMBEDDING = "model.embed_tokens.weight"
WIDTH = 4


def save_model(
    path: Path,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    add: tuple[str | AddedToken, ...] = (),
    rows: int | None = None,
    seed: int = 0,
    width: int = WIDTH,
) -> ModelSource:
    """Save a checkpoint that is an embedding of `rows` random rows (one per token by default); return it opened."""
    tokenizer = tiny_tokenizer() if tokenizer is None else tokenizer
    for token in add:
        tokenizer.add_tokens(token if isinstance(token, AddedToken) else AddedToken(token, special=True))
    tokenizer.save_pretrained(path)
    rows = len(tokenizer) if rows is None else rows
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    save_file({EMBEDDING: weight}, path / "model.safetensors")
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = {"model_type": "llama", "tie_word_embeddings": True, "vocab_size": rows} | ids
    (path / "config.json").write_text(json.dumps(config))
    return open_model(ModelRef(str(path)))


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def embedding(model: ModelSource) -> Tensor:
    return model.read(EMBEDDING).clone()


def reader(models: Mapping[str, ModelSource]) -> Callable[[str, Tensor], Tensor]:
    tensors = {name: embedding(model) for name, model in models.items()}
    return lambda name, ids: tensors[name][ids]


def permuted(model: ModelSource, path: Path, order: list[int]) -> ModelSource:
    """Save the same model with other ids: what was token i, with its row, is token order[i]."""
    path.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        (path / name).write_bytes((model.directory / name).read_bytes())
    content = json.loads((model.directory / "tokenizer.json").read_text())
    content["model"]["vocab"] = {token: order[index] for token, index in content["model"]["vocab"].items()}
    for entry in content["added_tokens"]:
        # the library numbers added tokens behind the vocabulary, so one with another id must be part of it
        entry["id"] = content["model"]["vocab"].setdefault(entry["content"], order[entry["id"]])
    content["added_tokens"].sort(key=lambda entry: entry["id"])
    (path / "tokenizer.json").write_text(json.dumps(content))
    moved = torch.empty_like(embedding(model))
    moved[torch.tensor(order)] = embedding(model)
    save_file({EMBEDDING: moved}, path / "model.safetensors")
    return open_model(ModelRef(str(path)))
