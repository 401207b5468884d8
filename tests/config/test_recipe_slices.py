"""Slices: layers of several models stacked into one, with parameters for a source, a slice or the whole recipe."""

import pytest

from unspoiled.config import ModelEntry, Recipe, Slice, SliceSource, parse_recipe
from unspoiled.errors import ConfigError

STACKED = """\
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - model: base
        layer_range: [0, 3]
      - model: math
        layer_range: [0, 3]
        parameters:
          weight:
            - filter: mlp
              value: [0.0, 1.0]
    parameters:
      weight: 0.7
      lambda: 0.9
  - sources:
      - model: code
        layer_range: [20, 21]
      - model: math
        layer_range: [2, 3]
    base_model: code
parameters:
  weight: [0.1, 0.2]
"""


def test_slices_are_read_in_their_order() -> None:
    recipe = parse_recipe(STACKED, "x")
    assert recipe.slice_count == 2
    assert recipe.slice_sources(1) == (
        SliceSource(model="code", layer_range=(20, 21)),
        SliceSource(model="math", layer_range=(2, 3)),
    )
    assert [part.layers for part in recipe.slices] == [3, 1]
    assert recipe.models == ()


def test_a_slices_base_goes_before_the_recipes() -> None:
    recipe = parse_recipe(STACKED, "x")
    assert [recipe.slice_base(index) for index in range(2)] == ["base", "code"]
    assert recipe.model_names == ["base", "math", "code"]
    assert recipe.experts == [ModelEntry(model="math")]  # code is only ever a base
    assert recipe.tokenizer_donor == "base"


def test_without_a_base_the_first_source_gives_the_tokenizer() -> None:
    recipe = parse_recipe("merge_method: passthrough\nslices:\n- sources: [{model: b, layer_range: [0, 1]}]\n", "x")
    assert recipe.tokenizer_donor == "b"
    assert recipe.slice_base(0) is None


def test_a_sources_value_goes_before_the_slices_and_that_before_the_recipes() -> None:
    recipe = parse_recipe(STACKED, "x")

    def weight(index: int | None, tensor: str = "mlp.w", layer: int | None = 1, slice_index: int = 0) -> object:
        layers = recipe.slices[slice_index].layers
        return recipe.parameter("weight", index, tensor=tensor, layer=layer, layers=layers, slice_index=slice_index)

    assert [weight(1, layer=layer) for layer in (None, 0, 1, 2)] == [0.0, 0.0, 0.5, 1.0]  # t counts within the slice
    assert weight(1, tensor="attn.w") == 0.7  # no filter of the source applies
    assert weight(0) == weight(None) == 0.7
    assert weight(0, layer=0, slice_index=1) == 0.2  # one layer: t = 1
    assert weight(None, layer=None, slice_index=1) == 0.1
    assert recipe.parameter("lambda", None, tensor="x", layer=0, layers=1, slice_index=1) is None


def test_whole_models_are_one_slice() -> None:
    recipe = Recipe(merge_method="linear", base_model="b", models=(ModelEntry(model="a"),))
    assert recipe.slice_count == 1
    assert recipe.slice_sources(0) == recipe.models
    assert recipe.slice_base() == "b"


@pytest.mark.parametrize("index", [-1, 2])
def test_a_slice_that_is_not_there_is_an_error(index: int) -> None:
    recipe = parse_recipe(STACKED, "x")
    with pytest.raises(ValueError, match=rf"slice {index} is not in \[0, 2\)"):
        recipe.slice_sources(index)
    with pytest.raises(ValueError, match=rf"slice {index} is not in \[0, 2\)"):
        recipe.parameter("weight", None, tensor="x", layer=None, layers=1, slice_index=index)


def test_one_model_may_stand_beside_itself_from_other_layers() -> None:
    sources = (SliceSource(model="a", layer_range=(0, 2)), SliceSource(model="a", layer_range=(2, 4)))
    assert Slice(sources=sources).layers == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- sources: []\n", "r.yaml:3: slices[0].sources: must not be empty"),
        ("- sources:\n  - model: a\n", "r.yaml:4: slices[0].sources[0].layer_range: missing: add it"),
        (
            "- sources:\n  - model: a\n    layer_range: [3, 3]\n",
            "r.yaml:5: slices[0].sources[0].layer_range: must start at layer 0 or later and end after its start (got "
            "[3, 3])",
        ),
        (
            "- sources:\n  - model: a\n    layer_range: [-1, 3]\n",
            "r.yaml:5: slices[0].sources[0].layer_range: must start at layer 0 or later",
        ),
        (
            "- sources:\n  - model: a\n    layer_range: [8]\n",
            "r.yaml:5: slices[0].sources[0].layer_range: must be the first layer and the one after the last, as in "
            "[0, 24] (got [8])",
        ),
        (
            "- sources:\n  - model: a\n    layer_range: [0, 1, 2]\n",
            "r.yaml:5: slices[0].sources[0].layer_range: must be the first layer and the one after the last",
        ),
        (
            "- sources:\n  - model: a\n    layer_range: 0-8\n",
            "r.yaml:5: slices[0].sources[0].layer_range: must be a list (got '0-8')",
        ),
        (
            "- sources:\n  - model: a\n    layer_range:\n    - 0\n    - 1.5\n",
            "r.yaml:7: slices[0].sources[0].layer_range[1]: must be a whole number (got 1.5)",
        ),
        (
            "- parameters: {}\n  sources:\n  - {model: a, layer_range: [0, 2]}\n  - {model: b, layer_range: [0, 1]}\n",
            "r.yaml:4: slices[0].sources: entry 0 has 2 layers and entry 1 has 1 layer: all must have the same number",
        ),
        (
            "- sources:\n  - {model: a, layer_range: [0, 2]}\n  - {model: a, layer_range: [0, 2]}\n",
            "r.yaml:3: slices[0].sources: entries 0 and 1 are layers of the same model 'a': keep one",
        ),
        (
            "- sources: [{model: a, layer_range: [0, 2]}]\n  residual_weight: 0.5\n",
            "r.yaml:4: slices[0].residual_weight: `residual_weight` is not supported yet",
        ),
        (
            "- sources: [{model: a, layer_range: [0, 2]}]\n  parameter: {}\n",
            "r.yaml:4: slices[0].parameter: unknown key; did you mean 'parameters'?",
        ),
        (
            "- sources: [{model: a, layer_range: [0, 2]}]\n  parameters:\n    t: [1, x]\n",
            "r.yaml:5: slices[0].parameters.t[1]: must be a number (got 'x')",
        ),
    ],
)
def test_one_line_says_what_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe("merge_method: passthrough\nslices:\n" + text, "r.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(expected)
