"""The two engines: what `stream` writes is what `live` holds, and both are what the models say."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recipes import loaded, merged, opened, recipe
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tiny import Bunch, tiny_adapter, tiny_base, tiny_expert
from unspoiled.checkpoints import ModelRef, open_model
from unspoiled.config import Dtype, Recipe
from unspoiled.errors import CheckpointError, PreflightError
from unspoiled.merging import DTYPES, LiveModel, materialize, merge_to_directory

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
IDS = torch.arange(3, 40).reshape(1, -1)


def lora(bunch: Bunch, name: str) -> str:
    return f"{bunch.base}+{getattr(bunch, name)}"


def lora_recipe(bunch: Bunch, dtype: Dtype) -> Recipe:
    weights = {lora(bunch, "aligned"): (0.3, 0.9), lora(bunch, "skilled"): 0.7}
    return recipe("task_arithmetic", weights, bunch.base, dtype=dtype)


def full_recipe(bunch: Bunch, dtype: Dtype) -> Recipe:
    return recipe("linear", {str(bunch.full): (0.2, 0.7), str(bunch.base): 0.4}, dtype=dtype)


def mixed_recipe(bunch: Bunch, dtype: Dtype) -> Recipe:
    weights = {str(bunch.full): 0.4, lora(bunch, "aligned"): (0.9, 0.1)}
    return recipe("task_arithmetic", weights, bunch.base, dtype=dtype, parameters={"lambda": 0.8})


def mixed_average(bunch: Bunch, dtype: Dtype) -> Recipe:
    return recipe("linear", {str(bunch.full): 0.4, lora(bunch, "aligned"): (0.9, 0.1)}, dtype=dtype)


RecipeOf = Callable[[Bunch, Dtype], Recipe]
KINDS: list[RecipeOf] = [lora_recipe, full_recipe, mixed_recipe, mixed_average]


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters(remove_duplicate=False)}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_live_and_disk_agree_bit_for_bit(bunch: Bunch, tmp_path: Path, kind: RecipeOf, dtype: Dtype) -> None:
    wanted = kind(bunch, dtype)
    models = opened(wanted)
    merge_to_directory(wanted, models, tmp_path / "out")
    live = LiveModel(loaded(bunch.base, DTYPES[dtype]), models)
    live.take_recipe(wanted)
    from_disk = loaded(tmp_path / "out")
    assert from_disk.dtype == DTYPES[dtype]
    assert_same(weights_of(live.model), weights_of(from_disk))
    with torch.no_grad():
        logits = live.model(IDS).logits
        assert torch.equal(logits, from_disk(IDS).logits)
        assert not torch.allclose(logits, loaded(bunch.base, DTYPES[dtype])(IDS).logits, atol=1e-2), "nothing merged"


def test_bfloat16_is_the_float32_merge_rounded_once(bunch: Bunch, tmp_path: Path) -> None:
    wanted = mixed_recipe(bunch, "bfloat16")
    merge_to_directory(wanted, opened(wanted), tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert_same(written, {name: tensor.bfloat16() for name, tensor in merged(wanted).items()})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_recipe_leaves_no_trace_in_the_next(bunch: Bunch, dtype: Dtype) -> None:
    """A → B → model → A is A again: a drift of one bit per trial would make a search irreproducible."""
    recipes = [kind(bunch, dtype) for kind in KINDS]
    models = opened(*recipes)
    live = LiveModel(loaded(bunch.base, DTYPES[dtype]), models)
    first = {}
    for index, wanted in enumerate(recipes):
        live.take_recipe(wanted)
        first[index] = weights_of(live.model)
    for index in (0, 2, 0, 1, 3, 1, 0):
        live.take_model(models.sources[lora(bunch, "aligned") if index % 2 else str(bunch.full)])
        live.take_recipe(recipes[index])
        assert_same(weights_of(live.model), first[index])


def test_a_trial_that_fails_midway_does_not_spoil_the_next(bunch: Bunch) -> None:
    """Weights that cancel in the second layer raise when the first is already merged."""
    from unspoiled.errors import ConfigError

    good = lora_recipe(bunch, "float32")
    bad = recipe(
        "task_arithmetic",
        {lora(bunch, "aligned"): (1.0, 1.0), lora(bunch, "skilled"): (1.0, -1.0)},
        bunch.base,
        parameters={"normalize": True},
    )
    live = LiveModel(loaded(bunch.base), opened(good, bad))
    live.take_recipe(good)
    before = weights_of(live.model)
    with pytest.raises(ConfigError, match="sum to 0"):
        live.take_recipe(bad)
    live.take_recipe(good)
    assert_same(weights_of(live.model), before)


def test_take_model_is_the_model_itself(bunch: Bunch) -> None:
    from peft import PeftModel

    everything = mixed_recipe(bunch, "float32")
    models = opened(everything, lora_recipe(bunch, "float32"))
    live = LiveModel(loaded(bunch.base), models)
    with torch.no_grad():
        for path in (bunch.full, bunch.base):
            live.take_recipe(everything)
            live.take_model(models.sources[str(path)])
            assert_same(weights_of(live.model), weights_of(loaded(path)))
            assert torch.equal(live.model(IDS).logits, loaded(path)(IDS).logits)
        for name in ("aligned", "skilled"):
            live.take_model(models.sources[lora(bunch, name)])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reference = PeftModel.from_pretrained(loaded(bunch.base), getattr(bunch, name)).eval()
            torch.testing.assert_close(live.model(IDS).logits, reference(IDS).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_untied_expert_unties_the_merge(bunch: Bunch, tmp_path: Path, dtype: Dtype) -> None:
    untied = tiny_base(tmp_path / "untied", seed=7, tie=False)
    weights = {str(untied): 0.5, lora(bunch, "aligned"): 0.5}
    wanted = recipe("task_arithmetic", weights, bunch.base, dtype=dtype)
    models = opened(wanted)
    merge_to_directory(wanted, models, tmp_path / "out")
    from_disk = loaded(tmp_path / "out")
    assert from_disk.config.tie_word_embeddings is False
    base, other = load_file(bunch.base / "model.safetensors"), load_file(untied / "model.safetensors")
    expected = base[EMBEDDING] + 0.5 * (other[HEAD] - base[EMBEDDING])
    torch.testing.assert_close(from_disk.lm_head.weight.float(), expected, rtol=1e-2, atol=1e-3)
    live = LiveModel(loaded(bunch.base, DTYPES[dtype]), models)
    for _ in range(2):
        live.take_recipe(wanted)
        assert_same(weights_of(live.model), weights_of(from_disk))
        with torch.no_grad():
            assert torch.equal(live.model(IDS).logits, from_disk(IDS).logits)
        live.take_model(models.sources[str(bunch.base)])
        assert torch.equal(live.model.lm_head.weight, live.model.model.embed_tokens.weight)


def test_a_stored_copy_of_a_tied_head_follows_the_embedding(bunch: Bunch, tmp_path: Path) -> None:
    """A module that holds the head apart, though every model of the bunch is tied, would keep the first head."""
    wanted = full_recipe(bunch, "float32")
    module = loaded(bunch.base)
    module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone())
    live = LiveModel(module, opened(wanted))
    live.take_recipe(wanted)
    assert torch.equal(module.lm_head.weight, merged(wanted)[EMBEDDING])

    base = tmp_path / "copy"
    shutil.copytree(bunch.base, base)
    tensors = load_file(base / "model.safetensors")
    save_file(tensors | {HEAD: tensors[EMBEDDING].clone()}, base / "model.safetensors", {"format": "pt"})
    wanted = recipe("task_arithmetic", {str(bunch.full): 0.5}, base)
    models = opened(wanted)
    merge_to_directory(wanted, models, tmp_path / "out")
    live = LiveModel(loaded(base), models)
    live.take_recipe(wanted)
    assert_same(weights_of(live.model), weights_of(loaded(tmp_path / "out")))


def test_a_module_without_the_checkpoints_tensors_is_refused(bunch: Bunch) -> None:
    shallow = LlamaForCausalLM(
        LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(PreflightError, match=r"have no parameter of their name in LlamaForCausalLM.*layers.1"):
        LiveModel(shallow, opened(lora_recipe(bunch, "float32")))


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return weights_of(PeftModel.from_pretrained(loaded(base, dtype), adapter).merge_and_unload())


def test_materialize_is_pefts_merge_and_unload(bunch: Bunch, tmp_path: Path) -> None:
    for name in ("aligned", "skilled"):
        materialize(lora(bunch, name), tmp_path / name)
        expected = merged_by_peft(bunch.base, getattr(bunch, name), torch.float32)
        written = weights_of(loaded(tmp_path / name))
        assert written.keys() == expected.keys()
        for tensor in written:
            torch.testing.assert_close(written[tensor], expected[tensor], rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        assert not torch.allclose(loaded(tmp_path / "aligned")(IDS).logits, loaded(bunch.base)(IDS).logits, atol=0.1)


def test_materialize_in_bfloat16_rounds_once(tmp_path: Path) -> None:
    """PEFT adds in bf16 and rounds the product first; ours is within that and closer to the truth."""
    base = tiny_base(tmp_path / "base", dtype=torch.bfloat16)
    adapter = tiny_adapter(base, tmp_path / "adapter", seed=1)
    materialize(f"{base}+{adapter}", tmp_path / "out")
    truth = merged_by_peft(base, adapter, torch.float32)
    theirs = merged_by_peft(base, adapter, torch.bfloat16)
    written = weights_of(loaded(tmp_path / "out"))
    for name, tensor in written.items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor.float(), truth[name], rtol=2**-8, atol=1e-6)
        ours_off = (tensor.float() - truth[name]).abs().sum()
        assert ours_off <= (theirs[name].float() - truth[name]).abs().sum()


def test_materialize_in_another_dtype_copies_a_plain_model(bunch: Bunch, tmp_path: Path) -> None:
    materialize(str(bunch.full), tmp_path / "out", dtype="float16")
    written = load_file(tmp_path / "out" / "model.safetensors")
    original = load_file(bunch.full / "model.safetensors")
    assert_same(written, {name: tensor.half() for name, tensor in original.items()})


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_adapters_and_their_materialised_checkpoints_merge_alike(tmp_path: Path, method: str) -> None:
    """Within the one rounding to bf16 that writing the checkpoint costs."""
    base = tiny_base(tmp_path / "base", dtype=torch.bfloat16)
    adapters = [tiny_adapter(base, tmp_path / f"adapter{seed}", seed=seed) for seed in (1, 2)]
    for seed, adapter in enumerate(adapters):
        materialize(f"{base}+{adapter}", tmp_path / f"full{seed}")
    anchor = base if method == "task_arithmetic" else None
    weights = (0.6, 0.4)
    low_rank = merged(
        recipe(method, dict(zip([f"{base}+{adapter}" for adapter in adapters], weights, strict=True)), anchor)
    )
    dense = merged(recipe(method, {str(tmp_path / f"full{seed}"): weights[seed] for seed in (0, 1)}, anchor))
    assert low_rank.keys() == dense.keys()
    for name, tensor in low_rank.items():
        # each input is off by half a bf16 step (2^-9) of its own size, and they are up to ~1 in size here
        torch.testing.assert_close(tensor, dense[name], rtol=2**-8, atol=2**-9)


def test_a_materialised_expert_is_the_adapter_for_the_live_model(bunch: Bunch, tmp_path: Path) -> None:
    materialize(lora(bunch, "aligned"), tmp_path / "full")
    full, low_rank = open_model(ModelRef(str(tmp_path / "full"))), lora_recipe(bunch, "float32")
    models = opened(low_rank)
    live = LiveModel(loaded(bunch.base), models)
    live.take_model(models.sources[lora(bunch, "aligned")])
    held = weights_of(live.model)
    live.take_model(full)
    assert_same(weights_of(live.model), held)


def test_an_expert_on_another_base_than_the_recipes(bunch: Bunch, tmp_path: Path) -> None:
    """Its task vector is its whole difference from the recipe's base, not its adapter alone."""
    other = tiny_expert(bunch.base, tmp_path / "other", seed=9)
    materialize(f"{other}+{bunch.aligned}", tmp_path / "full")
    tensors = merged(recipe("task_arithmetic", {f"{other}+{bunch.aligned}": 0.5}, bunch.base))
    expected = merged(recipe("task_arithmetic", {str(tmp_path / "full"): 0.5}, bunch.base))
    for name in tensors:
        torch.testing.assert_close(tensors[name], expected[name], rtol=1e-5, atol=1e-6)


def test_an_adapted_base_is_a_base(bunch: Bunch) -> None:
    """Task vectors are then taken from the base with its adapter."""
    base = lora(bunch, "skilled")
    start, expert = merged(recipe("linear", {base: 1.0})), merged(recipe("linear", {lora(bunch, "aligned"): 1.0}))
    tensors = merged(recipe("task_arithmetic", {lora(bunch, "aligned"): 0.25}, base))
    for name in tensors:
        torch.testing.assert_close(tensors[name], 0.75 * start[name] + 0.25 * expert[name], rtol=1e-5, atol=1e-6)


def test_the_live_model_refuses_a_broken_expert_by_name(bunch: Bunch, tmp_path: Path) -> None:
    shutil.copytree(bunch.full, tmp_path / "broken")
    tensors = load_file(tmp_path / "broken" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(tensors, tmp_path / "broken" / "model.safetensors", metadata={"format": "pt"})
    wanted = recipe("linear", {str(tmp_path / "broken"): 1.0, str(bunch.full): 1.0})
    models = opened(wanted)
    live = LiveModel(loaded(bunch.base), models)
    live.take_model(models.sources[str(bunch.full)])
    with pytest.raises(
        CheckpointError, match=r"broken: tensor 'model.layers.1.mlp.up_proj.weight' has 1 NaN .*\[3, 5\]"
    ):
        live.take_model(models.sources[str(tmp_path / "broken")])
