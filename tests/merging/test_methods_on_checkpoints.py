"""Methods that mergekit lacks, on real checkpoints and adapters: any cut into blocks, both engines."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tiny import Bunch
from unspoiled.config import ModelEntry, Recipe
from unspoiled.merging import LiveModel, MergePlan, Models, merge_to_directory

PER_MODEL: dict[str, list[dict[str, float]]] = {
    "ties_peft": [{"weight": 1.0, "density": 0.4}, {"weight": 0.5}, {"weight": 2.0}],
    "consensus": [{}, {"weight": 0.5}, {"mask_lambda": 0.2}],
    "pcb": [{}, {}, {"weight": 0.5}],
    "tsv_m": [{}, {}, {"weight": 0.5}],
    "iso_c": [{}, {}, {"weight": 0.5}],
    "wudi": [{}, {}, {"weight": 0.5}],
    "resta": [{"density": 0.5}, {"safety": 1}, {"safety": -1}],
    "safemerge": [{}, {"safety": 1}, {"safety": -1}],
    "mergealign": [{}, {"safety": 1}],
    "interpolation": [{}],
}
FOR_ALL: dict[str, dict[str, Any]] = {"wudi": {"steps": 5, "lr": 1e-3}, "pcb": {"density": 0.3}}


def _recipe(name: str, bunch: Bunch) -> Recipe:
    """Return a recipe of an adapter, a full fine-tune and another adapter, on their base."""
    experts = [f"{bunch.base}+{bunch.aligned}", str(bunch.full), f"{bunch.base}+{bunch.skilled}"]
    return Recipe(
        merge_method=name,
        base_model=str(bunch.base),
        models=tuple(ModelEntry(model=model, parameters=own) for model, own in zip(experts, PER_MODEL[name])),
        parameters=FOR_ALL.get(name, {}),
        dtype="float32",
    )


@pytest.mark.parametrize("name", PER_MODEL)
def test_the_cut_into_blocks_does_not_matter(name: str, bunch: Bunch, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe(name, bunch)
    plan = MergePlan(recipe, Models.open([recipe], Path.cwd()))
    whole = {tensor: planned.merged() for tensor, planned in plan.tensors.items()}
    monkeypatch.setattr("unspoiled.merging._blocks._BLOCK", 100)
    for tensor, planned in plan.tensors.items():
        torch.testing.assert_close(planned.merged(), whole[tensor], rtol=1e-6, atol=1e-6, msg=tensor)


@pytest.mark.parametrize("name", PER_MODEL)
def test_live_and_stream_give_the_same_weights(name: str, bunch: Bunch, tmp_path: Path) -> None:
    recipe = _recipe(name, bunch)
    models = Models.open([recipe], Path.cwd())
    merge_to_directory(recipe, models, tmp_path / "merged")
    written = load_file(tmp_path / "merged" / "model.safetensors")
    module = AutoModelForCausalLM.from_pretrained(bunch.base, dtype=torch.float32)
    LiveModel(module, models).take_recipe(recipe)
    live = module.state_dict()
    base = load_file(bunch.base / "model.safetensors")
    assert all(torch.equal(live[tensor], values) for tensor, values in written.items())
    assert any(not torch.equal(base[tensor], values) for tensor, values in written.items())
