"""Four tiny Llamas whose tensors cover the inputs that merge methods treat apart."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Models = dict[str, dict[str, Tensor]]

HIDDEN, KEYS, INTERMEDIATE, VOCABULARY, LAYERS = 8, 4, 11, 5, 3
PARTS = {
    "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    "self_attn.k_proj.weight": (KEYS, HIDDEN),
    "self_attn.v_proj.weight": (KEYS, HIDDEN),
    "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
    "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
    "input_layernorm.weight": (HIDDEN,),
    "post_attention_layernorm.weight": (HIDDEN,),
}


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a model."""
    layers = {f"model.layers.{at}.{part}": shape for at in range(LAYERS) for part, shape in PARTS.items()}
    outer = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    return outer | layers | {"lm_head.weight": (VOCABULARY, HIDDEN)}


def make_models(seed: int) -> Models:
    """Draw `base`, and `a`, `b`, `c` near it; random tensors have no two equal magnitudes."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...], size: float) -> Tensor:
        return size * torch.randn(shape, generator=generator)

    shapes = tensor_shapes()
    base = {name: draw(shape, 0.4) + (1.0 if len(shape) == 1 else 0.0) for name, shape in shapes.items()}
    models = {"base": base} | {
        model: {name: base[name] + draw(shape, 0.1) for name, shape in shapes.items()} for model in "abc"
    }
    _set_special_tensors(models, draw(PARTS["self_attn.o_proj.weight"], 1e-3), generator)
    return models


def _set_special_tensors(models: Models, whisper: Tensor, generator: torch.Generator) -> None:
    base, a, b, c = (models[model] for model in ("base", "a", "b", "c"))
    equal = "model.layers.0.self_attn.k_proj.weight"
    for model in (a, b):
        model[equal] = base[equal].clone()
    untouched = "model.layers.0.self_attn.v_proj.weight"
    b[untouched] = base[untouched].clone()
    nearly_parallel = "model.layers.0.self_attn.o_proj.weight"
    a[nearly_parallel] = 1.1 * base[nearly_parallel] + whisper
    antiparallel = "model.layers.1.self_attn.k_proj.weight"
    a[antiparallel] = -base[antiparallel]
    zero_base = "model.layers.1.self_attn.v_proj.weight"
    base[zero_base] = torch.zeros_like(base[zero_base])
    parallel = "model.layers.1.self_attn.o_proj.weight"
    a[parallel] = 2 * base[parallel]
    sparse = "model.layers.1.mlp.gate_proj.weight"
    for model in (a, b, c):
        kept = torch.rand(base[sparse].shape, generator=generator) < 0.4
        model[sparse] = torch.where(kept, model[sparse], base[sparse])


def write_models(models: Models, directory: Path) -> None:
    """Write each model as a Llama checkpoint `directory/MODEL`."""
    for model, tensors in models.items():
        place = directory / model
        place.mkdir(parents=True)
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HIDDEN // KEYS,
            "num_key_value_heads": 1,
            "head_dim": KEYS,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
        }
        (place / "config.json").write_text(json.dumps(config, indent=2))
