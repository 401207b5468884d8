"""From hidden states to cross-entropy in chunks: the matrix of tokens by vocabulary is never held whole."""

from __future__ import annotations

import copy
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
    """

    def __init__(self, model: Any, output: type) -> None:
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
        chunks = zip(hidden.split(self._chunk()), targets.split(self._chunk()), strict=True)
        return torch.cat([_cross_entropy(self.logits(part), wanted)[0] for part, wanted in chunks])

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

    def _chunk(self) -> int:
        return max(1, _LOGITS_AT_ONCE // int(self._module.config.get_text_config().vocab_size))


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, head: Head, hidden: Tensor, targets: Tensor, weights: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(hidden)
        totals = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
        losses: list[Tensor] = []
        start = 0
        for part, wanted, weight in zip(*(t.split(head._chunk()) for t in (hidden, targets, weights)), strict=True):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                logits = head.logits(leaf)
            found, slope = _cross_entropy(logits.detach(), wanted, weight)
            losses.append(found)
            slopes = torch.autograd.grad(logits, [leaf, *parameters], slope, allow_unused=True)
            gradient[start : start + len(part)] = slopes[0]
            start += len(part)
            for total, addend in zip(totals, slopes[1:], strict=True):
                if addend is not None:
                    total += addend
        context.save_for_backward(gradient, *(t.to(p.dtype) for t, p in zip(totals, parameters, strict=True)))
        each = torch.cat(losses)
        context.mark_non_differentiable(each)
        return (each.double() @ weights.double()).float(), each

    @staticmethod
    def backward(context: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *totals = context.saved_tensors
        factor = upstream[0]
        return None, gradient * factor, None, None, *(total * factor for total in totals)


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
