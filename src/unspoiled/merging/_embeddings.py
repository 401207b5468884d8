"""Embeddings and heads of models whose vocabularies differ: rows in the order of the merged vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor

from unspoiled.checkpoints import (
    FromModel,
    FromToken,
    LowRankDelta,
    ModelSource,
    TokenRule,
    Vocabulary,
    Zero,
    merge_vocabularies,
)
from unspoiled.config import ModelToken, Recipe, Tokenizer, ZeroToken
from unspoiled.config import TokenRule as RecipeRule
from unspoiled.merging._device import DeviceRows
from unspoiled.merging._rows import RowReader, as_matrix


def recipe_vocabulary(recipe: Recipe, sources: Mapping[str, ModelSource]) -> Vocabulary | None:
    """Return the vocabulary that a recipe asks for; None if it asks for none, or every model has it already.

    Args:
        recipe: The recipe.
        sources: The opened models it names.

    Raises:
        PreflightError, CheckpointError: see `merge_vocabularies`.
    """
    wanted = recipe.tokenizer or (Tokenizer(source=recipe.tokenizer_source) if recipe.tokenizer_source else None)
    if wanted is None:
        return None
    vocabulary = merge_vocabularies(
        {name: sources[name] for name in recipe.model_names},
        base=recipe.base_model,
        source=wanted.source,
        rules={token: _rule(rule) for token, rule in wanted.tokens.items()},
        pad_to_multiple_of=wanted.pad_to_multiple_of,
    )
    return None if vocabulary.is_identity else vocabulary


@dataclass(frozen=True)
class MappedEmbedding:
    """One embedding (or head) of every model, in the rows of the merged vocabulary.

    Attributes:
        vocabulary: The merged vocabulary.
        sources: Every model that has a part in it, by the name that the vocabulary knows.
        name: The tensor's name, the same in all models.
    """

    vocabulary: Vocabulary
    sources: Mapping[str, ModelSource]
    name: str
    _last: dict[tuple[int, int], dict[str, Tensor]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the merged vocabulary."""
        some = next(iter(self.sources.values())).checkpoint.info(self.name)
        return (self.vocabulary.rows, *some.shape[1:])

    def rows(self, model: str, start: int, stop: int) -> Tensor:
        """Return rows [start, stop) of a model's tensor as a matrix, float32; a vector is one row."""
        if len(self.shape) < 2:
            start, stop = 0, self.vocabulary.rows
        with self._lock:  # the rows of all models come together, and are asked for one after the other
            if model not in self._last.get((start, stop), {}):
                self._last.clear()
                self._last[start, stop] = self.vocabulary.embedding_rows(start, stop, self._read)
            return as_matrix(self._last[start, stop].pop(model))  # given away: a block may be a whole embedding

    def _read(self, model: str, ids: Tensor) -> Tensor:
        source = self.sources[model]
        rows = _rows_of(source, self.name, ids).float()
        delta = source.delta(self.name)
        return rows if delta is None else rows.addmm(delta.b[ids].float() * delta.scale, delta.a.float())


@dataclass(frozen=True)
class MappedInput:
    """One model's part of a mapped embedding; it answers as `Input` does.

    Attributes:
        source: The opened model.
        name: The tensor's name there.
        model: The model's name in the vocabulary.
        embedding: The tensor of all models.
    """

    source: ModelSource
    name: str
    model: str
    embedding: MappedEmbedding

    def delta(self) -> LowRankDelta | None:
        """Return None: the rows hold the adapter's part already."""
        return None

    def rows(self, read: RowReader, start: int, stop: int) -> Tensor:
        """Return rows [start, stop) in the merged vocabulary, float32."""
        rows = self.embedding.rows(self.model, start, stop)
        return read.send(rows) if isinstance(read, DeviceRows) else rows


def _rows_of(source: ModelSource, name: str, ids: Tensor) -> Tensor:
    """Return rows of a model's own tensor, [n, width], or [n] of a vector; each run of ids is one read."""
    info = source.checkpoint.info(name)
    if len(info.shape) < 2:
        return source.read_rows(name, 0, 1).view(-1)[ids]
    ends = (ids[1:] != ids[:-1] + 1).nonzero().view(-1) + 1
    runs = torch.tensor_split(ids, ends.tolist()) if len(ids) else ()
    found = [source.read_rows(name, int(run[0]), int(run[-1]) + 1) for run in runs]
    return torch.cat(found) if found else torch.empty(0, info.matrix[1], dtype=info.dtype)


def _rule(rule: RecipeRule) -> TokenRule:
    match rule.source:
        case ZeroToken():
            return TokenRule(Zero(), rule.force)
        case ModelToken(model=model, token=token, token_id=token_id):
            return TokenRule(FromToken(model, token, token_id), rule.force)
        case _:
            return TokenRule(FromModel(rule.source), rule.force)
