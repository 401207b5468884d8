"""A live model through the trials of a search: what it keeps from one recipe to the next never shows in the weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import loaded, opened
from safetensors.torch import save_file
from torch import Tensor

from tiny import Bunch
from unspoiled.config import ModelEntry, Recipe
from unspoiled.errors import ConfigError
from unspoiled.merging import LiveModel, MergePlan, Method, Models, Parameter, all_methods, get_method

REQUIRED = {"weight": 0.6, "t": 0.3, "density": 0.5}
ROLES = {"resta": [0, 1, -1], "safemerge": [0, 1, -1], "mergealign": [0, 1]}
START: dict[str, dict[str, Any]] = {
    "wudi": {"steps": 2, "lr": 1e-3},
    "della": {"epsilon": 0.1},
    "sce": {"select_topk": 0.4},
}
EXPERTS = ("aligned", "full", "skilled")
BUDGETS = [0, 30_000, 2**30]
"""Bytes: nothing is kept, about a tenth, everything."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tiny models' tensors have several blocks, and blocks several pieces."""
    monkeypatch.setattr("unspoiled.merging._blocks._BLOCK", 2000)
    monkeypatch.setattr("unspoiled.merging._pieces._PIECE", 500)


def named(bunch: Bunch, expert: str) -> str:
    return str(bunch.full) if expert == "full" else f"{bunch.base}+{getattr(bunch, expert)}"


def recipe_of(
    method: str,
    bunch: Bunch,
    values: dict[str, Any],
    experts: tuple[str, ...] = EXPERTS,
    statistics: Path | None = None,
) -> Recipe:
    """Return a recipe with a value for every parameter; of those per model each expert has another, near the first."""
    registered = get_method(method)
    models = []
    for place, expert in enumerate(experts[: registered.experts[1] or len(experts)]):
        own = {p.name: _of_expert(values[p.name], p, place) for p in registered.parameters if p.scope == "model"}
        models.append(ModelEntry(model=named(bunch, expert), parameters=own, statistics=statistics and str(statistics)))
    return Recipe(
        merge_method=method,
        base_model=None if registered.base == "unused" else str(bunch.base),
        models=tuple(models),
        parameters={p.name: values[p.name] for p in registered.parameters if p.scope == "merge"},
        dtype="float32",
    )


def _of_expert(value: Any, parameter: Parameter, place: int) -> Any:
    if isinstance(value, list):
        return value[place]
    return value * (1 - 0.1 * place) if parameter.kind == "number" else value


def start_of(method: Method) -> dict[str, Any]:
    values = {p.name: REQUIRED.get(p.name, p.default) for p in method.parameters}
    return {**values, **({"safety": ROLES[method.name]} if method.name in ROLES else {}), **START.get(method.name, {})}


def moved(parameter: Parameter, value: Any) -> Any:
    """Return another value that the parameter may have."""
    if parameter.kind == "switch":
        return not value
    return value + 1 if parameter.kind == "whole number" else 0.8 * value + 0.05


def trials_of(method: Method, bunch: Bunch, statistics: Path | None) -> Iterator[Recipe]:
    """Yield a recipe, then for each parameter one with that alone moved and the first one again."""
    start = start_of(method)
    yield recipe_of(method.name, bunch, start, statistics=statistics)
    for parameter in method.parameters:
        if parameter.name != "safety":
            other = {**start, parameter.name: moved(parameter, start[parameter.name])}
            yield recipe_of(method.name, bunch, other, statistics=statistics)
            yield recipe_of(method.name, bunch, start, statistics=statistics)


def made_anew(recipe: Recipe, models: Models) -> dict[str, Tensor]:
    return {name: tensor.merged() for name, tensor in MergePlan(recipe, models).tensors.items()}


def assert_holds(live: LiveModel, recipe: Recipe, expected: dict[str, Tensor]) -> None:
    state = live.model.state_dict()
    different = [name for name, values in expected.items() if not torch.equal(state[name], values)]
    assert not different, f"{recipe.merge_method} {recipe.parameters} {[m.parameters for m in recipe.models]}"


@pytest.fixture(scope="module")
def statistics_file(bunch: Bunch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every kind of statistic for every tensor of the bunch."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, parameter in loaded(bunch.base).named_parameters():
        for kind in ("fisher", "importance", "base_importance"):
            found[f"{kind}:{name}"] = torch.rand(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            root = torch.randn(64, parameter.shape[1], generator=generator)
            found[f"input_gram:{name}"] = root.T @ root / 64
    path = tmp_path_factory.mktemp("statistics") / "statistics.safetensors"
    save_file(found, path)
    return path


@pytest.mark.parametrize("method", all_methods(), ids=lambda method: method.name)
def test_whatever_coefficient_moves_the_weights_are_those_made_anew(
    method: Method, bunch: Bunch, statistics_file: Path
) -> None:
    """A coefficient that `measure` or `prepare` read without saying so would leave its former value in the weights."""
    recipes = list(trials_of(method, bunch, statistics_file if method.statistics else None))
    models = opened(*recipes)
    expected = [made_anew(recipe, models) for recipe in recipes]
    for memory in BUDGETS:
        live = LiveModel(loaded(bunch.base, torch.float32), models, prepared_memory=memory)
        for recipe, weights in zip(recipes, expected, strict=True):
            live.take_recipe(recipe)
            assert_holds(live, recipe, weights)


@pytest.mark.parametrize("memory", BUDGETS)
def test_methods_experts_and_models_take_turns(bunch: Bunch, memory: int) -> None:
    """What one method or expert left behind must not pass for another's: the tensors' names are the same."""

    def of(name: str, experts: tuple[str, ...] = EXPERTS, **values: Any) -> Recipe:
        return recipe_of(name, bunch, {**start_of(get_method(name)), **values}, experts)

    swapped = ("skilled", "full", "aligned")
    recipes = [
        of("ties"),
        of("ties", swapped),
        of("ties_peft"),
        of("dare_linear"),
        of("dare_linear", seed=1),
        of("dare_ties"),
        of("dare_linear", swapped),
        of("ties", density=0.3),
        of("task_arithmetic"),
        of("slerp"),
        of("slerp", ("full",)),
        of("consensus", ("aligned", "full")),
        of("consensus", ("full", "aligned")),
        of("ties", ("aligned", "skilled")),
        of("linear"),
    ]
    models = opened(*recipes)
    expected = [made_anew(recipe, models) for recipe in recipes]
    live = LiveModel(loaded(bunch.base, torch.float32), models, prepared_memory=memory)
    generator = torch.Generator().manual_seed(1)
    for index in torch.randint(len(recipes), (60,), generator=generator).tolist():
        if index % 5 == 0:
            live.take_model(models.sources[named(bunch, EXPERTS[index % 3])])
        live.take_recipe(recipes[index])
        assert_holds(live, recipes[index], expected[index])


@pytest.mark.parametrize("method", ["ties", "dare_linear", "consensus"])
def test_what_is_kept_stays_within_the_budget(method: str, bunch: Bunch) -> None:
    start = start_of(get_method(method))
    recipes = [recipe_of(method, bunch, {**start, "weight": weight}) for weight in (0.6, 0.5)]
    models = opened(*recipes)
    kept = {}
    for memory in BUDGETS:
        live = LiveModel(loaded(bunch.base, torch.float32), models, prepared_memory=memory)
        for recipe in recipes:
            live.take_recipe(recipe)
            kept[memory] = live.kept_bytes
            assert kept[memory] <= memory
            assert live._kept._free == memory - kept[memory]
    elements = sum(parameter.numel() for parameter in live.model.parameters())
    assert kept[0] == 0 < kept[BUDGETS[1]] < kept[BUDGETS[2]]
    assert kept[BUDGETS[2]] >= elements * 4, "an expert that changes every tensor takes four bytes for each element"


def test_moved_weights_measure_nothing_and_moved_densities_do(bunch: Bunch, monkeypatch: pytest.MonkeyPatch) -> None:
    start = start_of(get_method("ties"))
    wanted = {
        name: recipe_of("ties", bunch, {**start, **values})
        for name, values in {"start": {}, "weight": {"weight": 0.4}, "density": {"density": 0.4}}.items()
    }
    live = LiveModel(loaded(bunch.base, torch.float32), opened(*wanted.values()))
    measured: list[str] = []
    original = Method.measured

    def counted(method: Method, tensor: Any, coefficients: Any) -> object:
        measured.append(tensor.name)
        return original(method, tensor, coefficients)

    monkeypatch.setattr(Method, "measured", counted)
    counts = []
    for name in ("start", "weight", "start", "density", "density"):
        measured.clear()
        live.take_recipe(wanted[name])
        counts.append(len(measured))
    tensors = len(live.models.output.shapes)
    assert counts == [tensors, 0, 0, tensors, 0]


def written_by(live: LiveModel, recipe: Recipe) -> set[str]:
    """Return the names of the tensors that a recipe overwrites."""
    before = {name: values._version for name, values in live.model.named_parameters()}
    live.take_recipe(recipe)
    return {name for name, values in live.model.named_parameters() if values._version != before[name]}


def test_only_tensors_whose_coefficients_move_are_merged_again(bunch: Bunch) -> None:
    def of(second_layer: float) -> Recipe:
        weight = (0.6, second_layer)
        entries = tuple(
            ModelEntry(model=named(bunch, e), parameters={"weight": weight}) for e in ("aligned", "skilled")
        )
        return Recipe(merge_method="task_arithmetic", base_model=str(bunch.base), models=entries, dtype="float32")

    first, second = of(0.5), of(0.4)
    models = opened(first)
    live = LiveModel(loaded(bunch.base, torch.float32), models)
    everything = written_by(live, first)
    assert everything == set(models.output.shapes)
    assert written_by(live, first) == set()
    moved_layer = written_by(live, second)
    assert moved_layer
    assert all(name.startswith("model.layers.1.") and "proj" in name for name in moved_layer)
    assert_holds(live, second, made_anew(second, models))


def test_a_parameter_that_somebody_else_changed_is_merged_again(bunch: Bunch) -> None:
    wanted = recipe_of("ties", bunch, start_of(get_method("ties")))
    models = opened(wanted)
    live = LiveModel(loaded(bunch.base, torch.float32), models)
    live.take_recipe(wanted)
    with torch.no_grad():
        live.model.model.embed_tokens.weight.add_(1.0)  # type: ignore[union-attr, operator]
        live.model.model.norm.weight.zero_()  # type: ignore[union-attr, operator]
    live.take_recipe(wanted)
    assert_holds(live, wanted, made_anew(wanted, models))


def test_a_trial_that_fails_while_it_prepares_takes_no_memory(bunch: Bunch) -> None:
    """A search goes on after a failed trial; a budget that leaks would slow it down for good."""
    good = recipe_of("della", bunch, start_of(get_method("della")))
    bad = recipe_of("della", bunch, {**start_of(get_method("della")), "density": 0.95})
    models = opened(good, bad)
    live = LiveModel(loaded(bunch.base, torch.float32), models, prepared_memory=2**30)
    live.take_recipe(good)
    with pytest.raises(ConfigError, match="epsilon"):
        live.take_recipe(bad)
    assert live._kept._free == 2**30 - live.kept_bytes
    live.take_recipe(good)
    assert_holds(live, good, made_anew(good, models))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_do_not_show_in_the_weights(bunch: Bunch, threads: int) -> None:
    before = torch.get_num_threads()
    recipes = [recipe_of(name, bunch, start_of(get_method(name))) for name in ("tsv_m", "ties", "slerp")]
    models = opened(*recipes)
    expected = [made_anew(recipe, models) for recipe in recipes]
    torch.set_num_threads(threads)
    try:
        live = LiveModel(loaded(bunch.base, torch.float32), models)
        for recipe, weights in zip(recipes, expected, strict=True):
            live.take_recipe(recipe)
            assert_holds(live, recipe, weights)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
