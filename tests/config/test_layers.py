"""Layers are found from tensor names alone, for every naming that is in use."""

import pytest

from unspoiled.config import count_layers, layer_index


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
