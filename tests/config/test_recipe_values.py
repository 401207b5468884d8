"""What a parameter's value means for one tensor: gradients over layers, switches, filters, and who goes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.config import FilteredValue, ModelEntry, Recipe, resolve

FULL = {"models": [{"model": "a"}, {"model": "b"}], "merge_method": "linear"}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MLP = "model.layers.3.mlp.up_proj.weight"


def at(value: object, layer: int | None, layers: int = 5, tensor: str = MLP) -> float | bool | None:
    recipe = Recipe.model_validate(FULL | {"parameters": {"t": value}})
    return recipe.parameter("t", None, tensor=tensor, layer=layer, layers=layers)


def test_a_gradient_worked_by_hand() -> None:
    # t = layer / 4; two entries: 0, 1/4, 1/2, 3/4, 1 of the way
    assert [at([0.0, 1.0], layer) for layer in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    # three entries over five layers: positions 0, 0.5, 1, 1.5, 2
    assert [at([1.0, 0.5, 0.0], layer) for layer in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    # five entries over three layers: positions 0, 2, 4; what is between them isn't seen
    assert [at([1.0, 9.0, 2.0, 9.0, 3.0], layer, 3) for layer in range(3)] == [1.0, 2.0, 3.0]
    # three entries over four layers: position 2/3 of the way from 0 to 3
    assert at([0.0, 3.0, 0.0], 1, 4) == pytest.approx(2.0, abs=1e-15)


def test_the_ends_of_a_gradient() -> None:
    assert at([0.1, 0.2, 0.9], None) == 0.1  # embeddings, final norm, head: t = 0
    assert at([0.1, 0.2, 0.9], 0, layers=1) == 0.9  # the only layer: t = 1
    assert at([0.1, 0.2, 0.9], 4) == 0.9
    assert [at([0.3], layer) for layer in (None, 0, 2, 4)] == [0.3] * 4
    assert at([0.3], None, layers=0) == 0.3


@given(st.lists(NUMBERS, min_size=1, max_size=128))
def test_one_entry_per_layer_is_that_entry_to_the_last_bit(entries: list[float]) -> None:
    layers = len(entries)
    found = [resolve(tuple(entries), tensor=MLP, layer=layer, layers=layers) for layer in range(layers)]
    assert list(map(repr, found)) == list(map(repr, entries))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.integers(1, 99), st.data())
def test_a_gradient_agrees_with_its_definition(entries: list[float], layers: int, data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, layers - 1))
    t = layer / (layers - 1) if layers > 1 else 1.0
    position = t * (len(entries) - 1)
    left = min(int(position), len(entries) - 1)
    right = min(left + 1, len(entries) - 1)
    expected = entries[left] + (position - left) * (entries[right] - entries[left])
    found = resolve(tuple(entries), tensor=MLP, layer=layer, layers=layers)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert min(entries) <= found <= max(entries)


def test_the_first_filter_that_is_part_of_the_name_counts() -> None:
    value = [
        {"filter": "self_attn", "value": 0.1},
        {"filter": "mlp", "value": [0.0, 1.0]},
        {"filter": "up_proj", "value": 0.9},
        {"value": 0.5},
        {"filter": "lm_head", "value": 0.7},  # never reached: the entry above takes all
    ]
    assert at(value, 2) == 0.5
    assert at(value, 4) == 1.0
    assert at(value, 2, tensor="model.layers.2.self_attn.q_proj.weight") == 0.1
    assert at(value, None, tensor="lm_head.weight") == 0.5
    assert at([{"filter": "*", "value": 0.4}], None, tensor="lm_head.weight") == 0.4
    assert at(value[:3], None, tensor="lm_head.weight") is None


def test_a_switch_stays_a_switch() -> None:
    assert at(True, 1) is True
    assert at([{"filter": "mlp", "value": False}], 1) is False
    assert at(1, 1) == 1.0
    assert at(1, 1) is not True


def test_switches_over_the_layers_are_steps() -> None:
    assert [at([True, False], layer) for layer in range(5)] == [True, True, True, True, False]
    assert [at([True, False, True, False, True], layer) for layer in range(5)] == [True, False, True, False, True]
    assert at([True, False], None) is True
    assert at([True, False], 0, layers=1) is False
    # the position is 1 here; in floating point 1 / 49 * 49 falls just short of it
    assert at([False, True] + [False] * 48, 1, layers=50) is True


def test_a_filter_alone_is_a_list_of_one() -> None:
    assert at({"filter": "mlp", "value": [0.0, 1.0]}, 2) == 0.5
    assert at({"filter": "attn", "value": [0.0, 1.0]}, 2) is None
    assert at({"value": True}, 2) is True


def test_a_models_value_goes_before_the_recipes() -> None:
    recipe = Recipe(
        merge_method="linear",
        models=(
            ModelEntry(model="a", parameters={"weight": (FilteredValue(filter="mlp", value=0.0),)}),
            ModelEntry(model="b"),
        ),
        parameters={"weight": 0.5},
    )

    def weight(index: int | None, tensor: str) -> float | bool | None:
        return recipe.parameter("weight", index, tensor=tensor, layer=0, layers=2)

    assert weight(0, "layers.0.mlp.w") == 0.0  # zero is a value, not an absence
    assert weight(0, "layers.0.attn.w") == 0.5  # no filter of the model applies: the recipe's value
    assert weight(1, "layers.0.mlp.w") == 0.5
    assert weight(None, "layers.0.mlp.w") == 0.5
    assert recipe.parameter("density", 0, tensor="x", layer=None, layers=2) is None


@pytest.mark.parametrize(("layer", "layers"), [(-1, 5), (5, 5), (0, 0)])
def test_a_layer_that_the_model_does_not_have_is_an_error(layer: int, layers: int) -> None:
    with pytest.raises(ValueError, match=rf"layer {layer} .*\[0, {layers}\)"):
        resolve((0.0, 1.0), tensor=MLP, layer=layer, layers=layers)
