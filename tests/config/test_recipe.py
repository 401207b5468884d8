"""Recipes: mergekit's YAML means what it means there, survives a round trip, and fails with a line number."""

import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unspoiled.config import (
    FilteredValue,
    ModelEntry,
    Recipe,
    Tokenizer,
    parse_recipe,
    read_recipe,
    resolve,
)
from unspoiled.errors import ConfigError

TIES = """\
# three experts; denser at the ends
models:
  - model: ./base
  - model: hub/math-7b@v1.1
    parameters:
      density: [1, 0.7, 0.1]
      weight: 1.0
  - model: ./base+./adapters/code
    parameters:
      density: 5e-1
      weight:
        - filter: mlp
          value: [0, 0.3, 0.7, 1.0]
        - value: 0.3
merge_method: ties
base_model: ./base
parameters:
  normalize: true
  lambda: 0.9
dtype: float32
out_dtype: bfloat16
tokenizer_source: base
"""
SLERP = """\
merge_method: slerp
base_model: ./a
models: [{model: ./a}, {model: ./b}]
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
tokenizer:
  source: ./b
chat_template: auto
"""
LINEAR = """\
merge_method: linear
models:
  - model: ./a
    parameters: {weight: 0.6}
  - model: ./b
    parameters: {weight: .4}
dtype: float16
"""
FULL = {"models": [{"model": "a"}, {"model": "b"}], "merge_method": "linear"}


@pytest.mark.parametrize("text", [TIES, SLERP, LINEAR])
def test_reading_and_writing_is_the_identity(text: str) -> None:
    recipe = parse_recipe(text, "recipe.yaml")
    written = recipe.to_yaml()
    assert parse_recipe(written, "again.yaml") == recipe
    assert parse_recipe(written, "again.yaml").to_yaml() == written
    assert yaml.safe_load(written)["merge_method"] == recipe.merge_method  # for mergekit, which reads YAML 1.1


def test_what_is_written_reads_well() -> None:
    assert parse_recipe(TIES, "recipe.yaml").to_yaml() == (
        "merge_method: ties\n"
        "base_model: ./base\n"
        "models:\n"
        "  - model: ./base\n"
        "  - model: hub/math-7b@v1.1\n"
        "    parameters:\n"
        "      density: [1.0, 0.7, 0.1]\n"
        "      weight: 1.0\n"
        "  - model: ./base+./adapters/code\n"
        "    parameters:\n"
        "      density: 0.5\n"
        "      weight:\n"
        "        - filter: mlp\n"
        "          value: [0.0, 0.3, 0.7, 1.0]\n"
        "        - value: 0.3\n"
        "parameters:\n"
        "  normalize: true\n"
        "  lambda: 0.9\n"
        "dtype: float32\n"
        "out_dtype: bfloat16\n"
        "tokenizer_source: base\n"
    )


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text(LINEAR)
    assert read_recipe(path) == parse_recipe(LINEAR, "x")
    path.write_text("merge_method: linear\n")
    with pytest.raises(ConfigError, match=r"merge\.yaml:1: models: missing"):
        read_recipe(path)


# Names that YAML could take for something else are models too.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1) | st.sampled_from(
    ["on", "1e-3", "7", "null", "a: b", "- x", "./x", "hub/id@main", "base", "base+./lora", "~", "*"]
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.booleans() | NUMBERS | st.lists(NUMBERS, min_size=1, max_size=40).map(tuple)
FILTERED = st.builds(FilteredValue, filter=st.none() | NAMES, value=PLAIN)
PARAMETERS = st.dictionaries(NAMES, PLAIN | st.lists(FILTERED, min_size=1, max_size=3).map(tuple), max_size=3)
DTYPES = st.sampled_from([None, "float32", "bfloat16", "float16"])


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    models = tuple(ModelEntry(model=name, parameters=draw(PARAMETERS)) for name in names)
    base = draw(st.none() | st.sampled_from(names) | NAMES)
    usable = [name for name in names if name != "union" and (name != "base" or base)]
    source = draw(st.sampled_from([None, *usable]))
    newer = draw(st.booleans())
    return Recipe(
        merge_method=draw(NAMES),
        base_model=base,
        models=models,
        parameters=draw(PARAMETERS),
        dtype=draw(DTYPES),
        out_dtype=draw(DTYPES),
        tokenizer_source=None if newer else source,
        tokenizer=Tokenizer(source=source) if newer and source else None,
        chat_template=draw(st.none() | st.just("auto") | NAMES.map(lambda text: text + "\n{{ messages }}")),
    )


@given(recipes())
def test_any_recipe_survives_the_round_trip(recipe: Recipe) -> None:
    again = parse_recipe(recipe.to_yaml(), "x")
    assert again == recipe
    assert repr(again) == repr(recipe)  # -0.0 == 0.0 and 1.0 == True, but they don't print the same
    assert pickle.loads(pickle.dumps(recipe)) == recipe  # goes to Ray's workers


# --- what a parameter means for a tensor --------------------------------------------------------------------

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


def test_experts_are_the_models_without_the_base() -> None:
    recipe = parse_recipe(TIES, "x")
    assert [entry.model for entry in recipe.experts] == ["hub/math-7b@v1.1", "./base+./adapters/code"]
    assert recipe.experts[0].parameters == {"density": (1.0, 0.7, 0.1), "weight": 1.0}


def test_the_tokenizer_comes_from_the_model_named_else_the_base_else_the_first() -> None:
    assert parse_recipe(TIES, "x").tokenizer_donor == "./base"
    assert parse_recipe(SLERP, "x").tokenizer_donor == "./b"
    assert parse_recipe(LINEAR, "x").tokenizer_donor == "./a"
    assert parse_recipe(LINEAR + "base_model: ./c\n", "x").tokenizer_donor == "./c"


def test_subclasses_of_float_are_written_as_plain_numbers() -> None:
    class Float64(float):  # as numpy's: an optimiser's coefficients
        def __repr__(self) -> str:
            return f"Float64({float(self)})"

    recipe = Recipe(merge_method="linear", models=(ModelEntry(model="a", parameters={"weight": (Float64(0.25),)}),))
    assert "weight: [0.25]" in recipe.to_yaml()


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slices:\n  - sources: []\n", "r.yaml:3: slices: `slices` is not supported yet"),
        ("modules: {}\n", "r.yaml:3: modules: `modules` is not supported yet"),
        ("name: stage-1\n", "r.yaml:3: name: `name` is not supported yet"),
        (
            "---\nmerge_method: slerp\n",
            "r.yaml:4: recipes of several documents (multi-stage) are not supported yet",
        ),
        ("tokenizer_source: union\n", "r.yaml:3: tokenizer_source: `union` is not supported yet"),
        ("tokenizer: {source: union}\n", "r.yaml:3: tokenizer: `union` is not supported yet"),
        (
            "tokenizer:\n  source: a\n  tokens: {}\n",
            "r.yaml:5: tokenizer.tokens: `tokens` is not supported yet",
        ),
        (
            "tokenizer:\n  source: a\n  pad_to_multiple_of: 8\n",
            "r.yaml:5: tokenizer.pad_to_multiple_of: `pad_to_multiple_of` is not supported yet",
        ),
        ("tokenizer_source: base\n", "r.yaml:3: tokenizer_source: `base` needs a `base_model`"),
        (
            "tokenizer_source: c\n",
            "r.yaml:3: tokenizer_source: must be `base` or a model of this recipe: 'a', 'b' (got 'c')",
        ),
        (
            "tokenizer_source: a\ntokenizer: {source: a}\n",
            "r.yaml:4: tokenizer: given together with `tokenizer_source`",
        ),
        (
            "chat_template: chatml\n",
            "r.yaml:3: chat_template: mergekit's built-in template 'chatml' is not supported",
        ),
        (
            "dtype: bf16\n",
            "r.yaml:3: dtype: must be 'float32', 'bfloat16' or 'float16' (got 'bf16'; did you mean",
        ),
        ("base-model: a\n", "r.yaml:3: base-model: unknown key; did you mean 'base_model'?"),
        (
            "parameters: {t: half}\n",
            "r.yaml:3: parameters.t: must be a number, true or false, a list of numbers",
        ),
        (
            "parameters: {t: []}\n",
            "r.yaml:3: parameters.t: must be a number, true or false, a list of numbers",
        ),
        ("parameters:\n  t:\n  - 1\n  - x\n", "r.yaml:6: parameters.t[1]: must be a number (got 'x')"),
        ("parameters:\n  t:\n  - 1\n  - true\n", "r.yaml:6: parameters.t[1]: must be a number (got true)"),
        (
            "parameters:\n  t:\n  - filtr: mlp\n    value: 1\n",
            "r.yaml:5: parameters.t[0].filtr: unknown key; did you mean 'filter'?",
        ),
        ("parameters:\n  t:\n  - filter: mlp\n", "r.yaml:5: parameters.t[0].value: missing: add it"),
        (
            "parameters:\n  t:\n  - value: [{value: 1}]\n",
            "r.yaml:5: parameters.t[0].value: must be a number, true or false, or a list of numbers",
        ),
        ("parameters:\n  t: .nan\n", "r.yaml:4: '.nan' is not a finite number"),
    ],
)
def test_one_line_says_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe("merge_method: linear\nmodels: [{model: a}, {model: b}]\n" + text, "r.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("[]", "models: must not be empty"),
        ("[{model: 7}]", "models[0].model: must be text: put quotes around it (got 7)"),
        ("[{model: ''}]", "models[0].model: must not be empty"),
        ("[{model: {path: x}}]", "models[0].model: must be text (got a block)"),
        ("[{parameters: {weight: 1}}]", "models[0].model: missing: add it"),
        ("[{model: a, weight: 1}]", "models[0].weight: unknown key; known here: model, parameters"),
        ("[{model: a}, {model: b}, {model: a}]", "models: entries 0 and 2 are the same model 'a'"),
        ("[a]", "models[0]: must be a block of `key: value` lines (got 'a')"),
    ],
)
def test_models_that_make_no_sense_are_refused(models: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(f"merge_method: linear\ntokenizer_source: a\nmodels: {models}\n", "r.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"r.yaml:3: {expected}")


def test_empty_parameters_are_no_parameters() -> None:
    text = "merge_method: linear\nmodels:\n- model: a\n  parameters:  # none yet\nparameters:\n"
    assert parse_recipe(text, "x") == Recipe(merge_method="linear", models=(ModelEntry(model="a"),))
