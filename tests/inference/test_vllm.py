"""What vLLM's engine is called with, and what is made of its outputs; a stand-in, as there is no GPU here.

Its `SamplingParams`, `LLM` and `LLM.generate` take the arguments that ours are to give, by vLLM's names, and no others.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tiny import Bunch
from unspoiled.errors import ResourceError
from unspoiled.inference import ChatTemplate, Prompt, Sample, load_chat_template
from unspoiled.inference._sampling import stream_seed
from unspoiled.inference.vllm import VLLMGenerator, open_vllm

PROMPTS = [Prompt("How do I bake bread?"), Prompt("<|im_end|> hello", prefix="Sure, "), Prompt("7", system="Be brief.")]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    seed: int | None = None
    stop_token_ids: list[int] = field(default_factory=list)
    detokenize: bool = True


@dataclass
class CompletionOutput:
    token_ids: Sequence[int]
    finish_reason: str | None


@dataclass
class RequestOutput:
    outputs: list[CompletionOutput]


class LLM:
    """Writes what `replies` say, one after the other."""

    replies: Sequence[tuple[list[int], str]] = ()

    def __init__(
        self,
        *,
        model: str,
        dtype: str,
        load_format: str,
        trust_remote_code: bool,
        tensor_parallel_size: int,
        gpu_memory_utilization: float,
        max_model_len: int | None,
        enable_prefix_caching: bool,
        seed: int,
    ) -> None:
        self.options = dict(locals())
        self.calls: list[tuple[list[dict[str, list[int]]], list[SamplingParams]]] = []

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: list[SamplingParams], *, use_tqdm: bool
    ) -> list[RequestOutput]:
        assert len(prompts) == len(sampling_params)
        assert not use_tqdm
        begun = sum(len(call[0]) for call in self.calls)
        self.calls.append((prompts, sampling_params))
        return [
            RequestOutput([CompletionOutput(tuple(tokens), reason)])
            for tokens, reason in self.replies[begun : begun + len(prompts)]
        ]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.fixture
def chat(bunch: Bunch) -> ChatTemplate:
    return load_chat_template(bunch.base)


def opened(directory: Path, replies: Sequence[tuple[list[int], str]], **options: Any) -> tuple[VLLMGenerator, LLM]:
    LLM.replies = replies
    generator = open_vllm(directory, **options)
    return generator, generator._engine


def test_prompts_go_in_as_our_own_ids_with_streams_of_their_own(vllm: None, bunch: Bunch, chat: ChatTemplate) -> None:
    """A spelled control token stays text; nothing cuts the tail of the softmax."""
    generator, engine = opened(bunch.base, [([5], "length")] * 3)
    generator.generate(PROMPTS, max_new_tokens=9, temperature=0.8, seed=4, streams=[7, 8, 3])
    ((prompts, parameters),) = engine.calls
    assert [prompt["prompt_token_ids"] for prompt in prompts] == [chat.prompt_ids(prompt) for prompt in PROMPTS]
    assert parameters == [
        SamplingParams(
            temperature=0.8,
            max_tokens=9,
            seed=stream_seed(4, stream),
            stop_token_ids=[chat.end_of_turn],
            detokenize=False,
        )
        for stream in (7, 8, 3)
    ]


def test_what_is_made_of_its_outputs(vllm: None, bunch: Bunch, chat: ChatTemplate) -> None:
    """The stop token counts and is not text, whether the engine gives it or not."""
    text = chat.response_ids(" Bread.\n")
    generator, _ = opened(bunch.base, [(text, "stop"), (text[:-1], "stop"), (text[:-1], "length"), ([], "stop")])
    samples = generator.generate([PROMPTS[0]] * 4, max_new_tokens=9)
    length = len(text)
    assert samples == [
        Sample("Bread.", length, True),
        Sample("Bread.", length - 1, True),
        Sample("Bread.", length - 1, False),
        Sample("", 0, True),
    ]


def test_samples_are_told_of_chunk_by_chunk(vllm: None, bunch: Bunch, chat: ChatTemplate) -> None:
    LLM.replies = [([token], "length") for token in range(40, 47)]
    engine = open_vllm(bunch.base)._engine
    generator = VLLMGenerator(engine, chat, chunk=3)
    told: list[tuple[int, int]] = []
    samples = generator.generate(
        [PROMPTS[0]] * 7, max_new_tokens=1, on_sample=lambda position, _: told.append((position, len(engine.calls)))
    )
    assert told == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3)]
    assert [sample.text for sample in samples] == [chat.decode([token]).strip() for token in range(40, 47)]
    assert generator.generate([], max_new_tokens=1) == []


def test_how_the_engine_is_opened(vllm: None, bunch: Bunch) -> None:
    """No code of the checkpoint's, no pickles, and stop tokens of the model's own."""
    generator, engine = opened(bunch.base, [], dtype="bfloat16", gpus=2, memory_share=0.5, max_tokens=4096)
    wanted = {
        "model": str(bunch.base),
        "dtype": "bfloat16",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "max_model_len": 4096,
        "enable_prefix_caching": True,
        "seed": 0,
    }
    assert {name: engine.options[name] for name in wanted} == wanted
    assert 2 in generator._stop, "generation_config.json's eos_token_id"


def test_without_vllm_it_is_one_line_with_the_command(bunch: Bunch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ResourceError, match=r"pip install 'unspoiled\[vllm\]'$"):
        open_vllm(bunch.base)
