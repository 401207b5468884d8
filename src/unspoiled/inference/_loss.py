"""The cross-entropy of responses at full speed, and its gradient.

Where the architecture allows it, sequences are packed in one row without padding and what they begin with is computed
once (`_packed`); elsewhere they are padded on the right, where causal attention never looks. Which it is, the model
itself says: what it makes of a few short sequences packed is compared with what it makes of each alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpointed

from unspoiled.inference._batch import Batch, Encoded, make_batch, padded_batches, sequence_of, target_weights
from unspoiled.inference._cache import new_cache
from unspoiled.inference._head import Head
from unspoiled.inference._packed import ATTENTION, Pack, pack_sequences, register_attention
from unspoiled.inference._segments import Tokens, batches, tree_size

_TOKENS_PER_BATCH = 2048
_CHECK_TOKENS = 32
_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}  # what two orders of summation may differ by
_ROUNDING_OF_HALVES = 0.05


class ResponseLoss:
    """How likely a model finds responses; forward, and backward into the parameters that require gradients.

    One call at a time: a model that computes gradients for two at once would mix them.

    Args:
        model: A transformers causal language model, in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._body: Any = getattr(model, model.base_model_prefix or "none", None)
        self._head: Head | None = None
        self._pack_limit = 0  # longer sequences are padded
        self._settled = False  # whether the two above are known
        self._batch_limit = _rope_limit(model)  # longer sequences are computed alone

    def log_likelihoods(self, encoded: Sequence[Encoded]) -> list[float]:
        """Return the log-likelihood of each response, in nats; a batch that doesn't fit in memory is halved."""
        with torch.inference_mode():
            return self._log_likelihoods(encoded, self._passes(encoded, None))

    def backward(self, encoded: Sequence[Encoded], weights: Sequence[float], *, checkpoint: bool) -> list[float]:
        """Backpropagate the weighted sum of the responses' cross-entropies, and return their log-likelihoods.

        Gradients come in one backward pass per batch. A batch whose forward pass doesn't fit in memory is halved; a
        backward pass is never tried twice, since part of its gradients may have been added.

        Args:
            encoded: The prompts and responses.
            weights: One per response, for its mean cross-entropy per token.
            checkpoint: Keep each layer's input alone for the backward pass, which computes the layer again.

        Raises:
            OutOfMemoryError: One sequence is too much, or a backward pass is.
            ValueError: No parameter requires gradients.
        """
        if not any(parameter.requires_grad for parameter in self._model.parameters()):
            raise ValueError("no parameter of the model requires gradients: set requires_grad_() on those to move.")

        def passes() -> Iterator[tuple[Batch, Tensor, Any]]:
            for batch, losses, total in self._passes(encoded, weights):
                assert total is not None
                try:
                    torch.autograd.backward(total)
                except torch.OutOfMemoryError as error:
                    error.add_note("Memory ran out in a backward pass: try checkpoint=True, which keeps less.")
                    raise
                yield batch, losses, total

        with torch.enable_grad(), _recomputed(self._model) if checkpoint else nullcontext():
            return self._log_likelihoods(encoded, passes())

    def tokens(self, encoded: Sequence[Encoded]) -> int:
        """Return how many tokens a forward pass computes, those that sequences share once and padding included."""
        sequences = [sequence_of(row) for row in encoded]
        total = 0
        for packed, rows in self._plan(encoded):
            lengths = [len(sequences[row]) for row in rows]
            total += tree_size([sequences[row] for row in rows]) if packed else len(rows) * max(lengths)
        return total

    def _log_likelihoods(self, encoded: Sequence[Encoded], passes: Iterator[tuple[Batch, Tensor, Any]]) -> list[float]:
        values: dict[int, float] = {}
        for batch, losses, _ in passes:
            found = losses.double().cpu()
            values |= {row: -float(found[uses].sum()) for row, uses in zip(batch.rows, batch.uses, strict=True)}
        return [values[row] for row in range(len(encoded))]

    def _passes(
        self, encoded: Sequence[Encoded], weights: Sequence[float] | None
    ) -> Iterator[tuple[Batch, Tensor, Tensor | None]]:
        """Yield each batch with the losses of its targets, and their weighted sum where there are weights."""
        waiting = self._plan(encoded)
        while waiting:
            packed, rows = waiting.pop()
            try:
                batch = make_batch(encoded, rows, packed, self._model.device)
                losses, total = self._losses(batch, target_weights(batch, weights))
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                waiting += [(packed, rows[: len(rows) // 2]), (packed, rows[len(rows) // 2 :])]
                continue
            yield batch, losses, total
            del losses, total

    def _losses(self, batch: Batch, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self._head is None:
            losses = nn.functional.cross_entropy(self._logits(batch).float(), batch.targets, reduction="none")
            return losses.detach(), None if weights is None else losses @ weights
        states = self._states(batch.ids) if batch.pack is None else self._packed_states(batch.pack)
        hidden = states.flatten(0, 1).index_select(0, batch.places)
        if weights is None:
            return self._head.losses(hidden, batch.targets), None
        total, losses = self._head.weighted_loss(hidden, batch.targets, weights)
        return losses, total

    def _states(self, ids: Tensor, **options: Any) -> Tensor:
        """Return the body's last states [rows, tokens, width]."""
        states: Tensor = self._body(input_ids=ids, use_cache=False, **options).last_hidden_state
        return states

    def _packed_states(self, pack: Pack) -> Tensor:
        """Return the body's last states of a pack [1, tokens, width]."""
        mask = torch.zeros(1, 1, 1, 1, device=pack.ids.device)  # four dimensions: transformers makes none of its own
        return self._states(pack.ids, position_ids=pack.positions, attention_mask=mask, pack=pack)

    def _logits(self, batch: Batch) -> Tensor:
        """Return the logits (targets, vocabulary); a hook lets the head see no other place than theirs."""

        def select(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (args[0].flatten(0, 1).index_select(0, batch.places).unsqueeze(0), *args[1:])

        hook = self._model.get_output_embeddings().register_forward_pre_hook(select)
        try:
            logits: Tensor = self._model(input_ids=batch.ids, use_cache=False).logits[0]
        finally:
            hook.remove()
        return logits

    def _plan(self, encoded: Sequence[Encoded]) -> list[tuple[bool, list[int]]]:
        """Return the batches, each as whether it is packed and its rows, the last to be computed first."""
        if not encoded:
            return []
        if not self._settled:
            self._settle(sequence_of(encoded[0]))
        sequences = [sequence_of(row) for row in encoded]
        lengths = list(map(len, sequences))
        limit = min(self._pack_limit, self._batch_limit)
        packed = [row for row, length in enumerate(lengths) if length <= limit]
        padded = [row for row, length in enumerate(lengths) if limit < length <= self._batch_limit]
        alone = [row for row, length in enumerate(lengths) if length > self._batch_limit]
        return (
            [(False, [row]) for row in alone]
            + [(False, batch) for batch in padded_batches(padded, lengths, _TOKENS_PER_BATCH)]
            + [(True, [packed[i] for i in b]) for b in batches([sequences[row] for row in packed], _TOKENS_PER_BATCH)]
        )

    @torch.no_grad()
    def _settle(self, sequence: Tokens) -> None:
        """Find out whether the head may be called apart from the body, and whether packing computes the same states.

        Whatever an architecture has that this doesn't foresee shows in the states of a few short sequences that begin
        alike, packed and each alone; a limit on how far attention sees, which they are too short for, its config says.
        """
        model, device = self._model, self._model.device
        first = sequence[:_CHECK_TOKENS]
        half = len(first) // 2
        probes = sorted({first, first[: half + 3], first[:half] + first[::-1][:half], first[::-1][: half + 5]})
        if self._body is None or self._body is model:
            self._settled = True
            return
        outputs = [self._body(input_ids=torch.tensor([probe], device=device), use_cache=False) for probe in probes]
        alone = [output.last_hidden_state[0] for output in outputs]
        if not all(bool(states.isfinite().all()) for states in alone):
            return  # a broken merge says nothing about its architecture
        logits = model(input_ids=torch.tensor([probes[0]], device=device), use_cache=False).logits[0]
        head = Head(model, type(outputs[0]), logits.shape[1])
        try:
            separable = _same(head.logits(alone[0]), logits)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # what an architecture does with states it didn't make itself knows no bounds
            separable = False
        if separable:
            self._pack_limit = self._packable(probes, alone)
            self._head = head
        self._settled = True

    def _packable(self, probes: Sequence[Tokens], alone: Sequence[Tensor]) -> int:
        """Return how long sequences may be to be packed, and leave the model with our attention if that is not 0."""
        model = self._model
        before = model.config._attn_implementation
        limit = _attention_limit(model)
        if limit == 0 or before not in ("sdpa", ATTENTION):
            return 0
        register_attention()
        try:
            if not model._can_set_attn_implementation():  # or else transformers warns the user, who didn't ask for it
                return 0
            model.set_attn_implementation(ATTENTION)
            pack = pack_sequences(probes, model.device)
            states = self._packed_states(pack)[0]
            if all(_same(states[list(path)], own) for path, own in zip(pack.paths, alone, strict=True)):
                return limit
        except torch.OutOfMemoryError:
            raise
        except Exception:  # nor does what it does with a row that is no sequence
            pass
        model.set_attn_implementation(before)
        return 0


def _same(states: Tensor, expected: Tensor) -> bool:
    """Say whether states [tokens, width] are the expected ones but for rounding."""
    allowed = _ROUNDING.get(expected.dtype, _ROUNDING_OF_HALVES)
    difference = (states.float() - expected.float()).norm(dim=-1)
    return bool((difference / expected.float().norm(dim=-1).clamp(min=1e-12)).mean() <= allowed)


def _attention_limit(model: Any) -> int:
    """Return how long a sequence may be for every layer to see all of it; 0 if a layer is no attention at all."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    limit = sys.maxsize
    for layer in new_cache(model).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            limit = min(limit, layer.sliding_window)
        elif type(layer) is not DynamicLayer:
            return 0
    return limit


def _rope_limit(model: Any) -> int:
    """Return up to which length positions turn alike whatever else is in the batch."""
    config = model.config.get_text_config()
    parameters = getattr(config, "rope_parameters", None) or {}
    limit = sys.maxsize
    for rope in (parameters, *parameters.values()):
        if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
            own = rope.get("original_max_position_embeddings") or getattr(
                config, "original_max_position_embeddings", config.max_position_embeddings
            )
            limit = min(limit, int(own))
    return limit


@contextmanager
def _recomputed(model: Any) -> Iterator[None]:
    """Keep of each layer its input alone, within the block.

    transformers' own switch needs the model in training mode, where it drops values at random.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = {layer: layer.forward for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no layers that can be checkpointed: leave out checkpoint.")
    own = {layer for layer in layers if "forward" in vars(layer)}
    for layer, forward in layers.items():
        layer.forward = partial(checkpointed, forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer, forward in layers.items():
            del layer.forward
            if layer in own:
                layer.forward = forward
