"""The recipe of some of the experts, and of all with other weights: what moves, and what must not."""

import itertools

import pytest
import torch
from torch import Tensor

from tiny import tiny_base, tiny_expert
from unspoiled.audit import alone, coalition, weighted
from unspoiled.checkpoints import ModelRef, open_model
from unspoiled.config import ParameterValue, Recipe, parse_recipe
from unspoiled.errors import ConfigError
from unspoiled.merging import MergePlan, Models, all_methods

RECIPE = """\
merge_method: ties
base_model: base
models:
- {model: a, parameters: {weight: 0.2, density: 0.5}}
- {model: b, parameters: {weight: [0.1, 0.9]}}
- {model: c, parameters: {weight: [{filter: mlp, value: [0.0, 0.4]}, {value: 0.3}]}}
parameters: {lambda: 1.5, density: 0.8}
dtype: float32
"""
TENSORS = [
    ("model.embed_tokens.weight", None),
    *((f"model.layers.{layer}.{module}.weight", layer) for layer in range(3) for module in ("mlp", "attn")),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The base and four experts, by the names that the recipes here give them."""
    root = tmp_path_factory.mktemp("coalitions")
    base = tiny_base(root / "base")
    paths = {"base": base, **{name: tiny_expert(base, root / name, seed) for seed, name in enumerate("abcd", start=1)}}
    return Models({name: open_model(ModelRef(str(path))) for name, path in paths.items()})


def merged(of: Recipe, models: Models) -> dict[str, Tensor]:
    return {name: tensor.merged() for name, tensor in MergePlan(of, models).tensors.items()}


def same(one: Recipe, other: Recipe, models: Models) -> bool:
    found, expected = merged(one, models), merged(other, models)
    return all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def recipe(text: str = RECIPE) -> Recipe:
    return parse_recipe(text, "recipe.yaml")


def weights(of: Recipe, model: str) -> list[float]:
    index = [entry.model for entry in of.models].index(model)
    found = [of.parameter("weight", index, tensor=tensor, layer=layer, layers=3) for tensor, layer in TENSORS]
    return [float(value or 0.0) for value in found]


def test_all_are_the_merge_as_it_is_and_strangers_count_for_nothing(models: Models) -> None:
    assert coalition(recipe(), {"a", "b", "c"}, base="base", models=models) == recipe()
    assert coalition(recipe(), {"a", "b", "c", "d"}, base="base", models=models) == recipe()


def test_nobody_is_the_base(models: Models) -> None:
    nobody = coalition(recipe(), set(), base="base", models=models)
    assert [entry.model for entry in nobody.models] == ["base"]
    assert nobody == alone(recipe(), "base")
    assert nobody.dtype == "float32"


def test_who_is_left_keeps_weights_and_settings(models: Models) -> None:
    left = coalition(recipe(), {"c", "a"}, base="base", models=models)
    assert [entry.model for entry in left.models] == ["a", "c"], "in the order of the recipe"
    assert left.models == (recipe().models[0], recipe().models[2])
    assert (left.merge_method, left.base_model, left.parameters) == ("ties", "base", recipe().parameters)


@pytest.mark.parametrize(
    ("method", "members", "expected"),
    [
        ("model_stock", {"a"}, ("linear", ["a"])),  # it merges two or more
        ("model_stock", {"a", "b"}, ("model_stock", ["a", "b"])),
        ("linear", {"b"}, ("linear", ["b"])),
    ],
)
def test_methods_of_two_models_leave_one_alone(
    method: str, members: set[str], expected: tuple[str, list[str]], models: Models
) -> None:
    base = "base_model: base\n" if method == "model_stock" else ""
    weight = "parameters: {weight: 1.0}\n" if method == "linear" else ""
    text = f"merge_method: {method}\n{base}models: [{{model: a}}, {{model: b}}, {{model: c}}]\n{weight}"
    found = coalition(recipe(text), members, base="base", models=models)
    assert (found.merge_method, [entry.model for entry in found.models]) == expected


def test_a_walk_from_one_expert_to_another_has_both_its_ends_as_experts(models: Models) -> None:
    walk = recipe("merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 0.3}\n")
    assert coalition(walk, {"a", "b"}, base="base", models=models) == walk
    assert coalition(walk, {"a"}, base="base", models=models) == alone(walk, "a")
    assert coalition(walk, {"b"}, base="base", models=models) == alone(walk, "b")
    assert coalition(walk, set(), base="base", models=models) == alone(walk, "base")


def test_experts_without_a_weight_anywhere_are_nobody(models: Models) -> None:
    zero = recipe(RECIPE.replace("0.2", "0.0").replace("[0.1, 0.9]", "[0.0, 0.0]"))
    assert coalition(zero, {"a", "b"}, base="base", models=models) == alone(zero, "base")
    assert [entry.model for entry in coalition(zero, {"a", "c"}, base="base", models=models).models] == ["a", "c"]


CANCELLING = """\
merge_method: {method}
base_model: base
models:
- {{model: a, parameters: {{weight: 1.0}}}}
- {{model: b, parameters: {{weight: [0.5, 0.3]}}}}
- {{model: c, parameters: {{weight: [0.2, -0.3]}}}}
dtype: float32
parameters: {{{switch}}}
"""


@pytest.mark.parametrize(
    ("method", "switch"),
    [("task_arithmetic", "normalize: {}"), ("dare_linear", "normalize: {}"), ("multislerp", "normalize_weights: {}")],
)
def test_weights_that_sum_to_zero_are_the_base_where_the_method_divides_by_the_sum(
    method: str, switch: str, models: Models
) -> None:
    """They do without the first expert, in the last layer alone."""
    divided, plain = (recipe(CANCELLING.format(method=method, switch=switch.format(on))) for on in ("true", "false"))
    assert coalition(divided, {"b", "c"}, base="base", models=models) == alone(divided, "base")
    for whole, members in ((divided, {"a", "b"}), (plain, {"b", "c"})):
        left = coalition(whole, members, base="base", models=models)
        assert left.merge_method == method
        merged(left, models)


RANDOM = [method.name for method in all_methods() if "seed" in {one.name for one in method.parameters}]


def drawn(method: str, weight: dict[str, float], extra: str = "") -> Recipe:
    """Return a random merge; RESTA's second model is its aligned one."""
    role = ", safety: 1" if method == "resta" else ""
    entries = "".join(
        f"- {{model: {name}, parameters: {{weight: {own}, density: 0.4{role if name == 'b' else ''}}}}}\n"
        for name, own in weight.items()
    )
    text = (
        f"merge_method: {method}\nbase_model: base\nmodels:\n{entries}parameters: {{seed: 3{extra}}}\ndtype: float32\n"
    )
    return recipe(text)


@pytest.mark.parametrize("method", RANDOM)
def test_leaving_out_an_expert_without_a_weight_changes_nothing_of_a_random_merge(method: str, models: Models) -> None:
    """Bit for bit: those behind it are drawn as before."""
    whole = drawn(method, {"a": 0.0, "b": 0.5, "c": 0.3, "d": -0.2})
    assert same(coalition(whole, {"b", "c", "d"}, base="base", models=models), whole, models)


@pytest.mark.parametrize("normalize", ["", ", normalize: true"])
@pytest.mark.parametrize("method", RANDOM)
def test_an_expert_left_out_of_a_random_merge_is_out_altogether(method: str, normalize: str, models: Models) -> None:
    """Without the last entry the others keep their places; then weight zero and no entry are the same, bit for bit."""
    if method == "resta" and normalize:
        pytest.skip("it divides by nothing")
    whole = drawn(method, {"a": 0.7, "b": 0.5, "c": 0.3, "d": -0.2}, normalize)
    removed = whole.model_copy(update={"models": whole.models[:-1]})
    left = coalition(whole, {"a", "b", "c"}, base="base", models=models)
    assert same(left, removed, models)
    assert not same(left, whole, models)


def test_a_role_left_out_of_a_random_merge_is_out_altogether(models: Models) -> None:
    """RESTA multiplies the model of a role by γ, not by its weight; where nobody has a role it merges nothing."""
    given = {"a": "{safety: 1}", "b": "{density: 0.4}", "c": "{safety: -1}"}
    entries = ", ".join(f"{{model: {name}, parameters: {own}}}" for name, own in given.items())
    both = recipe(f"merge_method: resta\nbase_model: base\nmodels: [{entries}]\ndtype: float32\n")
    one = both.model_copy(update={"models": both.models[:-1]})
    assert same(coalition(both, {"a", "b"}, base="base", models=models), one, models)
    tasks = (*one.models, both.models[1].model_copy(update={"model": "d"}))
    two = one.model_copy(update={"models": tasks})
    assert coalition(two, {"b", "d"}, base="base", models=models) == alone(two, "base")


def test_what_a_method_cannot_merge_is_said(models: Models) -> None:
    three = recipe("merge_method: safemerge\nbase_model: base\nmodels: [{model: a}, {model: b}, {model: c}]\n")
    with pytest.raises(ConfigError, match="merges at least 3 models"):
        coalition(three, {"a", "b"}, base="base", models=models)
    slices = "merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n"
    with pytest.raises(ConfigError, match="slices"):
        coalition(recipe(slices), {"a"}, base="base", models=models)


@pytest.mark.parametrize("model", ["a", "b", "c"])
def test_a_factor_reaches_every_layer_and_tensor_and_nobody_else(model: str) -> None:
    changed = weighted(recipe(), {model: 0.5})
    assert weights(changed, model) == pytest.approx([weight / 2 for weight in weights(recipe(), model)])
    for other in {"a", "b", "c"} - {model}:
        assert weights(changed, other) == weights(recipe(), other)
    assert changed.models[0].parameters["density"] == 0.5
    assert Recipe.model_validate(changed.model_dump()) == changed, "still a recipe"
    assert parse_recipe(changed.to_yaml(), "again") == changed


SHARED = "merge_method: {method}\nbase_model: base\nmodels:\n- {{model: a{own}}}\n- {{model: b}}\n{shared}"


@pytest.mark.parametrize(
    ("own", "shared"),
    [
        *itertools.product(
            ["", "[{filter: mlp, value: [1.0, 3.0]}]", "[{filter: mlp, value: 2.0}, {filter: '*', value: 0.1}]"],
            ["0.4", "[{filter: attn, value: 0.6}, {value: [0.8, 0.2]}]", "{filter: mlp, value: 7.0}"],
        )
    ],
)
def test_what_an_entry_does_not_say_comes_from_the_recipe_or_the_method(own: str, shared: str) -> None:
    """`consensus` has weight 1 where nothing is said."""
    text = SHARED.format(
        method="consensus",
        own=f", parameters: {{weight: {own}}}" if own else "",
        shared=f"parameters: {{weight: {shared}}}\n",
    )
    before = recipe(text)
    changed = weighted(before, {"a": 0.25})

    def resolved(of: Recipe, index: int) -> list[float]:
        found = [of.parameter("weight", index, tensor=tensor, layer=layer, layers=3) for tensor, layer in TENSORS]
        return [1.0 if value is None else float(value) for value in found]

    assert resolved(changed, 0) == pytest.approx([value / 4 for value in resolved(before, 0)])
    assert resolved(changed, 1) == resolved(before, 1)


def test_a_method_without_weights_has_none_to_change() -> None:
    with pytest.raises(ConfigError, match="no weights"):
        weighted(recipe("merge_method: karcher\nmodels: [{model: a}, {model: b}]\n"), {"a": 0.5})


def test_the_value_is_of_the_form_that_it_had() -> None:
    forms: dict[str, ParameterValue] = {
        model: weighted(recipe(), {model: 2.0}).models[index].parameters["weight"]
        for index, model in enumerate(["a", "b", "c"])
    }
    assert forms["a"] == 0.4
    assert forms["b"] == (0.2, 1.8)
