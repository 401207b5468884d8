"""Layers are found from tensor names alone, for every naming that is in use."""

import pytest

from unspoiled.config import count_layers, layer_index, layer_stack, stack_depths


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.layers.12.self_attn.q_proj.weight", 12),
        ("transformer.h.3.attn.c_attn.weight", 3),
        ("h.0.ln_1.bias", 0),
        ("gpt_neox.layers.5.attention.dense.weight", 5),
        ("decoder.block.4.layer.0.SelfAttention.q.weight", 4),
        ("encoder.layer.7.output.dense.weight", 7),
        ("transformer.blocks.1.ffn.up_proj.weight", 1),
        ("backbone.layers.2.mixer.A_log", 2),
        ("model.layers.3.block_sparse_moe.experts.7.w1.weight", 3),
        ("language_model.model.layers.31.mlp.down_proj.weight", 31),
        ("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", 9),
        ("model.embed_tokens.weight", None),
        ("model.norm.weight", None),
        ("lm_head.weight", None),
        ("model.layers_norm.1.weight", None),
        ("classifier.0.weight", None),
        ("layers.x.weight", None),
        ("layers.-1.weight", None),
        ("layers." + "9" * 5000 + ".w", None),  # no model has that many, and a count of them would be a bomb
    ],
)
def test_layers_are_found_from_names(name: str, layer: int | None) -> None:
    assert layer_index(name) == layer


def test_layers_are_counted() -> None:
    assert count_layers(["model.embed_tokens.weight", "model.layers.0.w", "model.layers.1.w"]) == 2
    assert count_layers(["lm_head.weight"]) == 0
    assert count_layers([]) == 0


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("model.layers.12.mlp.up_proj.bias", ("model.layers", 12)),
        ("h.3.attn.c_attn.weight", ("h", 3)),
        ("model.language_model.layers.4.mlp.experts.63.down_proj.weight", ("model.language_model.layers", 4)),
        ("vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias", ("vision_tower.vision_model.encoder.layers", 1)),
        ("visual.blocks.0.attn.qkv.weight", ("visual.blocks", 0)),
        ("encoder.block.2.layer.1.DenseReluDense.wi.weight", ("encoder.block", 2)),
        ("model.decoder.layers.5.encoder_attn.k_proj.weight", ("model.decoder.layers", 5)),
        ("visual.merger.mlp.0.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_the_stack_is_the_name_up_to_the_number(name: str, stack: tuple[str, int] | None) -> None:
    assert layer_stack(name) == stack


def test_every_tower_has_its_own_depth() -> None:
    names = [f"visual.blocks.{i}.norm.weight" for i in range(3)] + ["merger.weight"]
    names += [f"model.layers.{i}.norm.weight" for i in (1, 0)]
    assert stack_depths(names) == {"visual.blocks": 3, "model.layers": 2}
    assert count_layers(names) == 3
