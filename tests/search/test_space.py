"""A genome stands for exact weights: what a search found is what a recipe file merges, to the last bit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landscapes import space

from unspoiled.config import Recipe, parse_recipe
from unspoiled.errors import ConfigError
from unspoiled.search import Granularity

WEIGHTS = st.floats(-10, 10, allow_subnormal=True)


def per_layer(recipe: Recipe, layers: int) -> list[list[float]]:
    def weight(model: int, layer: int) -> float:
        value = recipe.parameter("weight", model, tensor="", layer=layer, layers=layers)
        assert value is not None
        return float(value)

    return [[weight(model, layer) for layer in range(layers)] for model in range(len(recipe.models))]


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        ("model", [[0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]),
        ("group", [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]),
        ("layer", [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]),
    ],
)
def test_the_genome_runs_expert_by_expert_from_first_to_last_layer(
    granularity: Granularity, expected: list[list[float]]
) -> None:
    searched = space(granularity=granularity, groups=3)
    assert per_layer(searched.recipe([float(i) for i in range(searched.size)]), 6) == expected


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
@pytest.mark.parametrize("granularity", ["model", "group", "layer"])
@settings(max_examples=20)
@given(data=st.data())
def test_a_recipe_file_gives_back_the_genomes_bits(method: str, granularity: Granularity, data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 9))
    searched = space(method=method, granularity=granularity, layers=layers, groups=data.draw(st.integers(1, layers)))
    genome = data.draw(st.lists(WEIGHTS, min_size=searched.size, max_size=searched.size))
    recipe = searched.recipe(genome)
    reread = parse_recipe(recipe.to_yaml(), "recipe.yaml")
    assert reread == recipe
    blocks = searched.blocks
    expected = [
        [weight.hex() for weight, block in zip(genome[i : i + len(blocks)], blocks, strict=True) for _ in block]
        for i in range(0, len(genome), len(blocks))
    ]
    assert [[weight.hex() for weight in row] for row in per_layer(reread, layers)] == expected


@given(layers=st.integers(1, 100), data=st.data())
def test_groups_share_the_layers_out_evenly(layers: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, layers))
    blocks = space(granularity="group", layers=layers, groups=groups).blocks
    assert [layer for block in blocks for layer in block] == list(range(layers))
    sizes = [len(block) for block in blocks]
    assert len(sizes) == groups
    assert max(sizes) - min(sizes) <= 1


def test_tensors_of_no_layer_take_the_first_weight() -> None:
    searched = space(granularity="layer")
    recipe = searched.recipe([float(i) for i in range(searched.size)])
    assert recipe.parameter("weight", 1, tensor="model.norm.weight", layer=None, layers=6) == 6.0


def test_every_coefficient_has_a_name_of_its_own() -> None:
    assert space().labels == ["e0", "e1"]
    assert space(granularity="group", groups=4).labels[:4] == ["e0/0", "e0/1-2", "e0/3", "e0/4-5"]
    labels = space(granularity="layer").labels
    assert len(set(labels)) == len(labels) == 12


def test_a_genome_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 3 values, the space 2"):
        space().recipe([1.0, 2.0, 3.0])


@pytest.mark.parametrize("groups", [0, 7])
def test_more_groups_than_layers_are_refused_with_the_way_out(groups: int) -> None:
    with pytest.raises(ConfigError, match=f"search.layer_groups is {groups}: choose 1 to 6"):
        space(granularity="group", groups=groups)
