"""From hidden states to cross-entropy in chunks: the matrix of tokens by vocabulary is never held whole."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_LOGITS_AT_ONCE = 2**24  # a chunk of some hundred tokens, enough for a fast matrix product
_FLOATS_AT_ONCE = 2**21  # a CPU's softmax is fastest in the cache


class _Handed(nn.Module):
    """In the place of a model's body: gives the hidden states it is given."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self._output = output

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        return self._output(last_hidden_state=inputs_embeds)


class Head:
    """What a causal language model does with the hidden states of its body: the logits, scaled or capped as it does.

    It is the model itself with something in the place of its body that hands hidden states on, so that it is right
    for any architecture; its weights are those of the model.

    Args:
        model: A transformers causal language model.
        output: The class of what its body returns.
        vocabulary: How many logits there are per token.
    """

    def __init__(self, model: Any, output: type, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._module = copy.copy(model)
        self._module._modules = {**model._modules, model.base_model_prefix: _Handed(output)}

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [tokens, vocabulary] of hidden states [tokens, width]."""
        logits: Tensor = self._module(inputs_embeds=hidden.unsqueeze(0), use_cache=False).logits[0]
        return logits

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each target, in nats, float32 [tokens].

        Args:
            hidden: The states that predict the targets [tokens, width].
            targets: Token ids [tokens].
        """
        found = [_cross_entropy(self.logits(hidden[chunk]), targets[chunk])[0] for chunk in self.chunks(len(targets))]
        return torch.cat(found)

    def weighted_loss(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of weights times losses, with its gradient, and the losses, without.

        The gradients are computed along with the losses, chunk by chunk, so that no logits are kept or computed twice.

        Args:
            hidden: The states that predict the targets [tokens, width].
            targets: Token ids [tokens].
            weights: Float32 [tokens].
        """
        wanted = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        total, losses = _WeightedLoss.apply(self, hidden, targets, weights, *wanted)  # type: ignore[no-untyped-call]
        return total, losses

    def chunks(self, tokens: int) -> Iterator[slice]:
        """Yield spans of so few tokens each that their logits may be held at once."""
        size = max(1, _LOGITS_AT_ONCE // self._vocabulary)
        return (slice(start, start + size) for start in range(0, tokens, size))


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, head: Head, hidden: Tensor, targets: Tensor, weights: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(hidden)
        totals: list[Tensor | None] = [None] * len(parameters)
        losses = torch.empty_like(weights)
        for chunk in head.chunks(len(targets)):
            with torch.enable_grad():
                leaf = hidden[chunk].detach().requires_grad_()
                logits = head.logits(leaf)
            losses[chunk], slope = _cross_entropy(logits.detach(), targets[chunk], weights[chunk])
            gradient[chunk], *slopes = torch.autograd.grad(logits, [leaf, *parameters], slope, allow_unused=True)
            for i, slope in enumerate(slopes):
                if slope is not None:
                    total = totals[i]
                    totals[i] = slope.float() if total is None else total.add_(slope)
        context.found = gradient, totals
        context.mark_non_differentiable(losses)
        return (losses.double() @ weights.double()).float(), losses

    @staticmethod
    def backward(context: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, totals = context.found
        context.found = None  # used up: the gradient of the head is as large as the head
        factor = upstream[0]
        scaled = (None if t is None else t.mul_(factor).to(gradient.dtype) for t in totals)
        return None, gradient.mul_(factor), None, None, *scaled


def _cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the losses [tokens], and the gradient of their weighted sum by the logits [tokens, vocabulary].

    Without weights the second is empty.
    """
    rows = max(1, _FLOATS_AT_ONCE // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    slopes = torch.empty_like(logits) if weights is not None else logits.new_empty(0)
    for start in range(0, len(logits), rows):
        span = slice(start, start + rows)
        wanted = targets[span, None]
        log_probabilities = torch.log_softmax(logits[span].float(), dim=-1)
        losses[span] = -log_probabilities.gather(1, wanted)[:, 0]
        if weights is not None:
            slope = log_probabilities.exp_()
            slope.scatter_add_(1, wanted, slope.new_full(wanted.shape, -1.0))
            slopes[span] = slope.mul_(weights[span, None])
    return losses, slopes
