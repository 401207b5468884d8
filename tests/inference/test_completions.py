"""Greedy continuations of token ids, and the log-probabilities of watched tokens, against the definition."""

from typing import Any

import pytest
import torch

from tiny import Bunch
from unspoiled.inference import Completion, TransformersBackend, load_chat_template, load_model

PROMPTS = [[5, 9, 11, 40], [7], [5, 9, 11, 40, 41, 42, 43, 44, 45, 46], [5, 9, 11]]
WATCH = [30, 2, 31]


@pytest.fixture(scope="module")
def model(bunch: Bunch) -> Any:
    model = load_model(bunch.base, dtype=torch.float32)
    model.generation_config.eos_token_id = list(range(2, 300, 12))  # one token in twelve ends a continuation
    return model


@pytest.fixture
def backend(bunch: Bunch, model: Any) -> TransformersBackend:
    return TransformersBackend(model, load_chat_template(bunch.base), batch_size=3)


def continued_alone(model: Any, prompt: list[int], limit: int, stop: set[int]) -> tuple[list[int], list[list[float]]]:
    """Continue one prompt token by token, without a cache, in float64."""
    tokens: list[int] = []
    watched = []
    while len(tokens) < limit and not (tokens and tokens[-1] in stop):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens])).logits[0, -1].double()
        watched.append(torch.log_softmax(logits, -1)[WATCH].tolist())
        tokens.append(int(logits.argmax()))
    return tokens, watched


def test_completions_are_those_of_each_prompt_alone(model: Any, backend: TransformersBackend) -> None:
    stop = {*model.generation_config.eos_token_id, backend.template.end_of_turn}
    completions = backend.complete(PROMPTS, max_new_tokens=20, watch=WATCH)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        tokens, watched = continued_alone(model, prompt, 20, stop)
        assert completion.tokens == tuple(tokens)
        assert completion.finished == (tokens[-1] in stop)
        assert len(completion.watched) == len(tokens)
        for found, wanted in zip(completion.watched, watched, strict=True):
            assert found == pytest.approx(wanted, abs=1e-4)
    assert {completion.finished for completion in completions} == {True, False}, "the test's premise"


def test_watching_nothing_costs_nothing(backend: TransformersBackend) -> None:
    assert backend.complete([], max_new_tokens=3) == []
    plain = backend.complete(PROMPTS, max_new_tokens=3)
    watching = backend.complete(PROMPTS, max_new_tokens=3, watch=WATCH)
    assert plain == [Completion(each.tokens, each.finished) for each in watching]
