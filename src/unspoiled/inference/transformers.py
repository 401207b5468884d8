"""Generation and scoring with a transformers model in this process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unspoiled.inference._chat import ChatTemplate
from unspoiled.inference._prefix import SharedPrefix
from unspoiled.inference._protocols import Exchange, Progress, Prompt, ResponseScore, Sample, silent

_TOKENS_PER_BATCH = 2048
Encoded = tuple[tuple[int, ...], tuple[int, ...]]
"""The token ids of a prompt and of its response."""


class TransformersBackend:
    """A causal language model that writes and scores in batches; a `Generator` and a `Scorer`.

    Args:
        model: A transformers causal language model, in evaluation mode.
        template: Its tokenizer and chat template.
        batch_size: Most sequences generated at once; halved when memory runs out.
    """

    def __init__(self, model: Any, template: ChatTemplate, *, batch_size: int = 48) -> None:
        self.model = model
        self.template = template
        self.batch_size = batch_size
        stop = model.generation_config.eos_token_id
        self._stop = {template.end_of_turn, *(stop if isinstance(stop, list) else [stop])} - {None}

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        progress: Progress = silent,
    ) -> list[Sample]:
        """Return one sample per prompt, in order; see `Generator.generate`."""
        ids = [self.template.prompt_ids(prompt) for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        prefix = SharedPrefix(self.model, ids)
        samples: dict[int, Sample] = {}
        while order:
            rows = order[: self.batch_size]
            streams = [torch.Generator().manual_seed(_stream_seed(seed, row)) for row in rows]
            try:
                batch = [ids[row] for row in rows]
                written = self._generate_batch(batch, max_new_tokens, temperature, streams, prefix)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size = max(1, len(rows) // 2)
                continue
            for row, tokens in zip(rows, written, strict=True):
                finished = tokens[-1] in self._stop
                text = self.template.decode(tokens[:-1] if finished else tokens)
                samples[row] = Sample(text.strip(), len(tokens), finished)
            order = order[len(rows) :]
            progress(len(samples), len(prompts))
        return [samples[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
        """Return the log-likelihood of each exchange's response, in order.

        Sequences are batched by length and padded on the right, where causal attention never looks. What all
        prompts begin with is computed once, and so is a prompt that several responses follow. The head runs on
        the response's positions alone, and the loss is in float32. A batch that doesn't fit in memory is halved.
        """
        encoded = [self.template.encode(exchange) for exchange in exchanges]
        by_prompt: dict[tuple[int, ...], list[int]] = {}
        for row, (prompt, _) in enumerate(encoded):
            by_prompt.setdefault(prompt, []).append(row)
        prefix = SharedPrefix(self.model, list(by_prompt))
        shared = 2 * len(by_prompt) <= len(encoded)
        groups = list(by_prompt.values()) if shared else [[row] for row in range(len(encoded))]
        sizes = [len(encoded[g[0]][0]) - prefix.length + sum(len(encoded[row][1]) for row in g) for g in groups]
        waiting = [[groups[i] for i in batch] for batch in _batches(sizes)]
        values: dict[int, float] = {}
        while waiting:
            batch = waiting.pop()
            try:
                values |= (self._score_responses if shared else self._score_whole)(batch, encoded, prefix)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                waiting += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        return [ResponseScore(values[row], len(encoded[row][1])) for row in range(len(exchanges))]

    def _score_whole(
        self, groups: Sequence[Sequence[int]], encoded: Sequence[Encoded], prefix: SharedPrefix
    ) -> dict[int, float]:
        """Score sequences that have each a prompt of their own, in one pass."""
        rows = [row for group in groups for row in group]
        bodies = [encoded[row][0][prefix.length :] + encoded[row][1][:-1] for row in rows]
        cache = prefix.cache(len(rows))
        return self._log_likelihoods(rows, bodies, encoded, past_key_values=cache, use_cache=True)

    def _score_responses(
        self, groups: Sequence[Sequence[int]], encoded: Sequence[Encoded], prefix: SharedPrefix
    ) -> dict[int, float]:
        """Score groups of responses to one prompt each: the prompts in one pass, then the responses in another."""
        device = self.model.device
        prompts = [encoded[group[0]][0][prefix.length : -1] for group in groups]
        cache = prefix.cache(len(groups))
        ids = _pad_right(prompts)
        if ids.shape[1]:
            self.model(input_ids=ids.to(device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        rows = [row for group in groups for row in group]
        owners = [i for i, group in enumerate(groups) for _ in group]
        cache.batch_select_indices(torch.tensor(owners, device=device))
        bodies = [encoded[row][0][-1:] + encoded[row][1][:-1] for row in rows]
        width = max(map(len, bodies))
        mask = torch.ones(len(rows), prefix.length + ids.shape[1] + width, dtype=torch.long)
        positions = torch.empty(len(rows), width, dtype=torch.long)
        for k, owner in enumerate(owners):
            own = prefix.length + len(prompts[owner])
            mask[k, own : prefix.length + ids.shape[1]] = 0  # the padding between a prompt and its response
            positions[k] = own + torch.arange(width)
        return self._log_likelihoods(
            rows, bodies, encoded, past_key_values=cache, use_cache=True,
            attention_mask=mask.to(device), position_ids=positions.to(device),
        )  # fmt: skip

    def _log_likelihoods(
        self, rows: Sequence[int], bodies: Sequence[tuple[int, ...]], encoded: Sequence[Encoded], **inputs: Any
    ) -> dict[int, float]:
        """Return the log-likelihood of each row's response, which the end of its body predicts."""
        device = self.model.device
        ids = _pad_right(bodies)
        wanted = torch.zeros_like(ids, dtype=torch.bool)
        targets: list[int] = []
        for k, (row, body) in enumerate(zip(rows, bodies, strict=True)):
            response = encoded[row][1]
            wanted[k, len(body) - len(response) : len(body)] = True
            targets += response
        logits = self._logits_at(wanted.to(device), input_ids=ids.to(device), **inputs)
        log_likelihoods = -torch.nn.functional.cross_entropy(
            logits.float(), torch.tensor(targets, device=device), reduction="none"
        )
        parts = torch.split(log_likelihoods, [len(encoded[row][1]) for row in rows])
        return {row: float(part.sum()) for row, part in zip(rows, parts, strict=True)}

    def _logits_at(self, wanted: Tensor, **inputs: Any) -> Tensor:
        """Return the logits (wanted positions, vocabulary); the head sees no other position.

        A hook hands the head its input, so that whatever the architecture does to logits afterwards
        (scaling, soft caps) is still done.
        """

        def select(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (args[0][wanted].unsqueeze(0), *args[1:])

        hook = self.model.get_output_embeddings().register_forward_pre_hook(select)
        try:
            logits: Tensor = self.model(**inputs).logits[0]
        finally:
            hook.remove()
        return logits

    def _generate_batch(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        temperature: float,
        streams: list[torch.Generator],
        prefix: SharedPrefix,
    ) -> list[list[int]]:
        device = self.model.device
        width = max(map(len, prompts)) - prefix.length
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.ones(len(prompts), prefix.length + width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            padding = prefix.length + width - len(prompt)
            ids[row, padding:] = torch.tensor(prompt[prefix.length :])
            mask[row, prefix.length : prefix.length + padding] = 0
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix.length :]
        cache = prefix.cache(len(prompts))
        written: list[list[int]] = [[] for _ in prompts]
        active = list(range(len(prompts)))
        for _ in range(max_new_tokens):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = _choose(output.logits[:, -1].float(), temperature, [streams[i] for i in active])
            for row, token in zip(active, chosen.tolist(), strict=True):
                written[row].append(token)
            keep = [k for k, row in enumerate(active) if written[row][-1] not in self._stop]
            if not keep:
                break
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            ids = chosen.unsqueeze(1)
            if len(keep) < len(active):  # finished rows leave the batch and its cache
                kept = torch.tensor(keep, device=device)
                cache.batch_select_indices(kept)
                ids, mask, positions = ids[kept], mask[kept], positions[kept]
                active = [active[k] for k in keep]
        return written


def _choose(logits: Tensor, temperature: float, streams: list[torch.Generator]) -> Tensor:
    """Return one token id per row (rows,) of `logits` (rows, vocabulary)."""
    if temperature == 0.0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits / temperature, dim=-1).cumsum(-1)
    draws = torch.cat([torch.rand(1, generator=stream) for stream in streams]).to(logits.device)
    threshold = draws.unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


def _pad_right(sequences: Sequence[Sequence[int]]) -> Tensor:
    """Return the sequences as one tensor (rows, longest), with zeros after each one's end."""
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return ids


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of indices, sorted by length, of at most `_TOKENS_PER_BATCH` padded tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[index] > _TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _stream_seed(seed: int, row: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + row * 0xD1B54A32D192ED03 + 0x2545F491) % (2**63)


def mean_cross_entropy(scores: Sequence[ResponseScore]) -> float:
    """Return the mean over responses of each one's mean cross-entropy per token, in nats."""
    return math.fsum(score.cross_entropy for score in scores) / len(scores)
