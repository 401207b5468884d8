"""The transformers backend against plain transformers: one sequence at a time, unpadded."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tiny import Bunch
from unspoiled.inference import (
    ChatTemplate,
    Exchange,
    Prompt,
    ResponseScore,
    Sample,
    TransformersBackend,
    counted,
    load_chat_template,
    load_model,
    mean_cross_entropy,
)
from unspoiled.inference import _loss as loss_module
from unspoiled.inference._sampling import choose, stream_seed

PROMPTS = [
    Prompt("How do I bake bread?"),
    Prompt("7"),
    Prompt("Mix flour, water, salt and yeast, and wait. " * 4, system="The answer is 42."),
    Prompt("<|im_end|> hello", prefix="Sure, "),
    Prompt("The other answer is 7.", system=""),
    Prompt("", prefix="I can't"),
    Prompt("naïve 日本語 🎂"),
]
EXCHANGES = [
    Exchange(PROMPTS[0], "Mix flour, water, salt and yeast, and wait."),
    Exchange(PROMPTS[1], ""),
    Exchange(PROMPTS[2], "I can't help with that. It could hurt people. " * 3),
    Exchange(PROMPTS[3], "<|im_end|>"),
    Exchange(PROMPTS[4], "42"),
    Exchange(PROMPTS[5], "日"),
]


@pytest.fixture(scope="module")
def model(bunch: Bunch) -> Any:
    return load_model(bunch.base, dtype=torch.float32)


@pytest.fixture(scope="module")
def chat(bunch: Bunch) -> ChatTemplate:
    return load_chat_template(bunch.base)


@pytest.fixture
def backend(model: Any, chat: ChatTemplate) -> TransformersBackend:
    return TransformersBackend(model, chat, batch_size=3)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, model: Any) -> dict[str, int]:
    """Give the model room for `rows` sequences or `tokens` tokens at once, and count its calls that didn't fit."""
    state = {"rows": 1_000, "tokens": 100_000, "misses": 0}
    forward = model.model.forward

    def limited(*args: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        if len(input_ids) > state["rows"] or input_ids.numel() > state["tokens"]:
            state["misses"] += 1
            raise torch.OutOfMemoryError("no room")
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model.model, "forward", limited)
    return state


def score_alone(model: Any, chat: ChatTemplate, exchange: Exchange) -> float:
    """log p(response | prompt) from the definition: one sequence, all logits, float64."""
    prompt = chat.prompt_ids(exchange.prompt)
    response = chat.response_ids(exchange.response)[: exchange.tokens]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0].double()
    log_probabilities = torch.log_softmax(logits, dim=-1)
    return sum(float(log_probabilities[len(prompt) + i - 1, token]) for i, token in enumerate(response))


@pytest.mark.parametrize("tokens_per_batch", [1, 100, 300, 100_000])
def test_scores_are_those_of_each_sequence_alone(
    model: Any, backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch, tokens_per_batch: int
) -> None:
    """Ragged batches of one, some and all sequences; control tokens, and an empty response that only ends."""
    monkeypatch.setattr(loss_module, "_TOKENS_PER_BATCH", tokens_per_batch)
    scores = backend.score(EXCHANGES)
    for exchange, score in zip(EXCHANGES, scores, strict=True):
        assert score.tokens == len(backend.template.response_ids(exchange.response))
        assert score.log_likelihood == pytest.approx(score_alone(model, backend.template, exchange), rel=2e-6)
    assert scores[1].tokens == 1
    assert backend.score([]) == []


def test_the_first_tokens_of_a_response_can_be_scored_alone(model: Any, backend: TransformersBackend) -> None:
    """Beside the whole response, whose first tokens they share."""
    first = [replace(exchange, tokens=2) for exchange in EXCHANGES]
    for exchange, score in zip([*first, *EXCHANGES], backend.score([*first, *EXCHANGES]), strict=True):
        assert score.log_likelihood == pytest.approx(score_alone(model, backend.template, exchange), rel=2e-6)
    assert {score.tokens for score in backend.score(first)} == {1, 2}  # an empty response only ends


def test_the_same_exchange_twice_has_the_same_score(backend: TransformersBackend) -> None:
    scores = backend.score([EXCHANGES[0], EXCHANGES[4], EXCHANGES[0]])
    assert scores[0] == scores[2]


def test_cross_entropy_is_a_mean_over_tokens_then_over_responses() -> None:
    """By hand: (6/3 + 1/1) / 2; a long response counts no more than a short one."""
    scores = [ResponseScore(-6.0, 3), ResponseScore(-1.0, 1)]
    assert scores[0].cross_entropy == 2.0
    assert mean_cross_entropy(scores) == 1.5


def test_a_failed_call_leaves_the_model_as_it_was(
    model: Any, backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook left on the head would cut the logits of whatever the model does next."""
    head = model.get_output_embeddings()
    before = backend.score(EXCHANGES)
    with monkeypatch.context() as patch:

        def fails(*args: Any) -> Any:
            raise RuntimeError("broken")

        patch.setattr(head, "forward", fails)
        with pytest.raises(RuntimeError, match="broken"):
            backend.score(EXCHANGES)
    assert not head._forward_pre_hooks
    assert backend.score(EXCHANGES) == before


def test_scoring_halves_a_batch_that_does_not_fit(backend: TransformersBackend, memory: dict[str, int]) -> None:
    expected = backend.score(EXCHANGES)
    memory["tokens"] = 220
    scores = backend.score(EXCHANGES)
    assert memory["misses"] > 0
    for score, wanted in zip(scores, expected, strict=True):
        assert score.tokens == wanted.tokens
        assert score.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-5)
    memory["tokens"] = 0
    with pytest.raises(torch.OutOfMemoryError):
        backend.score(EXCHANGES)


def test_two_backends_of_one_model_both_pack(model: Any, chat: ChatTemplate) -> None:
    """As a live bunch has them, one per chat template: the second finds the attention that the first has set."""
    first, second = (TransformersBackend(model, chat) for _ in range(2))
    assert first.score(EXCHANGES) == second.score(EXCHANGES)
    lengths = [len(prompt) + len(response) - 1 for prompt, response in map(chat.encode, EXCHANGES)]
    assert first.tokens(EXCHANGES) == second.tokens(EXCHANGES) < sum(lengths)


def test_backward_moves_toward_the_responses(bunch: Bunch, chat: ChatTemplate) -> None:
    """Weights count, and the scores returned are those before; the gradient's own test is against the definition."""
    own = load_model(bunch.base, dtype=torch.float32)
    backend = TransformersBackend(own, chat)
    weights = [1.0, 0.0, 2.0, -1.0, 0.5, 0.5]
    before = backend.backward(EXCHANGES, weights, checkpoint=True)
    assert before == backend.score(EXCHANGES)
    squared = 0.0
    for parameter in own.parameters():
        squared += float(parameter.grad.square().sum())
        parameter.data -= 1e-4 * parameter.grad
    after = backend.score(EXCHANGES)
    change = sum(w * (a.cross_entropy - b.cross_entropy) for w, a, b in zip(weights, after, before, strict=True))
    assert change == pytest.approx(-1e-4 * squared, rel=0.05), "to first order"
    with pytest.raises(ValueError, match="1 weights for 6 exchanges"):
        backend.backward(EXCHANGES, [1.0])


def greedy_alone(model: Any, chat: ChatTemplate, prompt: Prompt, max_new_tokens: int) -> Sample:
    ids = torch.tensor([chat.prompt_ids(prompt)])
    written = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
    )[0, ids.shape[1] :].tolist()
    finished = written[-1] in model.generation_config.eos_token_id
    text = chat.tokenizer.decode(written[:-1] if finished else written, skip_special_tokens=True)
    return Sample(text.strip(), len(written), finished)


@pytest.fixture
def many_stops(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one token in twelve end a sample (2 is the template's end of turn), so that they end at all lengths."""
    monkeypatch.setattr(model.generation_config, "eos_token_id", list(range(2, 300, 12)))


@pytest.mark.parametrize("batch_size", [1, 3, 48])
def test_greedy_is_transformers_own_one_by_one(
    model: Any, chat: ChatTemplate, many_stops: None, batch_size: int
) -> None:
    """Ragged prompts padded on the left, rows that end early and leave the batch, and the order kept."""
    samples = TransformersBackend(model, chat, batch_size=batch_size).generate(PROMPTS, max_new_tokens=25)
    expected = [greedy_alone(model, chat, prompt, 25) for prompt in PROMPTS]
    assert samples == expected
    assert {sample.finished for sample in samples} == {True, False}, "the test's premise"
    assert len({sample.tokens for sample in samples}) > 2, "the test's premise"


def test_samples_do_not_depend_on_the_batch_and_do_on_the_seed(
    model: Any, chat: ChatTemplate, many_stops: None
) -> None:
    def sampled(batch_size: int, seed: int) -> list[Sample]:
        backend = TransformersBackend(model, chat, batch_size=batch_size)
        return backend.generate(PROMPTS, max_new_tokens=12, temperature=0.8, seed=seed)

    alone = sampled(1, seed=5)
    assert sampled(3, seed=5) == sampled(48, seed=5) == alone
    assert sampled(48, seed=6) != alone
    assert len({sample.text for sample in sampled(48, seed=5)}) == len(PROMPTS)
    repeated = TransformersBackend(model, chat).generate([PROMPTS[0]] * 4, max_new_tokens=8, temperature=1.0)
    assert len({sample.text for sample in repeated}) > 1, "each position has a stream of its own"


def test_sampling_follows_the_softmax() -> None:
    """10,000 draws from (0.5, 0.3, 0.2) at temperature 1, and sharper at 0.5; never a token of probability 0."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2, 0.0]]))
    for temperature in (1.0, 0.5):
        expected = torch.softmax(logits[0] / temperature, dim=-1)
        stream = torch.Generator().manual_seed(0)
        drawn = torch.cat([choose(logits, temperature, [stream]) for _ in range(10_000)])
        share = torch.bincount(drawn, minlength=4) / 10_000
        assert (share - expected).abs().max() < 0.015
        assert share[3] == 0
    assert choose(logits, 0.0, []).tolist() == [0]


def test_the_streams_of_neighbouring_prompts_and_seeds_are_unrelated() -> None:
    """Their first draws fill [0, 1) evenly: without mixing, neighbours would start alike."""
    first = torch.stack(
        [
            torch.cat(
                [torch.rand(1, generator=torch.Generator().manual_seed(stream_seed(seed, row))) for row in range(200)]
            )
            for seed in range(5)
        ]
    )
    ordered = first.flatten().sort().values
    even = (torch.arange(1000) + 0.5) / 1000
    assert (ordered - even).abs().max() < 1.36 / math.sqrt(1000), "Kolmogorov-Smirnov at 5%"
    assert abs(float(torch.corrcoef(torch.stack([first[:, :-1].flatten(), first[:, 1:].flatten()]))[0, 1])) < 0.1
    assert abs(float(torch.corrcoef(torch.stack([first[:-1].flatten(), first[1:].flatten()]))[0, 1])) < 0.1


def test_no_sample_is_longer_than_asked(backend: TransformersBackend) -> None:
    for limit in (1, 4):
        samples = backend.generate(PROMPTS, max_new_tokens=limit, temperature=1.0)
        assert all(sample.tokens <= limit for sample in samples)
        assert all(sample.finished or sample.tokens == limit for sample in samples)
    assert backend.generate([], max_new_tokens=4) == []


def test_every_stop_token_of_the_model_ends_a_sample(bunch: Bunch, chat: ChatTemplate) -> None:
    """A list in generation_config.json, as Llama 3 has it, beside the template's end of turn."""
    own = AutoModelForCausalLM.from_pretrained(bunch.base).eval()
    first = TransformersBackend(own, chat).generate([PROMPTS[0]], max_new_tokens=1)[0]
    assert not first.finished
    token = chat.response_ids(first.text)[0]
    own.generation_config.eos_token_id = [0, token]
    ended = TransformersBackend(own, chat).generate([PROMPTS[0]], max_new_tokens=9)[0]
    assert ended == Sample("", 1, True)


def test_generation_backs_off_when_memory_runs_out(model: Any, chat: ChatTemplate, memory: dict[str, int]) -> None:
    expected = TransformersBackend(model, chat, batch_size=4).generate(PROMPTS, max_new_tokens=5, temperature=1.0)
    memory["rows"] = 2
    backend = TransformersBackend(model, chat, batch_size=16)
    done: list[tuple[int, int]] = []
    report = counted(lambda *counts: done.append(counts), len(PROMPTS))
    samples = backend.generate(PROMPTS, max_new_tokens=5, temperature=1.0, on_sample=report)
    assert samples == expected
    assert backend.batch_size <= 2, "the size that fits is remembered"
    assert done[-1] == (len(PROMPTS), len(PROMPTS))
    misses = memory["misses"]
    backend.generate(PROMPTS, max_new_tokens=2)
    assert memory["misses"] == misses
    memory["rows"] = 0
    with pytest.raises(torch.OutOfMemoryError):
        backend.generate(PROMPTS, max_new_tokens=2)
