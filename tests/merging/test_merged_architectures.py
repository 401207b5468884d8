"""`unspoiled merge` of other things than one language model: raw weights, mixtures of experts, eyes."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from command import Finished, unspoiled
from tiny import Bunch
from unspoiled.checkpoints import verify_manifest

TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def mixtral() -> Any:
    return hf.MixtralForCausalLM(hf.MixtralConfig(**TEXT, num_local_experts=4))


def llava() -> Any:
    vision = hf.CLIPVisionConfig(**VISION, image_size=28, patch_size=14)
    config = hf.LlavaConfig(vision_config=vision, text_config=hf.LlamaConfig(**TEXT), image_token_index=5)
    return hf.LlavaForConditionalGeneration(config)


def saved(make: Callable[[], Any], path: Path, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = make().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(path)
    return model


def merge(place: Path, text: str, *options: str) -> Finished:
    (place / "recipe.yaml").write_text(text)
    return unspoiled("merge", place / "recipe.yaml", place / "out", "--quiet", *options)


def linear(one: object, other: object) -> str:
    return (
        f"merge_method: linear\ndtype: float32\nmodels:\n  - {{model: {one}, parameters: {{weight: 1}}}}\n"
        f"  - {{model: {other}, parameters: {{weight: 3}}}}\n"
    )


@pytest.mark.parametrize("make", [mixtral, llava], ids=["mixtral", "llava"])
def test_the_mean_of_two_loads_and_computes_what_the_mean_computes(make: Callable[[], Any], tmp_path: Path) -> None:
    one, other = (saved(make, tmp_path / name, seed) for seed, name in enumerate(("one", "other")))
    done = merge(tmp_path, linear("./one", "./other"))
    assert done.code == 0, done.err
    loaded = type(one).from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
            mine.copy_((mine + 3 * theirs) / 4)
    inputs = {"input_ids": torch.arange(6, 14)[None]}
    if make is llava:
        inputs["input_ids"][0, :4] = 5  # four patches of an image
        inputs["pixel_values"] = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, one(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_an_experts_gradient_runs_over_the_layers_of_its_own_tower(tmp_path: Path) -> None:
    """The vision tower has two layers and the text three: each has the last value at its own last layer."""
    for seed, name in enumerate(("one", "other")):
        saved(llava, tmp_path / name, seed)
    text = linear("./one", "./other").replace("weight: 1}", "weight: [1, 0]}").replace("weight: 3}", "weight: [0, 1]}")
    assert merge(tmp_path, text).code == 0
    one, other, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "other", "out"))
    for name, tensor in ours.items():
        if "layers.0." in name:
            assert torch.equal(tensor, one[name]), name
        elif ("vision" in name and "layers.1." in name) or "layers.2." in name:
            assert torch.equal(tensor, other[name]), name


def test_raw_weights_merge_without_a_config(bunch: Bunch, tmp_path: Path) -> None:
    for name in ("base", "full"):
        shutil.copy(getattr(bunch, name) / "model.safetensors", tmp_path / f"{name}.safetensors")
    done = merge(tmp_path, linear("./base.safetensors", "./full.safetensors"))
    assert done.code == 0, done.err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["mergekit_config.yml", "model.safetensors", "unspoiled.json"]
    verify_manifest(tmp_path / "out")
    base, full, ours = (load_file(path / "model.safetensors") for path in (bunch.base, bunch.full, tmp_path / "out"))
    assert ours.keys() == base.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, (base[name] + 3 * full[name]) / 4, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("value", "options", "complaint"),
    [
        (float("nan"), [], "/spoiled.safetensors: tensor 'b' has 1 NaN or Inf"),
        (9e4, ["--dtype", "float16"], "tensor 'b' merges to values between"),
    ],
)
def test_a_raw_value_that_can_not_be_written_is_named(
    tmp_path: Path, value: float, options: list[str], complaint: str
) -> None:
    """In a tensor of several blocks, whose last holds it."""
    tensors = {"a": torch.ones(4, 4), "b": torch.ones(1200, 1000)}
    save_file(tensors, tmp_path / "sound.safetensors")
    tensors["b"][1190, 7] = value
    save_file(tensors, tmp_path / "spoiled.safetensors")
    done = merge(tmp_path, linear("./sound.safetensors", "./spoiled.safetensors"), *options)
    assert done.code == 3
    assert complaint in done.err
    assert not (tmp_path / "out").exists()


def test_the_order_of_tensors_in_a_file_makes_no_difference(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(8, 8, generator=generator) for name in ("c", "a", "b")}
    results = []
    for order in (1, -1):
        (place := tmp_path / str(order)).mkdir()
        for name, scale in (("one", 1.0), ("other", 2.0)):
            save_file({key: tensors[key] * scale for key in sorted(tensors)[::order]}, place / f"{name}.safetensors")
        text = linear("./one.safetensors", "./other.safetensors")
        text = text.replace("linear", "dare_linear\nbase_model: ./one.safetensors\nparameters: {density: 0.5}")
        assert merge(place, text).code == 0
        results.append((place / "out" / "model.safetensors").read_bytes())
    assert results[0] == results[1]
