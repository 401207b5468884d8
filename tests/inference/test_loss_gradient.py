"""The loss's gradient against one row at a time, what it holds in memory, and what happens when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from loss_models import MODELS, ROWS, VOCABULARY, losses_alone, made, scored_alone
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unspoiled.inference import _head as head_module
from unspoiled.inference import _loss as loss_module
from unspoiled.inference._loss import ResponseLoss

WEIGHTS = [0.5, -1.0, 2.0, 0.25, 0.0, 1.0, 0.3, 0.7, 1.5, 1.0, 0.1, 0.6]


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def expected_gradients(model: Any) -> dict[str, Tensor]:
    """Return those of the weighted sum from the definition, a row at a time."""
    for row, weight in zip(ROWS, WEIGHTS, strict=True):
        (weight * losses_alone(model, row).mean()).backward()
    return gradients(model)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        *("llama", "llama with a tied head", "mixtral", "gemma3 with capped logits", "gpt2", "granite", "cohere"),
        *("gemma3 with a window", "gemma2 with capped attention", "llama with eager attention", "llava"),
    ],
)
def test_gradients_are_those_of_one_row_at_a_time(name: str, checkpoint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every parameter, the head's too; chunks of 3 tokens cross the borders of rows."""
    monkeypatch.setattr(loss_module, "_TOKENS_PER_BATCH", 150)
    monkeypatch.setattr(head_module, "_LOGITS_AT_ONCE", 3 * VOCABULARY)
    monkeypatch.setattr(head_module, "_FLOATS_AT_ONCE", 2 * VOCABULARY)
    model = made(name)
    expected = expected_gradients(model)
    scores = ResponseLoss(model).backward(ROWS, WEIGHTS, checkpoint=checkpoint)
    assert_close(gradients(model), expected)
    assert scores == pytest.approx(scored_alone(model), rel=1e-5)
    assert all("forward" not in vars(module) for module in model.modules()), "checkpointing is over"


def test_an_unknown_head_has_gradients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    expected = expected_gradients(model)
    loss = ResponseLoss(model)
    loss._settled = True  # as after a head that was found to be special
    loss.backward(ROWS, WEIGHTS, checkpoint=False)
    assert_close(gradients(model), expected)


@pytest.mark.parametrize("wanted", ["lm_head.weight", "model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight"])
def test_one_parameter_alone_can_be_wanted(wanted: str) -> None:
    model = made("llama")
    model.requires_grad_(requires_grad=False)
    model.get_parameter(wanted).requires_grad_()
    expected = expected_gradients(model)
    ResponseLoss(model).backward(ROWS, WEIGHTS, checkpoint=True)
    found = gradients(model)
    assert found.keys() == {wanted}
    assert_close(found, expected)


def test_hooks_get_the_whole_gradient_of_a_batch_once() -> None:
    """Of a tied head's too: what the head and the embedding add to it comes together."""
    model = made("llama with a tied head")
    expected = expected_gradients(model)
    calls: list[str] = []
    totals: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():

        def take(weight: Tensor, name: str = name) -> None:
            calls.append(name)
            totals[name] = weight.grad
            weight.grad = None

        parameter.register_post_accumulate_grad_hook(take)
    ResponseLoss(model).backward(ROWS, WEIGHTS, checkpoint=False)
    assert len(calls) == len(set(calls)) == len(expected)
    assert_close(totals, expected)


def test_two_runs_give_the_same_bits() -> None:
    model = made("qwen2")
    loss = ResponseLoss(model)
    runs = []
    for checkpoint in (False, False, True):
        loss.backward(ROWS, WEIGHTS, checkpoint=checkpoint)
        runs.append(gradients(model))
    for name in runs[0]:
        assert torch.equal(runs[0][name], runs[1][name]), name
        assert torch.equal(runs[0][name], runs[2][name]), name


def test_gradients_in_bfloat16() -> None:
    """Attention is in float32 there; the gradients are those of float32 but for the rounding of weights and states."""
    model = made("llama")
    expected = expected_gradients(model)
    half = made("llama").to(torch.bfloat16)
    ResponseLoss(half).backward(ROWS, WEIGHTS, checkpoint=False)
    assert_close({name: value.float() for name, value in gradients(half).items()}, expected, tolerance=0.1)


def test_no_gradients_wanted_is_an_error() -> None:
    model = made("llama").requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="requires gradients"):
        ResponseLoss(model).backward(ROWS, WEIGHTS, checkpoint=False)


class Largest(TorchDispatchMode):
    """Remember the largest tensor whose last dimension is the vocabulary, weights aside."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.rows = 0
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor) or tensor.untyped_storage().data_ptr() in self._weights:
                continue
            if tensor.ndim and tensor.shape[-1] == VOCABULARY:
                self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return result


@pytest.mark.parametrize("name", ["llama", "granite", "mamba"])
def test_tokens_by_vocabulary_is_never_held_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tokens' logits at once, of some 150, in the forward pass and in the backward pass."""
    monkeypatch.setattr(head_module, "_LOGITS_AT_ONCE", 5 * VOCABULARY + 7)
    model = made(name)
    loss = ResponseLoss(model)
    loss.log_likelihoods(ROWS)  # what is found out about the model once, on a few tokens
    with Largest(model) as seen:
        loss.log_likelihoods(ROWS)
    assert seen.rows == 5
    model.requires_grad_(requires_grad=False)
    next(iter(model.base_model.modules())).get_submodule("layers.1").requires_grad_()
    with Largest(model) as seen:
        loss.backward(ROWS, WEIGHTS, checkpoint=False)
    assert seen.rows == 5


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Count the bytes of what the forward passes keep for the backward passes, by storage."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield found


def test_checkpointing_keeps_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak of what is saved, in the forward pass of the body: each layer's input instead of all inside it."""
    model = made("llama")
    model.requires_grad_(requires_grad=False)
    model.model.embed_tokens.weight.requires_grad_()
    loss = ResponseLoss(model)
    kept = {}
    for checkpoint in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(torch.autograd, "backward", lambda *_: None)  # the forward pass alone
            with saved_bytes() as found:
                loss.backward(ROWS, WEIGHTS, checkpoint=checkpoint)
        kept[checkpoint] = sum(found.values())
    assert kept[True] < kept[False] / 4


class Room:
    """Give the model's body room for so many tokens, and count the passes that didn't fit."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens, self.misses = 10**6, 0
        forward = model.model.forward

        def limited(*args: Any, input_ids: Tensor, **kwargs: Any) -> Any:
            if input_ids.numel() > self.tokens:
                self.misses += 1
                raise torch.OutOfMemoryError("no room")
            return forward(*args, input_ids=input_ids, **kwargs)

        monkeypatch.setattr(model.model, "forward", limited)


def test_what_does_not_fit_is_halved_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    expected = expected_gradients(model)
    room = Room(model, monkeypatch)
    loss = ResponseLoss(model)
    loss.tokens(ROWS)
    room.tokens = 110
    scores = loss.backward(ROWS, WEIGHTS, checkpoint=False)
    assert room.misses > 0
    assert_close(gradients(model), expected)
    assert scores == pytest.approx(scored_alone(model), rel=1e-5)
    room.tokens = 20
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        loss.backward(ROWS, WEIGHTS, checkpoint=False)


def test_a_backward_pass_that_does_not_fit_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama")
    calls = 0

    def fails(weight: Tensor) -> None:
        nonlocal calls
        calls += 1
        raise torch.OutOfMemoryError("no room")

    model.model.layers[0].mlp.up_proj.weight.register_post_accumulate_grad_hook(fails)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        ResponseLoss(model).backward(ROWS, WEIGHTS, checkpoint=False)
    assert calls == 1
    assert "checkpoint=True" in caught.value.__notes__[0]


def test_every_architecture_of_the_list_is_made() -> None:
    """Names in the parameters above are names of the list."""
    assert len(WEIGHTS) == len(ROWS)
    assert {"llama", "mamba", "granite"} <= MODELS.keys()
