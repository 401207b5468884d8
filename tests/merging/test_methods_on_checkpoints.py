"""Methods that mergekit lacks, on real checkpoints and adapters: any cut into blocks, both engines, their docs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tiny import Bunch
from unspoiled.config import ModelEntry, Recipe, parse_recipe
from unspoiled.merging import LiveModel, MergePlan, Models, all_methods, get_method, merge_to_directory

DOCS = Path(__file__).parents[2] / "docs" / "methods"

PAGES = {
    **{method.name: {method.name} for method in all_methods()},
    "dare": {"dare_linear", "dare_ties"},
    "della": {"della", "della_linear"},
    "breadcrumbs": {"breadcrumbs", "breadcrumbs_ties"},
}
"""The methods that each docs page is about."""

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


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_the_recipe_of_a_docs_page_is_one_of_its_method(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = [parse_recipe(one, page.name) for one in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]
    assert shown
    family = PAGES[page.stem]
    for recipe in shown:
        assert recipe.merge_method in family
        method = get_method(recipe.merge_method)
        known = {parameter.name for parameter in method.parameters}
        for parameter in known:
            assert f"`{parameter}`" in text, f"{parameter} is not explained"
        assert set(recipe.parameters).union(*(entry.parameters for entry in recipe.models)) <= known
        assert bool(method.statistics) == all(entry.statistics for entry in recipe.models)
