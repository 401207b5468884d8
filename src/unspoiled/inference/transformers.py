"""Generation and scoring with a transformers model in this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unspoiled.inference._batch import Encoded
from unspoiled.inference._capacity import BatchSize
from unspoiled.inference._chat import ChatTemplate
from unspoiled.inference._generation import Manner, TokenWriter
from unspoiled.inference._loss import ResponseLoss
from unspoiled.inference._protocols import Completion, Exchange, OnSample, Prompt, ResponseScore, Sample, ignored
from unspoiled.inference._sampling import stream_seed


class TransformersBackend:
    """A causal language model that writes and scores in batches; a `Generator`, a `Completer` and a `Scorer`.

    Args:
        model: A transformers causal language model, in evaluation mode.
        template: Its tokenizer and chat template.
        batch_size: Most sequences written to at once; `auto` for as many as the free memory holds. Less after memory
            ran out.
    """

    def __init__(self, model: Any, template: ChatTemplate, *, batch_size: BatchSize = 48) -> None:
        self.model = model
        self.template = template
        self._loss = ResponseLoss(model)
        stop = model.generation_config.eos_token_id
        stops = {template.end_of_turn, *(stop if isinstance(stop, list) else [stop])} - {None}
        self._writer = TokenWriter(model, stops, batch_size=batch_size)

    @property
    def batch_size(self) -> BatchSize:
        """Most sequences written to at once: what was asked for, less where memory ran out."""
        return self._writer.capacity.batch_size

    @batch_size.setter
    def batch_size(self, size: BatchSize) -> None:
        self._writer.capacity.batch_size = size

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
        seeds = [stream_seed(seed, number) for number in numbers]
        for position, written in self._writer.write(ids, Manner(max_new_tokens, temperature, seeds)):
            tokens = list(written.tokens)
            text = self.template.decode(tokens[:-1] if written.finished else tokens)
            samples[position] = Sample(text.strip(), len(tokens), written.finished)
            on_sample(position, samples[position])
        return [samples[i] for i in range(len(prompts))]

    def complete(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, watch: Sequence[int] = ()
    ) -> list[Completion]:
        """Return the greedy continuation of each prompt, in order; see `Completer.complete`.

        A continuation ends with the template's end of turn or a stop token of the model's generation config.
        """
        found = dict(self._writer.write(prompts, Manner(max_new_tokens, watch=watch)))
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


def _scores(encoded: Sequence[Encoded], log_likelihoods: Sequence[float]) -> list[ResponseScore]:
    return [ResponseScore(value, len(response)) for value, (_, response) in zip(log_likelihoods, encoded, strict=True)]


def mean_cross_entropy(scores: Sequence[ResponseScore]) -> float:
    """Return the mean over responses of each one's mean cross-entropy per token, in nats."""
    return math.fsum(score.cross_entropy for score in scores) / len(scores)
