"""Generation by vLLM's engine in this process, for models that a GPU is worth.

Not run on a GPU by us: the calls are those of vLLM's documentation, and are tested against a stand-in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from unspoiled.errors import ResourceError
from unspoiled.inference._chat import ChatTemplate
from unspoiled.inference._load import load_chat_template
from unspoiled.inference._protocols import OnSample, Prompt, Sample, ignored
from unspoiled.inference._sampling import stream_seed

_CHUNK = 256  # prompts; the engine is full with some hundred, and idles at the end of each call


class VLLMGenerator:
    """A `Generator` over an engine of vLLM's.

    Prompts go in as token ids under our own template, so that a control token spelled out in one stays text. Each draws
    from a stream of (seed, stream); what is drawn is vLLM's own, and not what another backend would write.

    Args:
        engine: A `vllm.LLM`.
        template: The model's tokenizer and chat template.
        stop: Token ids that end a sample, beside the template's end of turn.
        chunk: How many prompts are given to the engine at once; samples are told of chunk by chunk.
    """

    def __init__(self, engine: Any, template: ChatTemplate, *, stop: Collection[int] = (), chunk: int = _CHUNK) -> None:
        self._engine = engine
        self._template = template
        self._stop = {template.end_of_turn, *stop}
        self._chunk = chunk

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
        from vllm import SamplingParams

        numbers = range(len(prompts)) if streams is None else streams
        samples: list[Sample] = []
        for start in range(0, len(prompts), self._chunk):
            rows = range(start, min(start + self._chunk, len(prompts)))
            outputs = self._engine.generate(
                [{"prompt_token_ids": self._template.prompt_ids(prompts[row])} for row in rows],
                [
                    SamplingParams(  # all else is off by default: no top-p, no top-k, no penalties
                        temperature=temperature,
                        max_tokens=max_new_tokens,
                        seed=stream_seed(seed, numbers[row]),
                        stop_token_ids=sorted(self._stop),
                        detokenize=False,
                    )
                    for row in rows
                ],
                use_tqdm=False,
            )
            for row, output in zip(rows, outputs, strict=True):
                samples.append(self._read(output.outputs[0]))
                on_sample(row, samples[row])
        return samples

    def _read(self, output: Any) -> Sample:
        tokens = list(output.token_ids)
        text = self._template.decode(tokens[:-1] if tokens and tokens[-1] in self._stop else tokens)
        return Sample(text.strip(), len(tokens), output.finish_reason == "stop")


def open_vllm(
    directory: Path, *, dtype: str = "auto", gpus: int = 1, memory_share: float = 0.9, max_tokens: int | None = None
) -> VLLMGenerator:
    """Load a checkpoint into an engine of vLLM's.

    Args:
        directory: A local checkpoint with safetensors weights, a tokenizer and a chat template; LoRA adapters are to be
            merged first.
        dtype: `auto`, `bfloat16`, `float16` or `float32`.
        gpus: How many GPUs each tensor is divided over.
        memory_share: The share of each GPU's memory that the engine takes, from 0 to 1.
        max_tokens: Longest prompt with its response; None for the model's own limit. Less leaves room for more at once.

    Raises:
        CheckpointError: There is no tokenizer, or no chat template.
        ResourceError: vLLM is not installed.
    """
    try:
        from vllm import LLM
    except ImportError as error:
        raise ResourceError(
            f"{str(directory)!r} is to be run by vLLM, which is not installed: pip install 'unspoiled[vllm]'"
        ) from error
    template = load_chat_template(directory)
    engine = LLM(
        model=str(directory),
        dtype=dtype,
        load_format="safetensors",
        trust_remote_code=False,
        tensor_parallel_size=gpus,
        gpu_memory_utilization=memory_share,
        max_model_len=max_tokens,
        enable_prefix_caching=True,
        seed=0,
    )
    return VLLMGenerator(engine, template, stop=_stop_tokens(directory))


def _stop_tokens(directory: Path) -> list[int]:
    """Return the stop tokens of a checkpoint's generation config."""
    from transformers import GenerationConfig

    try:
        stop = GenerationConfig.from_pretrained(directory, local_files_only=True).eos_token_id
    except OSError:  # it has none
        return []
    return stop if isinstance(stop, list) else [stop] if stop is not None else []
