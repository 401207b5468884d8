"""The recipe of some of the experts, and of all with other weights: what moves, and what must not."""

import itertools

import pytest

from unspoiled.audit import alone, coalition, weighted
from unspoiled.config import ParameterValue, Recipe, parse_recipe
from unspoiled.errors import ConfigError

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


def recipe(text: str = RECIPE) -> Recipe:
    return parse_recipe(text, "recipe.yaml")


def weights(of: Recipe, model: str) -> list[float]:
    index = [entry.model for entry in of.models].index(model)
    found = [of.parameter("weight", index, tensor=tensor, layer=layer, layers=3) for tensor, layer in TENSORS]
    return [float(value or 0.0) for value in found]


def test_all_are_the_merge_as_it_is_and_strangers_count_for_nothing() -> None:
    assert coalition(recipe(), {"a", "b", "c"}, base="base") == recipe()
    assert coalition(recipe(), {"a", "b", "c", "d"}, base="base") == recipe()


def test_nobody_is_the_base() -> None:
    nobody = coalition(recipe(), set(), base="base")
    assert [entry.model for entry in nobody.models] == ["base"]
    assert nobody == alone(recipe(), "base")
    assert nobody.dtype == "float32"


def test_who_is_left_keeps_weights_and_settings() -> None:
    left = coalition(recipe(), {"c", "a"}, base="base")
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
def test_methods_of_two_models_leave_one_alone(method: str, members: set[str], expected: tuple[str, list[str]]) -> None:
    base = "base_model: base\n" if method == "model_stock" else ""
    weight = "parameters: {weight: 1.0}\n" if method == "linear" else ""
    text = f"merge_method: {method}\n{base}models: [{{model: a}}, {{model: b}}, {{model: c}}]\n{weight}"
    found = coalition(recipe(text), members, base="base")
    assert (found.merge_method, [entry.model for entry in found.models]) == expected


def test_a_walk_from_one_expert_to_another_has_both_its_ends_as_experts() -> None:
    walk = recipe("merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\nparameters: {t: 0.3}\n")
    assert coalition(walk, {"a", "b"}, base="base") == walk
    assert coalition(walk, {"a"}, base="base") == alone(walk, "a")
    assert coalition(walk, {"b"}, base="base") == alone(walk, "b")
    assert coalition(walk, set(), base="base") == alone(walk, "base")


def test_experts_without_a_weight_anywhere_are_nobody() -> None:
    zero = recipe(RECIPE.replace("0.2", "0.0").replace("[0.1, 0.9]", "[0.0, 0.0]"))
    assert coalition(zero, {"a", "b"}, base="base") == alone(zero, "base")
    assert [entry.model for entry in coalition(zero, {"a", "c"}, base="base").models] == ["a", "c"]


def test_what_a_method_cannot_merge_is_said() -> None:
    three = recipe("merge_method: safemerge\nbase_model: base\nmodels: [{model: a}, {model: b}, {model: c}]\n")
    with pytest.raises(ConfigError, match="merges at least 3 models"):
        coalition(three, {"a", "b"}, base="base")
    slices = "merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 2]}]}]\n"
    with pytest.raises(ConfigError, match="slices"):
        coalition(recipe(slices), {"a"}, base="base")


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
