"""Work done once for what many sequences begin with: the attention cache of a shared prefix."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from unspoiled.inference._cache import cache_argument, keeps_all, new_cache

_WORTH_SHARING = 4  # tokens


class SharedPrefix:
    """The attention cache of the tokens that all prompts begin with, computed once.

    A chat template's default system message, or one request put many times, is the same in every prompt. The
    last token of a prompt is never part of the prefix, as its output is needed.

    Args:
        model: A transformers causal language model.
        prompts: The prompts' token ids.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._cache: Any = None
        self.length = common_prefix(prompts)
        if self.length < _WORTH_SHARING or len(prompts) < 2 or not keeps_all(model):
            self.length = 0
            return
        ids = torch.tensor([list(prompts[0][: self.length])], device=model.device)
        self._cache = new_cache(model)
        model(input_ids=ids, use_cache=True, logits_to_keep=1, **cache_argument(model, self._cache))

    def cache(self, rows: int) -> Any:
        """Return a cache for `rows` sequences that holds the prefix; an empty one where nothing is shared."""
        if self._cache is None:
            return new_cache(self._model)
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, less than the length of the shortest."""
    if not prompts:
        return 0
    first, last = min(map(list, prompts)), max(map(list, prompts))  # whatever these two share, all between them share
    limit = min(map(len, prompts)) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length
