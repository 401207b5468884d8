"""Generation and scoring with a transformers model in this process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unspoiled.inference._batch import Encoded
from unspoiled.inference._chat import ChatTemplate
from unspoiled.inference._loss import ResponseLoss
from unspoiled.inference._prefix import SharedPrefix, cache_argument
from unspoiled.inference._protocols import Completion, Exchange, OnSample, Prompt, ResponseScore, Sample, ignored


class TransformersBackend:
    """A causal language model that writes and scores in batches; a `Generator`, a `Completer` and a `Scorer`.

    Args:
        model: A transformers causal language model, in evaluation mode.
        template: Its tokenizer and chat template.
        batch_size: Most sequences generated at once; halved when memory runs out.
    """

    def __init__(self, model: Any, template: ChatTemplate, *, batch_size: int = 48) -> None:
        self.model = model
        self.template = template
        self.batch_size = batch_size
        self._loss = ResponseLoss(model)
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
        streams: Sequence[int] | None = None,
        on_sample: OnSample = ignored,
    ) -> list[Sample]:
        """Return one sample per prompt, in order; see `Generator.generate`."""
        ids = [self.template.prompt_ids(prompt) for prompt in prompts]
        numbers = range(len(ids)) if streams is None else streams
        samples: dict[int, Sample] = {}
        draws = [_stream_seed(seed, number) for number in numbers]
        for row, written in self._write(ids, max_new_tokens, temperature=temperature, seeds=draws):
            tokens = list(written.tokens)
            text = self.template.decode(tokens[:-1] if written.finished else tokens)
            samples[row] = Sample(text.strip(), len(tokens), written.finished)
            on_sample(row, samples[row])
        return [samples[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, watch: Sequence[int] = ()
    ) -> list[Completion]:
        """Return the greedy continuation of each prompt, in order; see `Completer.complete`.

        A continuation ends with the template's end of turn or a stop token of the model's generation config.
        """
        ids = [list(prompt) for prompt in prompts]
        found = dict(self._write(ids, max_new_tokens, watch=watch))
        return [found[i] for i in range(len(prompts))]

    def score(self, exchanges: Sequence[Exchange]) -> list[ResponseScore]:
        """Return the log-likelihood of each exchange's response, in order.

        Sequences are packed without padding and what they begin with is computed once, where the architecture allows
        it; the head runs on the places that predict the response alone, and the loss is in float32. A batch that
        doesn't fit in memory is halved.
        """
        encoded = [self.template.encode(exchange) for exchange in exchanges]
        return _scores(encoded, self._loss.log_likelihoods(encoded))

    def backward(
        self, exchanges: Sequence[Exchange], weights: Sequence[float], *, checkpoint: bool = False
    ) -> list[ResponseScore]:
        """Backpropagate Σᵢ weightsᵢ CEᵢ into the parameters that require gradients, and return the scores, in order.

        CEᵢ is a response's mean cross-entropy per token. There is one backward pass per batch, so that a parameter's
        hooks may run several times; the gradients add up (on a GPU in no fixed order: two runs differ by rounding). A
        batch whose forward pass doesn't fit in memory is halved;
        a backward pass is not tried twice, since part of its gradients may have been added.

        Args:
            exchanges: What to score.
            weights: One per exchange.
            checkpoint: Keep each layer's input alone for the backward pass, which computes the layer again: less
                memory, a third more time.

        Raises:
            OutOfMemoryError: One sequence is too much, or a backward pass is; what was added to gradients stays.
            ValueError: No parameter requires gradients, or there are not as many weights as exchanges.
        """
        if len(weights) != len(exchanges):
            raise ValueError(f"{len(weights)} weights for {len(exchanges)} exchanges: give one for each.")
        encoded = [self.template.encode(exchange) for exchange in exchanges]
        return _scores(encoded, self._loss.backward(encoded, weights, checkpoint=checkpoint))

    def tokens(self, exchanges: Sequence[Exchange]) -> int:
        """Return how many tokens a forward pass over exchanges computes; those that sequences share count once."""
        return self._loss.tokens([self.template.encode(exchange) for exchange in exchanges])

    def _write(
        self,
        ids: Sequence[list[int]],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        watch: Sequence[int] = (),
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (position, what was written after it), batch by batch."""
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        prefix = SharedPrefix(self.model, ids)
        while order:
            rows = order[: self.batch_size]
            draws = [torch.Generator().manual_seed(seeds[row] if seeds else 0) for row in rows]
            try:
                batch = [ids[row] for row in rows]
                written = self._generate_batch(batch, max_new_tokens, temperature, draws, prefix, watch)
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size = max(1, len(rows) // 2)
                continue
            yield from zip(rows, written, strict=True)
            order = order[len(rows) :]

    def _generate_batch(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        temperature: float,
        streams: list[torch.Generator],
        prefix: SharedPrefix,
        watch: Sequence[int],
    ) -> list[Completion]:
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
        watched: list[list[tuple[float, ...]]] = [[] for _ in prompts]
        active = list(range(len(prompts)))
        for _ in range(max_new_tokens):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **cache_argument(self.model, cache),
            )
            logits = output.logits[:, -1].float()
            if watch:
                for row, values in zip(active, torch.log_softmax(logits, dim=-1)[:, list(watch)].tolist(), strict=True):
                    watched[row].append(tuple(values))
            chosen = _choose(logits, temperature, [streams[i] for i in active])
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
        return [
            Completion(tuple(tokens), tokens[-1] in self._stop, tuple(values))
            for tokens, values in zip(written, watched, strict=True)
        ]


def _choose(logits: Tensor, temperature: float, streams: list[torch.Generator]) -> Tensor:
    """Return one token id per row (rows,) of `logits` (rows, vocabulary)."""
    if temperature == 0.0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits / temperature, dim=-1).cumsum(-1)
    draws = torch.cat([torch.rand(1, generator=stream) for stream in streams]).to(logits.device)
    threshold = draws.unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


def _scores(encoded: Sequence[Encoded], log_likelihoods: Sequence[float]) -> list[ResponseScore]:
    return [ResponseScore(value, len(response)) for value, (_, response) in zip(log_likelihoods, encoded, strict=True)]


def _stream_seed(seed: int, row: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + row * 0xD1B54A32D192ED03 + 0x2545F491) % (2**63)


def mean_cross_entropy(scores: Sequence[ResponseScore]) -> float:
    """Return the mean over responses of each one's mean cross-entropy per token, in nats."""
    return math.fsum(score.cross_entropy for score in scores) / len(scores)
