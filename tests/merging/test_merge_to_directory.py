"""A merge on disk: whole or not at all, the same bytes every time, and a model that works."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from recipes import loaded, opened, recipe
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tiny import Bunch, tiny_adapter, tiny_base, tiny_expert
from unspoiled.checkpoints import RECIPE_NAME, open_checkpoint, verify_manifest
from unspoiled.config import FilteredValue, Recipe, read_recipe
from unspoiled.errors import CheckpointError, UnspoiledError
from unspoiled.merging import Models, merge_to_directory

Q1 = "model.layers.1.self_attn.q_proj.weight"
UP0 = "model.layers.0.mlp.up_proj.weight"


def spoiled(original: Path, path: Path, tensor: str, value: float, file: str = "model.safetensors") -> Path:
    """Copy a checkpoint or an adapter with one value of one tensor replaced."""
    shutil.copytree(original, path)
    tensors = load_file(path / file)
    tensors[tensor][1, 2] = value
    save_file(tensors, path / file, {"format": "pt"})
    return path


def written_bytes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def assert_refused(wanted: Recipe, root: Path, message: str) -> None:
    """The merge fails with the message, and `root` holds what it held before."""
    before = sorted(root.rglob("*"))
    with pytest.raises(CheckpointError, match=message):
        merge_to_directory(wanted, opened(wanted), root / "out")
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_names_expert_and_tensor(bunch: Bunch, tmp_path: Path, value: float) -> None:
    broken = spoiled(bunch.full, tmp_path / "diverged", Q1, value)
    wanted = recipe("task_arithmetic", {str(bunch.full): 0.5, str(broken): 0.5}, bunch.base)
    assert_refused(wanted, tmp_path, rf"/diverged: tensor '{Q1}' has 1 NaN or Inf .*at \[1, 2\]")


def test_infinities_that_meet_are_found_too(bunch: Bunch, tmp_path: Path) -> None:
    """inf − inf: the merge holds NaN where the inputs hold infinity."""
    broken = spoiled(bunch.full, tmp_path / "diverged", Q1, float("inf"))
    wanted = recipe("linear", {str(broken): 1.0, str(bunch.full): 1.0})
    assert_refused(wanted, tmp_path, rf"/diverged: tensor '{Q1}'")


def test_a_broken_adapter_is_named(bunch: Bunch, tmp_path: Path) -> None:
    key = f"base_model.model.{Q1.removesuffix('.weight')}.lora_B.weight"
    broken = spoiled(bunch.aligned, tmp_path / "diverged", key, float("nan"), "adapter_model.safetensors")
    wanted = recipe("task_arithmetic", {f"{bunch.base}+{broken}": 0.5}, bunch.base)
    assert_refused(wanted, tmp_path, rf"\+.*/diverged: tensor '{Q1}'")


def test_a_broken_base_is_named(bunch: Bunch, tmp_path: Path) -> None:
    broken = spoiled(bunch.base, tmp_path / "broken", Q1, float("nan"))
    wanted = recipe("task_arithmetic", {str(bunch.full): 0.5}, broken)
    assert_refused(wanted, tmp_path, rf"/broken: tensor '{Q1}'")


def test_overflow_of_the_output_dtype_names_the_tensor(bunch: Bunch, tmp_path: Path) -> None:
    large = spoiled(bunch.full, tmp_path / "large", UP0, 60_000.0)
    weights = {str(large): 1.0, str(bunch.full): 1.0}
    safe = recipe("task_arithmetic", weights, bunch.base, out_dtype="float16")
    merge_to_directory(safe, opened(safe), tmp_path / "fits")
    doubled = recipe("task_arithmetic", {str(large): 2.0}, bunch.base, out_dtype="float16")
    assert_refused(doubled, tmp_path, rf"'{UP0}' merges to values between .* and 1\.2e\+05, which overflow float16")
    wide = recipe("task_arithmetic", {str(large): 2.0}, bunch.base, out_dtype="bfloat16")
    merge_to_directory(wide, opened(wide), tmp_path / "wide")


def test_a_failed_merge_leaves_the_earlier_result(bunch: Bunch, tmp_path: Path) -> None:
    good = recipe("linear", {str(bunch.full): 1.0})
    merge_to_directory(good, opened(good), tmp_path / "out")
    before = written_bytes(tmp_path / "out")
    broken = spoiled(bunch.full, tmp_path / "diverged", Q1, float("nan"))
    bad = recipe("linear", {str(broken): 1.0})
    assert_refused(bad, tmp_path, "diverged")
    assert written_bytes(tmp_path / "out") == before


def test_weights_that_cancel_leave_nothing(bunch: Bunch, tmp_path: Path) -> None:
    """Found at a tensor in the middle, when others are already in the staging directory."""
    weight = (FilteredValue(filter="layers.1", value=-1.0), FilteredValue(value=1.0))
    wanted = recipe("linear", {str(bunch.full): 1.0, str(bunch.base): weight})
    with pytest.raises(UnspoiledError, match="sum to 0"):
        merge_to_directory(wanted, opened(wanted), tmp_path / "out", threads=1)
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes_from_any_number_of_threads(bunch: Bunch, tmp_path: Path) -> None:
    """Several shards, dense and low-rank experts: neither order nor layout is left to the scheduler."""
    weights = {str(bunch.full): (0.4, 0.6), f"{bunch.base}+{bunch.aligned}": 0.7}
    wanted = recipe("task_arithmetic", weights, bunch.base, dtype="bfloat16")
    results = []
    for threads in (1, 2, 4):
        out = tmp_path / str(threads)
        merge_to_directory(wanted, opened(wanted), out, threads=threads, shard_size=20_000)
        results.append(written_bytes(out))
    assert results[0] == results[1] == results[2]
    assert sum(name.endswith(".safetensors") for name in results[0]) == 3


def test_a_merge_of_shards_is_the_merge_of_one_file(bunch: Bunch, tmp_path: Path) -> None:
    """Experts of any shard layout, differing between them, give the same tensors in any layout."""
    base = tiny_base(tmp_path / "base", max_shard_size=50_000)
    expert = tiny_expert(bunch.base, tmp_path / "expert", seed=3)
    assert len(list(base.glob("*.safetensors"))) > 1
    whole = recipe("linear", {str(bunch.base): 0.3, str(bunch.full): 0.7})
    split = recipe("linear", {str(base): 0.3, str(expert): 0.7})
    merge_to_directory(whole, opened(whole), tmp_path / "whole")
    merge_to_directory(split, opened(split), tmp_path / "split", shard_size=30_000)
    one, several = open_checkpoint(tmp_path / "whole"), open_checkpoint(tmp_path / "split")
    assert len({info.file for info in several.tensors.values()}) > 1
    assert one.tensors.keys() == several.tensors.keys()
    assert all(torch.equal(one.read(name), several.read(name)) for name in one.tensors)
    with torch.no_grad():
        ids = torch.arange(10).reshape(1, 10)
        assert torch.equal(loaded(tmp_path / "whole")(ids).logits, loaded(tmp_path / "split")(ids).logits)


def test_the_result_reloads_talks_and_knows_its_recipe(bunch: Bunch, tmp_path: Path) -> None:
    weights = {f"{bunch.base}+{bunch.aligned}": (0.5, 0.25), str(bunch.full): 0.5}
    wanted = recipe("task_arithmetic", weights, bunch.base, dtype="bfloat16", parameters={"lambda": 0.9})
    steps: list[tuple[int, int]] = []
    merge_to_directory(
        wanted,
        opened(wanted),
        tmp_path / "out",
        files={"README.md": "# card"},
        progress=lambda *step: steps.append(step),
    )
    verify_manifest(tmp_path / "out")
    total = open_checkpoint(tmp_path / "out").size_bytes
    assert steps == sorted(set(steps)), "bytes done never fall"
    assert steps[-1] == (total, total)
    assert read_recipe(tmp_path / "out" / RECIPE_NAME) == wanted
    assert (tmp_path / "out" / "README.md").read_text() == "# card"

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(bunch.base)
    assert tokenizer.chat_template == theirs.chat_template
    chat = [{"role": "user", "content": "How do I bake bread?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model = loaded(tmp_path / "out")
    with torch.no_grad():
        written = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert written.shape[1] == inputs["input_ids"].shape[1] + 5


def test_the_tokenizer_and_template_that_were_chosen(bunch: Bunch, tmp_path: Path) -> None:
    other = tiny_expert(bunch.base, tmp_path / "other", seed=4)
    (other / "chat_template.jinja").write_text("{{ 'other' }}")
    weights = {str(bunch.full): 0.5, str(other): 0.5}

    def template(name: str, wanted: Recipe, **options: object) -> str:
        merge_to_directory(wanted, opened(wanted), tmp_path / name, **options)  # type: ignore[arg-type]
        return str(AutoTokenizer.from_pretrained(tmp_path / name).chat_template)

    plain = recipe("linear", weights)
    named = recipe("linear", weights, tokenizer_source=str(other))
    text = recipe("linear", weights, chat_template="{{ 'recipe' }}")
    assert "<|im_start|>" in template("first", plain)
    assert template("named", named) == "{{ 'other' }}"
    assert template("text", text) == "{{ 'recipe' }}"
    assert template("argument", text, chat_template="{{ 'argument' }}") == "{{ 'argument' }}"
    assert template("directory", plain, tokenizer=other) == "{{ 'other' }}"


def test_relative_paths_start_at_the_recipes_directory(bunch: Bunch, tmp_path: Path) -> None:
    """ModelRef reads the names; a hub id is read the same way and only its download differs."""
    shutil.copytree(bunch.full, tmp_path / "experts" / "full")
    (tmp_path / "recipe.yaml").write_text(
        f"merge_method: linear\nmodels:\n  - model: ./experts/full\n    parameters: {{weight: 2}}\n"
        f"  - model: {bunch.base}+{bunch.aligned}\n    parameters: {{weight: 1}}\n"
    )
    wanted = read_recipe(tmp_path / "recipe.yaml")
    merge_to_directory(wanted, Models.open([wanted], tmp_path), tmp_path / "out")
    absolute = recipe("linear", {str(bunch.full): 2.0, f"{bunch.base}+{bunch.aligned}": 1.0})
    merge_to_directory(absolute, opened(absolute), tmp_path / "absolute")
    one, other = load_file(tmp_path / "out/model.safetensors"), load_file(tmp_path / "absolute/model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_experts_of_several_dtypes(bunch: Bunch, tmp_path: Path) -> None:
    """bf16, fp16 and fp32 meet in float32; the output's dtype is the base's."""
    half = tiny_base(tmp_path / "half", seed=1, dtype=torch.float16)
    brief = tiny_base(tmp_path / "brief", seed=2, dtype=torch.bfloat16)
    adapter = tiny_adapter(bunch.base, tmp_path / "adapter", seed=3)
    weights = {str(half): 0.5, str(brief): 0.25, f"{bunch.base}+{adapter}": 0.25}
    wanted = recipe("task_arithmetic", weights, bunch.base)
    merge_to_directory(wanted, opened(wanted), tmp_path / "out")
    tensors = [load_file(path / "model.safetensors")["model.norm.weight"] for path in (bunch.base, half, brief)]
    base, first, second = (tensor.double() for tensor in tensors)
    expected = base + 0.5 * (first - base) + 0.25 * (second - base)
    written = load_file(tmp_path / "out" / "model.safetensors")["model.norm.weight"]
    assert written.dtype == torch.float32
    torch.testing.assert_close(written.double(), expected, rtol=1e-6, atol=1e-7)
