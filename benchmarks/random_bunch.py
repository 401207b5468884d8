"""Random Llama checkpoints of real sizes, a base and three experts, for the benchmark of merging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from torch import Tensor

from unspoiled.checkpoints import CheckpointWriter, ModelRef

MODELS = ("base", "first", "second", "third")
WEIGHTS = 0.02
"""Standard deviation of a base's weights."""
CHANGE = 0.001
"""Standard deviation of what an expert adds: ten times bfloat16's spacing at most of the weights."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama model.

    Attributes:
        hidden: Width of the residual stream.
        wide: Width inside the feed-forward blocks.
        layers: Number of layers.
        heads: Number of attention heads.
        key_heads: Number of key and value heads.
        vocabulary: Rows of the embeddings.
        tied: Whether the head is the embeddings.
    """

    hidden: int
    wide: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every tensor."""
        hidden, wide, keys = self.hidden, self.wide, self.hidden // self.heads * self.key_heads
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, hidden)}
        for at in range(self.layers):
            for part, shape in {
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.k_proj": (keys, hidden),
                "self_attn.v_proj": (keys, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "mlp.gate_proj": (wide, hidden),
                "mlp.up_proj": (wide, hidden),
                "mlp.down_proj": (hidden, wide),
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
            }.items():
                shapes[f"model.layers.{at}.{part}.weight"] = shape
        shapes["model.norm.weight"] = (hidden,)
        return shapes if self.tied else shapes | {"lm_head.weight": (self.vocabulary, hidden)}


TINY = Shape(hidden=64, wide=128, layers=2, heads=4, key_heads=2, vocabulary=320, tied=True)
"""Nothing to merge: what a merge of these takes is the start-up."""

SIZES = {
    "135m": Shape(hidden=576, wide=1536, layers=30, heads=9, key_heads=3, vocabulary=49152, tied=True),
    "1.1b": Shape(hidden=2048, wide=5632, layers=22, heads=32, key_heads=4, vocabulary=32000, tied=False),
    "8b": Shape(hidden=4096, wide=14336, layers=32, heads=32, key_heads=8, vocabulary=128256, tied=False),
}
"""SmolLM2-135M, TinyLlama, and Llama-3-8B."""
CHAT = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def write_random_bunch(
    directory: Path, shape: Shape, *, models: Sequence[str] = MODELS, seed: int = 0, device: str = "cpu"
) -> None:
    """Write `models` to `directory/NAME` in bfloat16, unless they are there; the same seed gives the same models.

    One tensor is in memory at a time, its numbers drawn on `device`. The directory appears when all are whole.
    """
    if directory.exists():
        return
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tensors = shape.tensors()
    layout = {name: (torch.bfloat16, size) for name, size in tensors.items()}
    generator = torch.Generator(device).manual_seed(seed)
    with ExitStack() as stack:
        writers = []
        for model in models:
            (partial / model).mkdir(parents=True)
            writers.append(stack.enter_context(CheckpointWriter(partial / model, layout)))
        for name, size in tensors.items():
            base = _noise(size, WEIGHTS, generator) + (1.0 if len(size) == 1 else 0.0)
            for model, writer in zip(models, writers, strict=True):
                tuned = base if model == "base" else base + _noise(size, CHANGE, generator)
                writer.write(name, tuned.to(torch.bfloat16).cpu())
    for model in models:
        _write_settings(partial / model, shape)
    partial.rename(directory)


def write_adapter_bunch(directory: Path, shape: Shape, *, rank: int = 16, seed: int = 0) -> list[ModelRef]:
    """Write a base and two LoRA adapters on all its linear layers, unless they are there; return their references."""
    base = directory / "base"
    adapters = [directory / "first", directory / "second"]
    if not directory.exists():
        partial = directory.with_name(f"{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        write_random_bunch(partial, shape, models=["base"], seed=seed, device=device)
        for place in adapters:
            _write_adapter(partial / place.name, shape, rank, torch.Generator().manual_seed(len(place.name)))
        partial.rename(directory)
    return [ModelRef(str(base)), *(ModelRef(str(base), adapter=ModelRef(str(place))) for place in adapters)]


def _write_adapter(place: Path, shape: Shape, rank: int, generator: torch.Generator) -> None:
    place.mkdir()
    tensors = {}
    modules = set()
    for name, size in shape.tensors().items():
        if ".layers." not in name or len(size) < 2:
            continue
        module = name.removesuffix(".weight")
        modules.add(module.rsplit(".", 1)[-1])
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = _noise((rank, size[1]), CHANGE, generator).to(torch.bfloat16)
        tensors[f"{prefix}.lora_B.weight"] = _noise((size[0], rank), WEIGHTS, generator).to(torch.bfloat16)
    save_file(tensors, place / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": sorted(modules), "bias": "none"}
    (place / "adapter_config.json").write_text(json.dumps(settings, indent=2))


def _noise(size: tuple[int, ...], deviation: float, generator: torch.Generator) -> Tensor:
    return torch.randn(size, generator=generator, device=generator.device).mul_(deviation)


def _write_settings(place: Path, shape: Shape) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.wide,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
    }
    (place / "config.json").write_text(json.dumps(config, indent=2))
    vocabulary = {token: at for at, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.save(str(place / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    settings["chat_template"] = CHAT
    (place / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
