"""Recipes: mergekit's YAML means what it means there, survives a round trip, and fails with a line number."""

from pathlib import Path

import pytest
import yaml

from unspoiled.config import BUILT_IN_TEMPLATES, ModelEntry, Recipe, parse_recipe, read_recipe
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
    with pytest.raises(ConfigError, match=r"merge\.yaml:1: needs either `models` \(whole models\) or `slices`"):
        read_recipe(path)


# --- what a recipe says of its models --------------------------------------------------------------------------


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
        ("slices:\n- sources: [{model: a, layer_range: [0, 1]}]\n", "r.yaml:3: slices: given together with `models`"),
        ("gate_mode: hidden\n", "r.yaml:3: gate_mode: `gate_mode` is not supported yet: mixture-of-experts"),
        ("genome: {}\n", "r.yaml:3: genome: `genome` is not supported yet: recipes of mergekit-evolve"),
        (
            "---\nmerge_method: slerp\n",
            "r.yaml:4: a second recipe starts here, and one is wanted: give a file of several stages to `unspoiled "
            "merge`",
        ),
        ("name: base\n", "r.yaml:3: name: 'base' has another meaning"),
        ("name: ../up\n", "r.yaml:3: name: must fit the name of a directory"),
        ("name: a+b\n", "r.yaml:3: name: must fit the name of a directory"),
        ('name: "a\\nb"\n', "r.yaml:3: name: must fit the name of a directory"),
        ("modules: {}\n", "r.yaml:3: modules: `modules` is not supported yet"),
        ("tokenizer_source: base\n", "r.yaml:3: tokenizer_source: `base` needs a `base_model`"),
        (
            "tokenizer_source: a\ntokenizer: {source: a}\n",
            "r.yaml:4: tokenizer: given together with `tokenizer_source`",
        ),
        (
            "chat_template: chatlm\n",
            "r.yaml:3: chat_template: must be 'auto', 'alpaca', 'chatml', 'exaone', 'llama3', 'mistral' or Jinja text, "
            "which has a '{' in it (got 'chatlm'; did you mean 'chatml'?)",
        ),
        ("chat_template: ''\n", "r.yaml:3: chat_template: must not be empty"),
        ("out_dtype: int64\n", "r.yaml:3: out_dtype: must be 'float32', 'bfloat16' or 'float16' (got 'int64'"),
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
        ("[{model: 7}]", "models[0].model: must be text: put quotes around it (got 7)"),
        ("[{model: ''}]", "models[0].model: must not be empty"),
        ("[{model: {path: x}}]", "models[0].model: must be text (got a block)"),
        ("[{model: {model: {path: x, revision: 7}}}]", "models[0].model: must be text (got a block)"),
        (
            "[{model: {model: x, override_architecture: LlamaForCausalLM}}]",
            "models[0].model: `override_architecture` is not supported",
        ),
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


@pytest.mark.parametrize("inputs", ["", "models:\n", "models: []\nslices: []\n"])
def test_a_recipe_of_nothing_is_refused(inputs: str) -> None:
    with pytest.raises(ConfigError, match=r"^r\.yaml:2: needs either `models` \(whole models\) or `slices`"):
        parse_recipe("# empty\nmerge_method: linear\n" + inputs, "r.yaml")


def test_mergekits_names_of_dtypes_and_templates_are_read() -> None:
    recipe = parse_recipe(LINEAR.replace("float16", "torch.bfloat16") + "out_dtype: torch.float32\n", "x")
    assert (recipe.dtype, recipe.out_dtype) == ("bfloat16", "float32")
    for template in ("auto", *BUILT_IN_TEMPLATES, "{{ messages }}"):
        assert parse_recipe(LINEAR + f"chat_template: '{template}'\n", "x").chat_template == template


def test_a_model_in_block_form_is_the_text_that_it_stands_for() -> None:
    # mergekit's own writer uses this form for names with spaces
    recipe = parse_recipe(
        "merge_method: linear\n"
        "base_model: {model: {path: ./my models/x}}\n"
        "models:\n"
        "- model: {model: {path: hub/a, revision: v1}, lora: {path: hub/b, revision: null}}\n"
        "- model: {model: hub/c@v2, lora: null, override_architecture: null}\n",
        "x",
    )
    assert recipe.model_names == ["./my models/x", "hub/a@v1+hub/b", "hub/c@v2"]


def test_every_model_is_named_once_the_base_first() -> None:
    text = TIES.replace("tokenizer_source: base", "tokenizer: {source: t, tokens: {x: {source: u}, y: {source: t}}}")
    assert parse_recipe(text, "x").model_names == ["./base", "hub/math-7b@v1.1", "./base+./adapters/code", "t", "u"]
    assert parse_recipe(LINEAR + "tokenizer_source: t\n", "x").model_names == ["./a", "./b", "t"]
    assert parse_recipe(LINEAR + "tokenizer_source: union\n", "x").model_names == ["./a", "./b"]


def test_renaming_reaches_every_place_that_names_a_model() -> None:
    text = (
        "merge_method: ties\nbase_model: a\nslices:\n"
        "- base_model: b\n  sources: [{model: a, layer_range: [0, 1]}, {model: c, layer_range: [0, 1]}]\n"
        "tokenizer:\n  source: d\n  tokens:\n"
        "    x: {source: e}\n    y: {source: {kind: model_token, model: f, token_id: 3}}\n"
        "    z: {source: {kind: zero}}\n"
    )
    names = list("abcdef")
    recipe = parse_recipe(text, "x")
    assert recipe.model_names == ["a", "c", "b", "d", "e", "f"]
    moved = recipe.with_models({name: f"./{name}" for name in names})
    assert moved.model_names == ["./a", "./c", "./b", "./d", "./e", "./f"]
    assert moved.with_models({f"./{name}": name for name in names}) == recipe
    whole = parse_recipe(LINEAR + "tokenizer_source: ./b\n", "x").with_models({"./b": "./c"})
    assert whole == parse_recipe(LINEAR.replace("./b", "./c") + "tokenizer_source: ./c\n", "x")
    union = parse_recipe(LINEAR + "tokenizer_source: union\n", "x")
    assert union.with_models({"union": "./u"}) == union  # a word here, not a model


def test_two_models_that_become_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the same model '\./b'"):
        parse_recipe(LINEAR, "x").with_models({"./a": "./b"})
