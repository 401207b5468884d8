"""How many rows a model may write to at once: a number that was given, or what fits in the free memory."""

from __future__ import annotations

from typing import Any, Literal

import torch

from unspoiled.checkpoints import available_memory
from unspoiled.inference._cache import cache_argument, cache_bytes, new_cache
from unspoiled.merging import free_memory

BatchSize = int | Literal["auto"]
"""Most sequences written at once; `auto` for as many as the free memory holds."""

_USED_SHARE = 0.6  # of what is free; the rest is for what a layer computes and for copies of its cache
_MOST_ROWS = {"cpu": 64}  # more rows are no faster there
_MOST_ROWS_ELSEWHERE = 512
_BYTES_PER_LOGIT = 16  # the logits, in float32, their softmax and its sum
_PROBE = (8, 16)  # tokens


class Capacity:
    """How many rows fit; less after memory ran out.

    Args:
        model: A transformers causal language model.
        batch_size: See `BatchSize`.
    """

    def __init__(self, model: Any, batch_size: BatchSize) -> None:
        self.batch_size = batch_size
        self._model = model
        self._row_bytes = self._token_bytes = 0.0
        self._free = 0.0
        self._proven: float | None = None  # memory that was too little, halved

    def measure(self) -> None:
        """Look at how much memory is free; to be called while no batch is held."""
        if self.batch_size != "auto":
            return
        if not self._token_bytes:
            self._row_bytes, self._token_bytes = _cost(self._model)
        self._free = _USED_SHARE * _free_bytes(self._model.device)
        if self._proven is not None:
            self._free = min(self._free, self._proven)

    def rows(self, reach: int) -> int:
        """Return how many rows may be held at once, at least 1.

        Args:
            reach: The most tokens that one of them can come to have, prompt included.
        """
        if self.batch_size != "auto":
            return self.batch_size
        most = _MOST_ROWS.get(self._model.device.type, _MOST_ROWS_ELSEWHERE)
        return int(max(1, min(most, self._free // self._row(reach))))

    def shrink(self, rows: int, reach: int) -> bool:
        """Take note that memory ran out with `rows` rows of that reach; say whether fewer can be tried."""
        if rows <= 1:
            return False
        if self.batch_size == "auto":
            self._free = self._proven = rows // 2 * self._row(reach)
        else:
            self.batch_size = rows // 2
        return True

    def _row(self, reach: int) -> float:
        return self._row_bytes + reach * self._token_bytes


def memory_ran_out(error: RuntimeError) -> bool:
    """Say whether an error means that a device has no room; on the CPU and some others torch raises a plain one."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text


def _cost(model: Any) -> tuple[float, float]:
    """Return the bytes that a row takes, and each of its tokens: what the cache of two short rows holds says it."""
    held = []
    for tokens in _PROBE:
        cache = new_cache(model)
        ids = torch.zeros(1, tokens, dtype=torch.long, device=model.device)
        model(input_ids=ids, use_cache=True, logits_to_keep=1, **cache_argument(model, cache))
        held.append(cache_bytes(cache))
    per_token = (held[1] - held[0]) / (_PROBE[1] - _PROBE[0])
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return held[0] - per_token * _PROBE[0] + _BYTES_PER_LOGIT * vocabulary, per_token


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return free_memory(device)
    found = available_memory()
    return float("inf") if found is None else found  # the number of rows has a limit, and running out is survived
