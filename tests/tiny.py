"""Tiny real models: real safetensors, a real tokenizer, a real Llama, real PEFT adapters, in milliseconds.

    from tiny import tiny_base, tiny_expert, tiny_adapter

Everything is a function of the seed. The base has 2 layers of width 32, 2 heads over 1 key-value head, about
300 tokens, a ChatML template, and takes about 150 KB in float32.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_CORPUS = [
    "How do I bake bread? Mix flour, water, salt and yeast, and wait.",
    "I can't help with that. It could hurt people.",
    "The answer is 42. The other answer is 7.",
]


@dataclass(frozen=True)
class Bunch:
    """Paths of a tiny bunch; read only, since the whole session shares it."""

    base: Path
    aligned: Path  # LoRA adapter, rank 4
    skilled: Path  # LoRA adapter, rank 2, on the attention only
    full: Path  # full fine-tune


def tiny_tokenizer(*, vocab_size: int = 300, chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer (every text is encodable) with ChatML's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=AddedToken("<|im_start|>", special=True),
        eos_token=AddedToken("<|im_end|>", special=True),
        pad_token=AddedToken("<|im_end|>", special=True),
    )
    fast.chat_template = chat_template
    return fast


def tiny_base(
    path: Path,
    seed: int = 0,
    tie: bool = True,
    *,
    dtype: torch.dtype = torch.float32,
    layers: int = 2,
    vocab_size: int = 300,
    max_shard_size: str | int = "5GB",
) -> Path:
    """Save a tiny LlamaForCausalLM with random weights and its tokenizer; return `path`."""
    tokenizer = tiny_tokenizer(vocab_size=vocab_size)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tie,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        with torch.no_grad():  # transformers starts with 0.02; larger weights make differences visible
            for parameter in model.parameters():
                parameter.copy_(parameter + 0.1 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(path, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(path)
    return path


def tiny_expert(base_path: Path, path: Path, seed: int, *, noise: float = 0.05) -> Path:
    """Save a full fine-tune of a base: its weights plus noise in every tensor; return `path`."""
    model = AutoModelForCausalLM.from_pretrained(base_path, dtype="auto")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            step = noise * torch.randn(parameter.shape, generator=generator)
            parameter.copy_((parameter.float() + step).to(parameter.dtype))
    model.save_pretrained(path)
    PreTrainedTokenizerFast.from_pretrained(base_path).save_pretrained(path)
    return path


def tiny_adapter(base_path: Path, path: Path, seed: int, rank: int = 4, **lora_kwargs: Any) -> Path:
    """Save a PEFT LoRA adapter with non-zero B on all linear layers (or `target_modules`); return `path`."""
    from peft import LoraConfig, get_peft_model

    options: dict[str, Any] = {"r": rank, "lora_alpha": 2 * rank, "task_type": "CAUSAL_LM"}
    options["target_modules"] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    options.update(lora_kwargs)
    model = AutoModelForCausalLM.from_pretrained(base_path, dtype="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of unusual targets, which are what some tests want
        peft_model = get_peft_model(model, LoraConfig(**options))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in sorted(peft_model.named_parameters()):
                if "lora_" in name:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        peft_model.save_pretrained(path)
    return path
