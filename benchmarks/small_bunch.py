"""Small Llama checkpoints with tokenizers: a base and fine-tunes of it, for benchmarks that run beside mergekit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
PLAIN = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"


@dataclass(frozen=True)
class Member:
    """One model of the bunch: the special tokens that it adds to the bytes, and its chat template."""

    tokens: tuple[str, ...] = ("<|end|>",)
    template: str | None = None


BUNCH = {
    "base": Member(),
    "first": Member(template=PLAIN),
    "second": Member(template=PLAIN),
    "third": Member(),
    "chatml": Member(("<|end|>", "<|im_start|>", "<|im_end|>"), CHATML),
    "tools": Member(("<|end|>", "<|tool|>", "<|im_end|>"), CHATML),
}


def write_small_bunch(directory: Path, dtype: str, *, layers: int = 10, hidden: int = 64, seed: int = 0) -> None:
    """Write every model of `BUNCH` to `directory/NAME`; the same seed gives the same models.

    The weights are drawn in float32 and rounded to `dtype`. `chatml` and `tools` have longer vocabularies than the
    rest, for recipes about tokenizers.
    """
    generator = torch.Generator().manual_seed(seed)
    longest = max(len(_vocabulary(member)) for member in BUNCH.values())
    shapes = _shapes(layers, hidden, longest)
    base = {
        name: 0.05 * torch.randn(shape, generator=generator) + (1.0 if len(shape) == 1 else 0.0)
        for name, shape in shapes.items()
    }
    for model, member in BUNCH.items():
        noise = 0.0 if model == "base" else 0.01
        size = len(_vocabulary(member))
        tensors = {}
        for name, tensor in base.items():
            tuned = (tensor + noise * torch.randn(tensor.shape, generator=generator)).to(DTYPES[dtype])
            tensors[name] = (tuned[:size] if tensor.shape[0] == longest else tuned).contiguous()
        _write(directory / model, tensors, member, layers=layers, hidden=hidden, dtype=dtype)


def _shapes(layers: int, hidden: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    wide, half = 5 * hidden // 2, hidden // 2
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for at in range(layers):
        for part, shape in {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (half, hidden),
            "self_attn.v_proj": (half, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (wide, hidden),
            "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            shapes[f"model.layers.{at}.{part}.weight"] = shape
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}


def _vocabulary(member: Member) -> list[str]:
    return [*sorted(pre_tokenizers.ByteLevel.alphabet()), *member.tokens]


def _write(place: Path, tensors: dict[str, Tensor], member: Member, *, layers: int, hidden: int, dtype: str) -> None:
    place.mkdir(parents=True)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 5 * hidden // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(_vocabulary(member)),
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
    }
    (place / "config.json").write_text(json.dumps(config, indent=2))
    bytes_only = {token: at for at, token in enumerate(_vocabulary(Member(tokens=())))}
    tokenizer = Tokenizer(models.BPE(vocab=bytes_only, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in member.tokens])
    tokenizer.save(str(place / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    if member.template is not None:
        settings["chat_template"] = member.template
    (place / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
