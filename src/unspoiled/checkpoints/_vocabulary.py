"""The vocabulary of a merged model, and every model's embedding rows in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unspoiled.checkpoints._merged_tokenizer import MergedTokenizer

ReadRows = Callable[[str, Tensor], Tensor]
"""(model, ids int64 [n]) -> [n, width] or [n]: rows of the model's own tensor."""

_BLOCK = 8192
_TOKEN_ID_KEYS = ("_token_id", "_token_ids", "_token_index")


@dataclass(frozen=True)
class FromModel:
    """The row that a model has for the token itself."""

    model: str


@dataclass(frozen=True)
class Zero:
    """A row of zeros."""


@dataclass(frozen=True)
class FromToken:
    """The row that a model has for another token, named by its text or by its id (one of the two)."""

    model: str
    token: str | None = None
    token_id: int | None = None

    def __post_init__(self) -> None:
        if (self.token is None) == (self.token_id is None):
            raise ValueError("give either the token's text or its id")


@dataclass(frozen=True)
class TokenRule:
    """Where the row of one token comes from in models that lack it; with `force`, in all models."""

    source: FromModel | Zero | FromToken
    force: bool = False


@dataclass(frozen=True)
class MeanOf:
    """A row that is the mean of rows `(model, id)`; of none, zeros."""

    of: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The vocabulary of a merged model.

    Attributes:
        size: The number of ids, 0 to size - 1, that tokens have; without padding.
        rows: The rows of the merged embedding: `size`, or more for padding.
        token_ids: The id of every token; empty for models that are used as they are and have no tokenizer.json.
        donor: The name of the model that gives the tokenizer; its tokens keep their ids.
        notes: What differs between the models and what was done about it, for people to read.
    """

    size: int
    rows: int
    token_ids: Mapping[str, int]
    donor: str
    notes: tuple[str, ...]
    _own: Mapping[str, Tensor]  # by model: int64 [rows], the model's own id for each row, -1 for none
    _lent: Mapping[int, MeanOf | None]  # for rows that a model lacks; None is the mean of the donor's rows
    _model_rows: Mapping[str, int]
    _donor_size: int  # the ids, from 0, that the donor's tokens have in its own tensor
    _tokenizer: MergedTokenizer

    @property
    def is_identity(self) -> bool:
        """Whether every model's embedding rows can be used as they are: same tokens, ids, and number of rows."""
        same_rows = all(count == self.rows for count in self._model_rows.values())
        return same_rows and all(torch.equal(own, torch.arange(self.rows)) for own in self._own.values())

    def embedding_rows(self, start: int, stop: int, read: ReadRows) -> dict[str, Tensor]:
        """Return rows [start, stop) of every model's embedding, head or head bias in the merged vocabulary.

        Blocks with new padding read all of the donor's rows, 8192 at a time, for their mean.

        Args:
            start: The first row, from 0.
            stop: The row after the last, up to `rows`.
            read: Returns rows of a model's own tensor: (model, ids int64 [n]) -> [n, width] (or [n]), any dtype;
                n may be 0.

        Returns:
            float32 [stop - start, width] (or [stop - start]) by model.
        """
        if not 0 <= start <= stop <= self.rows:
            raise ValueError(f"rows {start} to {stop} are not within 0 to {self.rows}")
        own = {model: ids[start:stop] for model, ids in self._own.items()}
        found = {model: read(model, ids[ids >= 0]).to(torch.float32) for model, ids in own.items()}
        lacking = torch.stack([ids < 0 for ids in own.values()]).any(0).nonzero().flatten()
        if not len(lacking):
            return found
        width = next(iter(found.values())).shape[1:]
        lent = torch.zeros(stop - start, *width)
        lent[lacking] = self._lend([start + int(row) for row in lacking], width, read)
        result = {}
        for model, ids in own.items():
            result[model] = found[model]
            if len(found[model]) < len(ids):
                result[model] = lent.clone()
                result[model][ids >= 0] = found[model]
        return result

    def _lend(self, rows: Sequence[int], width: torch.Size, read: ReadRows) -> Tensor:
        """Return the rows, float32 [n, width], that models without a row of their own get."""
        lent = torch.zeros(len(rows), *width)
        counts = torch.ones(len(rows))
        wanted: dict[str, list[tuple[int, int]]] = {model: [] for model in self._own}
        unheard = []
        for place, row in enumerate(rows):
            source = self._lent[row]
            if source is None:
                unheard.append(place)
                continue
            counts[place] = max(len(source.of), 1)
            for model, token_id in source.of:
                wanted[model].append((place, token_id))
        for model, pairs in wanted.items():
            if pairs:
                places, ids = torch.tensor(pairs).unbind(1)
                lent[places] += read(model, ids).to(torch.float32)
        lent /= counts.reshape(-1, *[1] * len(width))
        if unheard:
            lent[unheard] = self._donor_mean(width, read)
        return lent

    def _donor_mean(self, width: torch.Size, read: ReadRows) -> Tensor:
        total = torch.zeros(width, dtype=torch.float64)
        for start in range(0, self._donor_size, _BLOCK):
            total += (
                read(self.donor, torch.arange(start, min(start + _BLOCK, self._donor_size))).to(torch.float64).sum(0)
            )
        return (total / self._donor_size).to(torch.float32)

    def config(self, config: Mapping[str, Any], donor: Mapping[str, Any]) -> dict[str, Any]:
        """Return a merged model's config with this vocabulary's size and the donor's special tokens' ids.

        Args:
            config: The config of the model that gives the merge its architecture.
            donor: The config of the tokenizer's donor, whose ids hold in this vocabulary.
        """

        def adapt(section: Mapping[str, Any], theirs: Mapping[str, Any], *, top: bool) -> dict[str, Any]:
            result = {key: value for key, value in section.items() if not key.endswith(_TOKEN_ID_KEYS)}
            result |= {key: value for key, value in theirs.items() if key.endswith(_TOKEN_ID_KEYS)}
            text = section.get("text_config")
            if isinstance(text, Mapping):
                their_text = theirs.get("text_config")
                result["text_config"] = adapt(text, their_text if isinstance(their_text, Mapping) else {}, top=False)
            if "vocab_size" in section or not (top and isinstance(text, Mapping)):
                result["vocab_size"] = self.rows
            return result

        return adapt(config, donor, top=True)


def write_tokenizer(vocabulary: Vocabulary, directory: Path) -> None:
    """Write the merged vocabulary's tokenizer so that transformers loads it with the ids of `token_ids`.

    The files are the donor's, chat template and generation config included, unchanged where the vocabulary is the
    donor's. Otherwise tokenizer.json is extended, and files that say the same in other forms (tokenizer.model,
    vocab.json, merges.txt ...) are left out. Then `finish_checkpoint(..., tokenizer=directory)`.

    Raises:
        CheckpointError: the donor's tokenizer has a link out of its directory.
    """
    vocabulary._tokenizer.write(directory)
