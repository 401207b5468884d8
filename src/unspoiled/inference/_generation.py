"""Writing tokens after many prompts at once, in the memory there is.

Rows leave the batch as they finish, and prompts that wait take their places: they are read in a group, whose cache
joins the batch's. Where memory runs out the batch is given up, and its rows wait again, with what was written to them,
for a smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unspoiled.inference._cache import cache_argument, cut_columns, has_columns, join, keep_rows, keeps_all
from unspoiled.inference._capacity import BatchSize, Capacity, memory_ran_out
from unspoiled.inference._prefix import SharedPrefix
from unspoiled.inference._protocols import Completion
from unspoiled.inference._sampling import choose, open_stream

_TOKENS_READ_AT_ONCE = 4096  # padding included: what a long prompt's layers compute takes memory too
_REFILL_SHARE = 0.25  # of the batch is left before others join: a group is read faster than one by one


@dataclass(frozen=True)
class Manner:
    """How tokens are chosen, and what is noted of them.

    Args:
        max_new_tokens: Most tokens written to a row.
        temperature: 0 is greedy; otherwise the softmax temperature of plain sampling.
        seeds: The seed of each row's own random stream; unused where greedy.
        watch: Token ids whose log-probability is noted at every place written.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seeds: Sequence[int] = ()
    watch: Sequence[int] = ()


class TokenWriter:
    """Continues token ids with a causal language model.

    Args:
        model: A transformers causal language model, in evaluation mode.
        stop: The token ids that end a row.
        batch_size: Most rows at once; less after memory ran out.
    """

    def __init__(self, model: Any, stop: Collection[int], *, batch_size: BatchSize) -> None:
        self.capacity = Capacity(model, batch_size)
        self._model = model
        self._stop = frozenset(stop)
        self._refills = keeps_all(model)

    @torch.inference_mode()
    def write(self, prompts: Sequence[Sequence[int]], manner: Manner) -> Iterator[tuple[int, Completion]]:
        """Yield (position, what was written after its prompt) as rows finish, those with long prompts begun first.

        Args:
            prompts: Token ids, each at least one.
            manner: How to choose tokens.

        Raises:
            RuntimeError: One row alone is too much for the memory.
            ValueError: A prompt has no tokens.
        """
        for position, prompt in enumerate(prompts):
            if not prompt:
                raise ValueError(f"prompt {position} has no tokens: give it at least one to continue.")
        self.capacity.measure()
        yield from _Writing(self._model, self._stop, self.capacity, self._refills, prompts, manner).run()


@dataclass
class _Row:
    """A prompt, by its position, and what has been written after it so far."""

    position: int
    prompt: Sequence[int]
    stream: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    watched: list[tuple[float, ...]] = field(default_factory=list)


@dataclass
class _Batch:
    """Rows that every forward pass writes a token to.

    The cache has a column for each of a row's ids but the one written last. First come those of the shared prefix, then
    padding, then the row's own.

    Args:
        rows: The rows.
        mask: 1 where a column is a token of the row, 0 where it is padding [rows, columns].
        cache: The attention cache.
    """

    rows: list[_Row]
    mask: Tensor
    cache: Any


class _Writing:
    """One call of `TokenWriter.write`: the rows that wait, and those at work, which are the batch's."""

    def __init__(
        self,
        model: Any,
        stop: frozenset[int],
        capacity: Capacity,
        refills: bool,
        prompts: Sequence[Sequence[int]],
        manner: Manner,
    ) -> None:
        self._model = model
        self._stop = stop
        self._capacity = capacity
        self._refills = refills
        self._prompts = prompts
        self._manner = manner
        self._prefix = SharedPrefix(model, prompts)
        self._waiting = sorted(range(len(prompts)), key=lambda position: len(prompts[position]))  # the last is next
        self._begun: dict[int, _Row] = {}  # those that wait again
        self._at_work: list[_Row] = []
        self._batch: _Batch | None = None

    def run(self) -> Iterator[tuple[int, Completion]]:
        while self._at_work or self._waiting:
            try:
                self._advance()
            except RuntimeError as error:
                reach = self._reach(row.position for row in self._at_work)
                if not memory_ran_out(error) or not self._capacity.shrink(len(self._at_work), reach):
                    raise
                self._batch = None
            done = [row for row in self._at_work if self._is_finished(row)]
            self._at_work = [row for row in self._at_work if not self._is_finished(row)]
            if self._batch is None:
                self._wait_again()
            for row in done:
                yield row.position, Completion(tuple(row.tokens), row.tokens[-1] in self._stop, tuple(row.watched))

    def _advance(self) -> None:
        """Let waiting rows join, or else write a token to every row."""
        self._let_leave()
        joining = self._take_waiting()
        if joining:
            self._at_work = [*self._at_work, *joining]
            self._join(self._read(joining))
        else:
            assert self._batch is not None
            self._batch.mask = torch.cat([self._batch.mask, self._batch.mask.new_ones(len(self._at_work), 1)], dim=1)
            self._forward(self._batch, [row.tokens[-1:] for row in self._at_work])

    def _is_finished(self, row: _Row) -> bool:
        return bool(row.tokens) and (row.tokens[-1] in self._stop or len(row.tokens) == self._manner.max_new_tokens)

    def _reach(self, positions: Iterator[int]) -> int:
        """Return the most tokens that one of the rows can come to have."""
        return max(len(self._prompts[position]) for position in positions) + self._manner.max_new_tokens

    def _take_waiting(self) -> list[_Row]:
        """Return the rows that begin now: none while fewer places are free than are worth reading a group for."""
        if not self._waiting or (self._at_work and not self._refills):
            return []
        size = self._capacity.rows(self._reach(iter([self._waiting[-1], *(row.position for row in self._at_work)])))
        places = min(size - len(self._at_work), len(self._waiting))
        if self._at_work and places < min(math.ceil(_REFILL_SHARE * size), len(self._waiting)):
            return []
        if self._refills:
            own = len(self._prompts[self._waiting[-1]]) - self._prefix.length
            places = min(places, max(1, _TOKENS_READ_AT_ONCE // own))
        return [self._begin(self._waiting.pop()) for _ in range(places)]

    def _begin(self, position: int) -> _Row:
        row = self._begun.pop(position, None) or _Row(position, self._prompts[position], None)
        if self._manner.temperature > 0:  # anew for a row that waited again: it may have drawn and not written
            row.stream = open_stream(self._manner.seeds[position], drawn=len(row.tokens))
        return row

    def _wait_again(self) -> None:
        """Put rows whose batch is lost before all others, in the order they had."""
        for row in reversed(self._at_work):
            self._begun[row.position] = row
            self._waiting.append(row.position)
        self._at_work = []

    def _read(self, rows: list[_Row]) -> _Batch:
        """Return a batch of rows that begin, with their first token written."""
        shared = self._prefix.length
        own = [[*row.prompt[shared:], *row.tokens] for row in rows]
        width = max(map(len, own))
        ids = [[0] * (width - len(each)) + each for each in own]
        mask = [[1] * shared + [0] * (width - len(each)) + [1] * len(each) for each in own]
        batch = _Batch(rows, torch.tensor(mask, device=self._model.device), self._prefix.cache(len(rows)))
        self._forward(batch, ids)
        return batch

    def _join(self, group: _Batch) -> None:
        if self._batch is None:
            self._batch = group
            return
        batch, shared = self._batch, self._prefix.length
        columns = max(batch.mask.shape[1], group.mask.shape[1])
        masks = []
        for mask in (batch.mask, group.mask):
            padding = mask.new_zeros(len(mask), columns - mask.shape[1])
            masks.append(torch.cat([mask[:, :shared], padding, mask[:, shared:]], dim=1))
        join(batch.cache, group.cache, shared)
        self._batch = _Batch(batch.rows + group.rows, torch.cat(masks), batch.cache)

    def _let_leave(self) -> None:
        """Let finished rows leave the batch, and the columns that only they needed."""
        batch = self._batch
        if batch is None or len(batch.rows) == len(self._at_work):
            return
        if not self._at_work:
            self._batch = None
            return
        kept = [k for k, row in enumerate(batch.rows) if not self._is_finished(row)]
        indices = torch.tensor(kept, device=batch.mask.device)
        keep_rows(batch.cache, indices)
        batch.rows, batch.mask = self._at_work, batch.mask[indices]
        if self._refills:
            padding = batch.mask.shape[1] - int(batch.mask.sum(1).max())
            end = self._prefix.length + padding
            if padding:
                cut_columns(batch.cache, self._prefix.length, end)
                batch.mask = torch.cat([batch.mask[:, : self._prefix.length], batch.mask[:, end:]], dim=1)

    def _forward(self, batch: _Batch, ids: list[list[int]]) -> None:
        """Let the model read ids [rows, tokens], which the mask knows of already, and write one token to every row."""
        manner = self._manner
        positions = (batch.mask.cumsum(1) - 1).clamp(min=0)[:, -len(ids[0]) :]
        mask = batch.mask if has_columns(batch.cache) or len(ids[0]) > 1 else None  # a state has no padding to mask
        output = self._model(
            input_ids=torch.tensor(ids, device=self._model.device),
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **cache_argument(self._model, batch.cache),
        )
        logits = output.logits[:, -1].float()
        chosen = choose(logits, manner.temperature, [row.stream for row in batch.rows if row.stream]).tolist()
        values = torch.log_softmax(logits, dim=-1)[:, list(manner.watch)].tolist() if manner.watch else []
        for row, token in zip(batch.rows, chosen, strict=True):  # nothing from here on can run out of memory
            row.tokens.append(token)
        for row, watched in zip(batch.rows, values, strict=bool(values)):
            row.watched.append(tuple(watched))
