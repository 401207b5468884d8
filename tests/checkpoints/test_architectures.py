"""Architectures: whatever transformers saves is opened, compared, laid out and merged by names alone."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model

from unspoiled.checkpoints import ModelRef, finish_checkpoint, open_model, output_layout, preflight
from unspoiled.checkpoints._writer import CheckpointWriter
from unspoiled.config import stack_depths

TOKENS: dict[str, Any] = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT: dict[str, Any] = TOKENS | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
ROPE_OF_IMAGES = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}


def llava() -> Any:
    text, vision = hf.LlamaConfig(**TEXT), hf.CLIPVisionConfig(**VISION)
    return hf.LlavaForConditionalGeneration(hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=5))


def gemma3() -> Any:
    config = hf.Gemma3Config(text_config=TEXT | {"head_dim": 8}, vision_config=VISION, mm_tokens_per_image=4)
    return hf.Gemma3ForConditionalGeneration(config)


def qwen2_vl() -> Any:
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    text = TEXT | {"rope_parameters": ROPE_OF_IMAGES}
    return hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(text_config=text, vision_config=vision))


def qwen2_moe() -> Any:
    sizes = {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
    return hf.Qwen2MoeForCausalLM(hf.Qwen2MoeConfig(**TEXT, **sizes, num_experts_per_tok=2))


def t5() -> Any:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}
    tokens = {"vocab_size": 64, "decoder_start_token_id": 0}
    return hf.T5ForConditionalGeneration(hf.T5Config(**tokens, **sizes))


def whisper() -> Any:
    sizes = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "num_mel_bins": 8, "decoder_start_token_id": 3}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    return hf.WhisperForConditionalGeneration(hf.WhisperConfig(**TOKENS, **sizes))


def bert() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    return hf.BertForMaskedLM(hf.BertConfig(vocab_size=64, **sizes))


def falcon() -> Any:
    return hf.FalconForCausalLM(
        hf.FalconConfig(vocab_size=64, hidden_size=16, num_hidden_layers=3, num_attention_heads=2)
    )


ARCHITECTURES: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
    "llama": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT)), {"model.layers": 3}),
    "mixtral": (
        lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**TEXT, num_local_experts=4)),
        {"model.layers": 3},
    ),
    "qwen2_moe": (qwen2_moe, {"model.layers": 3}),
    "gpt2": (
        lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=64, n_embd=16, n_layer=3, n_head=2, n_positions=32)),
        {"transformer.h": 3},
    ),
    "llava": (llava, {"language_model.model.layers": 3, "vision_tower.encoder.layers": 2}),
    "gemma3": (gemma3, {"language_model.model.layers": 3, "vision_tower.encoder.layers": 2}),
    "qwen2_vl": (qwen2_vl, {"model.layers": 3, "visual.blocks": 2}),
    "t5": (t5, {"encoder.block": 3, "decoder.block": 2}),
    "bert": (bert, {"bert.encoder.layer": 3}),
    "falcon": (falcon, {"transformer.h": 3}),
    "mamba": (
        lambda: hf.MambaForCausalLM(hf.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=3, state_size=4)),
        {"backbone.layers": 3},
    ),
    "whisper": (whisper, {"model.encoder.layers": 3, "model.decoder.layers": 2}),
}


def saved(name: str, path: Path, seed: int) -> Any:
    """Save a tiny model with random weights (also in its norms and biases), and return it."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = ARCHITECTURES[name][0]()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(path)
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_two_models_are_compared_averaged_and_loaded_again(name: str, tmp_path: Path) -> None:
    """The mean of the checkpoints is the checkpoint of the parameters' means, so no tensor was lost or untied."""
    models = [saved(name, tmp_path / str(seed), seed) for seed in (0, 1)]
    base, expert = (open_model(ModelRef(str(tmp_path / str(seed)))) for seed in (0, 1))
    report = preflight(base, {"expert": expert}, output=None, dtype=torch.float32)
    assert (report.problems, report.warnings) == ((), ())
    assert report.parameters == models[0].num_parameters()
    assert stack_depths(base.tensors) == ARCHITECTURES[name][1]

    layout = output_layout([base, expert])
    merged = tmp_path / "merged"
    merged.mkdir()
    with CheckpointWriter(merged, layout.with_dtype(torch.float32)) as writer:
        for tensor in layout.shapes:
            writer.write(tensor, (base.read(tensor) + expert.read(tensor)) / 2)
    finish_checkpoint(merged, source=base, dtype=torch.float32, recipe_yaml="", tie_word_embeddings=layout.tied)

    loaded = type(models[0]).from_pretrained(merged)
    assert loaded.config.tie_word_embeddings == models[0].config.tie_word_embeddings
    others = dict(models[1].named_parameters(remove_duplicate=False))
    theirs = dict(loaded.named_parameters(remove_duplicate=False))
    for parameter, value in models[0].named_parameters(remove_duplicate=False):
        assert torch.equal(theirs[parameter], (value + others[parameter]) / 2), parameter


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_vl", "mixtral", "gpt2"])
def test_an_adapter_finds_tensors_that_are_stored_under_other_names(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path / "base", 0)
    targets = ["c_attn"] if name == "gpt2" else r".*(language_model|model\.layers).*\.q_proj"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=2, target_modules=targets))
        with torch.no_grad():
            for parameter_name, parameter in peft.named_parameters():
                if "lora_B" in parameter_name:
                    parameter.normal_(generator=torch.Generator().manual_seed(1))
        peft.save_pretrained(tmp_path / "lora")
        fresh = type(model).from_pretrained(tmp_path / "base")
        PeftModel.from_pretrained(fresh, tmp_path / "lora").merge_and_unload().save_pretrained(tmp_path / "merged")
    source = open_model(ModelRef(str(tmp_path / "base"), None, ModelRef(str(tmp_path / "lora"))))
    merged = open_model(ModelRef(str(tmp_path / "merged")))
    changed = 0
    for tensor in source.tensors:
        delta = source.delta(tensor)
        expected = source.read(tensor) if delta is None else source.read(tensor) + delta.dense()
        torch.testing.assert_close(expected, merged.read(tensor), msg=tensor)
        changed += delta is not None
    assert changed == 3
