"""The plan: which coefficient reaches which tensor, and the recipes that are refused."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import merged, opened, recipe
from safetensors.torch import load_file, save_file

from tiny import Bunch, tiny_expert
from unspoiled.config import FilteredValue, ModelEntry, Recipe
from unspoiled.errors import ConfigError, PreflightError
from unspoiled.merging import MergePlan

EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"


def effect(wanted: Recipe, base: Path, full: Path) -> dict[str, float]:
    """Return, per tensor, how much of the full expert's task vector a task-arithmetic merge added."""
    before, after = load_file(base / "model.safetensors"), load_file(full / "model.safetensors")
    found = {}
    for name, tensor in merged(wanted).items():
        vector = (after[name] - before[name]).flatten()
        found[name] = float((tensor - before[name]).flatten() @ vector / (vector @ vector))
    return found


def by_weight(bunch: Bunch, weight: Any, **options: Any) -> dict[str, float]:
    wanted = recipe("task_arithmetic", {str(bunch.full): weight}, bunch.base, **options)
    return effect(wanted, bunch.base, bunch.full)


def test_a_gradient_reaches_each_layer_and_its_first_entry_everything_else(bunch: Bunch) -> None:
    for name, share in by_weight(bunch, (0.25, 0.75)).items():
        assert share == pytest.approx(0.75 if "layers.1." in name else 0.25, abs=1e-4), name


def test_filters_are_tried_in_order(bunch: Bunch) -> None:
    weight = (
        FilteredValue(filter="self_attn", value=0.25),
        FilteredValue(filter="layers.0", value=0.5),
        FilteredValue(value=0.75),
    )
    for name, share in by_weight(bunch, weight).items():
        expected = 0.25 if "self_attn" in name else 0.5 if "layers.0" in name else 0.75
        assert share == pytest.approx(expected, abs=1e-4), name


def test_a_models_weight_goes_before_the_recipes(bunch: Bunch) -> None:
    parameters = {"weight": (FilteredValue(filter="mlp", value=0.5), FilteredValue(value=0.25))}
    own = (FilteredValue(filter="up_proj", value=1.0),)
    for name, share in by_weight(bunch, own, parameters=parameters).items():
        expected = 1.0 if "up_proj" in name else 0.5 if "mlp" in name else 0.25
        assert share == pytest.approx(expected, abs=1e-4), name


def test_parameters_of_the_whole_merge_may_differ_between_tensors(bunch: Bunch) -> None:
    """mergekit resolves every parameter per tensor, so that `lambda` can be a gradient."""
    shares = by_weight(bunch, 1.0, parameters={"lambda": (0.25, 0.75)})
    for name, share in shares.items():
        assert share == pytest.approx(0.75 if "layers.1." in name else 0.25, abs=1e-4), name
    normalize = (FilteredValue(filter="mlp", value=True), FilteredValue(value=False))
    for name, share in by_weight(bunch, 0.5, parameters={"normalize": normalize}).items():
        assert share == pytest.approx(1.0 if "mlp" in name else 0.5, abs=1e-4), name


def test_the_base_among_the_models_is_no_expert(bunch: Bunch) -> None:
    """mergekit skips it in methods of task vectors, and its weight doesn't count in `normalize`."""
    options = {"parameters": {"normalize": True}}
    alone = merged(recipe("task_arithmetic", {str(bunch.full): 0.5}, bunch.base, **options))
    beside = merged(recipe("task_arithmetic", {str(bunch.base): 9.0, str(bunch.full): 0.5}, bunch.base, **options))
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_tensors_that_no_expert_changes_are_the_bases_bit_for_bit(bunch: Bunch) -> None:
    base = load_file(bunch.base / "model.safetensors")
    lora = f"{bunch.base}+{bunch.skilled}"
    for wanted in (
        recipe("task_arithmetic", {lora: 0.3}, bunch.base),
        recipe("linear", {lora: 0.3, f"{bunch.base}+{bunch.aligned}": 0.4}),
    ):
        tensors = merged(wanted)
        assert torch.equal(tensors[EMBEDDING], base[EMBEDDING])
        assert torch.equal(tensors[NORM], base[NORM])
        changed = "model.layers.0.self_attn.q_proj.weight"
        assert not torch.equal(tensors[changed], base[changed])
    halved = merged(recipe("linear", {lora: 0.5}, parameters={"normalize": False}))
    assert torch.equal(halved[EMBEDDING], base[EMBEDDING] * 0.5), "without normalize, common tensors are scaled too"


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("linear", {"wieght": 1.0}, r"sets 'wieght', which 'linear' does not take\. Did you mean 'weight'\?"),
        ("linear", {"density": 0.5}, r"sets 'density'.*It takes: weight, normalize"),
        ("linear", {"normalize": 0.5}, r"'normalize' of 'linear' .* is 0\.5: it must be true or false"),
        ("linear", {"weight": True}, r"'weight' of 'linear' .* is true: it must be a number"),
        ("task_arithmetic", {"lamda": 1.0}, r"Did you mean 'lambda'\?"),
    ],
)
def test_unknown_and_mistyped_parameters_of_the_recipe(
    bunch: Bunch, method: str, parameters: dict[str, Any], message: str
) -> None:
    base = bunch.base if method == "task_arithmetic" else None
    options = {"parameters": {"weight": 1.0} | parameters}
    wanted = recipe(method, {str(bunch.full): None}, base, **options)
    with pytest.raises(ConfigError, match=message):
        MergePlan(wanted, opened(wanted))


def test_a_parameter_of_the_merge_under_a_model_says_where_it_belongs(bunch: Bunch) -> None:
    entry = ModelEntry(model=str(bunch.full), parameters={"weight": 1.0, "normalize": False})
    wanted = Recipe(merge_method="linear", models=(entry,))
    message = rf"model {str(bunch.full)!r} sets 'normalize', which holds for the whole merge: move it to the top"
    with pytest.raises(ConfigError, match=message):
        MergePlan(wanted, opened(wanted))


def test_a_missing_weight_is_found_before_any_work(bunch: Bunch) -> None:
    """Also one that is missing for some tensors only, here every tensor outside of the MLPs."""
    only_mlp = (FilteredValue(filter="mlp", value=0.5),)
    for weight in (None, only_mlp):
        wanted = recipe("task_arithmetic", {str(bunch.full): weight}, bunch.base)
        with pytest.raises(ConfigError, match=rf"'weight' .* is missing for model {re.escape(repr(str(bunch.full)))}"):
            MergePlan(wanted, opened(wanted))


def test_task_vectors_need_a_base_and_an_expert(bunch: Bunch) -> None:
    wanted = recipe("task_arithmetic", {str(bunch.full): 1.0})
    with pytest.raises(ConfigError, match="'task_arithmetic' needs a base_model"):
        MergePlan(wanted, opened(wanted))
    wanted = recipe("task_arithmetic", {str(bunch.base): 1.0}, bunch.base)
    with pytest.raises(ConfigError, match="merges 1 or more models beside the base, and the recipe names none"):
        MergePlan(wanted, opened(wanted))


def test_models_that_do_not_fit_are_refused_by_name(bunch: Bunch, tmp_path: Path) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(bunch.full, lacking)
    tensors = load_file(lacking / "model.safetensors")
    del tensors[NORM]
    save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    wanted = recipe("linear", {str(bunch.base): 1.0, str(lacking): 1.0})
    with pytest.raises(PreflightError, match=rf"lacking': lacks 1 tensors that the base has: '{NORM}'"):
        MergePlan(wanted, opened(wanted))


def test_the_output_dtype_is_the_recipes_else_the_bases(bunch: Bunch, tmp_path: Path) -> None:
    from tiny import tiny_base

    base = tiny_base(tmp_path / "bf16", dtype=torch.bfloat16)
    expert = tiny_expert(bunch.base, tmp_path / "float32", seed=5)
    weights = {str(expert): 1.0}

    def dtype(**options: Any) -> torch.dtype:
        wanted = recipe("task_arithmetic", weights, base, **options)
        return MergePlan(wanted, opened(wanted)).dtype

    assert dtype() == torch.bfloat16
    assert dtype(dtype="float32") == torch.float32
    assert dtype(dtype="float32", out_dtype="float16") == torch.float16


def test_a_model_that_is_not_open_is_named(bunch: Bunch) -> None:
    known = recipe("task_arithmetic", {str(bunch.full): 1.0}, bunch.base)
    for stranger in (
        recipe("task_arithmetic", {"moved/away": 1.0}, bunch.base),
        recipe("linear", {str(bunch.full): 1.0, "moved/away": 1.0}),
        recipe("task_arithmetic", {str(bunch.full): 1.0}, "moved/away"),
    ):
        with pytest.raises(ConfigError, match="the recipe names 'moved/away', which is not among the models"):
            MergePlan(stranger, opened(known))
