"""The bytes of a merge: the recipe's and the inputs', whoever does the work and however much of it at a time."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from command import unspoiled
from tiny import tiny_base, tiny_expert

# Each with what it needs beside weights; dare and della draw, karcher goes over the tensor again and again.
METHODS = {
    "linear": "",
    "ties": "density: 0.4",
    "dare_ties": "density: 0.4, seed: 3",
    "della": "density: 0.5, epsilon: 0.2, seed: 3",
    "karcher": "",
    "sce": "select_topk: 0.3",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base whose embedding is merged in several blocks (2^19 elements each), and two experts."""
    root = tmp_path_factory.mktemp("models")
    base = wide(tiny_base(root / "base"), 0)
    return {"base": base, "one": tiny_expert(base, root / "one", 1), "two": tiny_expert(base, root / "two", 2)}


def wide(base: Path, seed: int) -> Path:
    """Give a base more rows of the embedding than its tokenizer has tokens, as padded models have."""
    import json

    tensors = load_file(base / "model.safetensors")
    rows = torch.randn(40_000, 32, generator=torch.Generator().manual_seed(seed))
    save_file(tensors | {"model.embed_tokens.weight": rows}, base / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text()) | {"vocab_size": len(rows)}
    (base / "config.json").write_text(json.dumps(config))
    return base


def in_shards(model: Path, path: Path, *, order: int) -> Path:
    """Save a model's tensors one a file, in their order or turned round."""
    import json

    path.mkdir()
    for file in model.iterdir():
        if file.suffix != ".safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model / "model.safetensors")
    weight_map = {}
    for number, name in enumerate(sorted(tensors)[::order], start=1):
        weight_map[name] = f"model-{number:05d}-of-{len(tensors):05d}.safetensors"
        save_file({name: tensors[name]}, path / weight_map[name], {"format": "pt"})
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def recipe(method: str, options: str, one: object = "one", two: object = "two") -> str:
    base = "" if method == "karcher" or method == "linear" else "base_model: base\n"
    weight = "" if method in ("karcher", "sce") else "weight: "
    own = [f", parameters: {{weight: {value}}}" if weight else "" for value in ("[0.3, 0.7]", "0.5")]
    return (
        f"merge_method: {method}\n{base}dtype: bfloat16\nparameters: {{{options}}}\n"
        f"models:\n  - {{model: {one}{own[0]}}}\n  - {{model: {two}{own[1]}}}\n"
    )


def weights_merged(place: Path, text: str, name: str, *options: str) -> str:
    """Return the hash of the weights of a merge; recipe names are relative to `place`."""
    (place / "recipe.yaml").write_text(text)
    done = unspoiled("merge", place / "recipe.yaml", place / name, "--quiet", *options)
    assert done.code == 0, done.err
    return hashlib.sha256((place / name / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def place(models: dict[str, Path], tmp_path: Path) -> Path:
    for name, path in models.items():
        (tmp_path / name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_threads_memory_and_the_inputs_shards_change_no_byte(place: Path, models: dict[str, Path], method: str) -> None:
    """40,000 rows of 32 are three blocks, of which 22 MB hold one at a time."""
    text = recipe(method, METHODS[method])
    expected = weights_merged(place, text, "single", "--threads", "1")
    assert weights_merged(place, text, "double", "--threads", "2") == expected
    assert weights_merged(place, text, "many", "--threads", "4", "--memory", "22MB") == expected
    one = in_shards(models["one"], place / "shards", order=1)
    two = in_shards(models["two"], place / "turned", order=-1)
    assert weights_merged(place, recipe(method, METHODS[method], one, two), "sharded", "--threads", "3") == expected


@pytest.mark.parametrize("method", ["dare_ties", "della"])
def test_another_seed_is_another_merge(place: Path, method: str) -> None:
    text = recipe(method, METHODS[method])
    again = [weights_merged(place, text.replace("seed: 3", seed), seed[-1]) for seed in ("seed: 3", "seed: 4")]
    assert again[0] != again[1]
    assert weights_merged(place, text, "again") == again[0]


@pytest.mark.parametrize("method", ["dare_ties", "della"])
def test_what_is_drawn_for_a_tensor_does_not_depend_on_the_others(
    place: Path, models: dict[str, Path], method: str
) -> None:
    """Merged without the tensors before it, or among others, a tensor loses the same entries."""
    text = recipe(method, METHODS[method])
    whole = weights_merged(place, text, "whole")
    assert whole
    kept = "model.layers.1.mlp.up_proj.weight"
    for name, path in models.items():
        (place / name).unlink()
        tensors = load_file(path / "model.safetensors")
        save_file({kept: tensors[kept]}, place / f"{name}.safetensors")
    alone = text.replace("base_model: base", "base_model: ./base.safetensors")
    alone = alone.replace("model: one", "model: ./one.safetensors").replace("model: two", "model: ./two.safetensors")
    alone = alone.replace("weight: [0.3, 0.7]", "weight: 0.7")  # the value at the last of two layers
    weights_merged(place, alone, "alone")
    ours, theirs = (load_file(place / name / "model.safetensors")[kept] for name in ("whole", "alone"))
    assert torch.equal(ours, theirs)
