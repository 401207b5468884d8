"""A genome stands for exact weights: what a search found is what a recipe file merges, to the last bit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landscapes import WEIGHT, space

from unspoiled.config import Recipe, parse_recipe
from unspoiled.errors import ConfigError
from unspoiled.search import Granularity, Range, SearchSpace, module_kinds

WEIGHTS = st.floats(-10, 10, allow_subnormal=True)

LLAMA = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{i}.{module}.weight"
        for i in range(3)
        for module in (
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "post_attention_layernorm",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        )
    ),
    "model.norm.weight",
    "lm_head.weight",
]
QWEN3 = [*LLAMA, *(f"model.layers.{i}.self_attn.{norm}.weight" for i in range(3) for norm in ("q_norm", "k_norm"))]
GPT2 = [
    "transformer.wte.weight",
    "transformer.wpe.weight",
    *(
        f"transformer.h.{i}.{module}.{end}"
        for i in range(3)
        for module in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        for end in ("weight", "bias")
    ),
    "transformer.ln_f.weight",
]
MIXTRAL = [name for name in LLAMA if ".mlp." not in name] + [
    f"model.layers.{i}.block_sparse_moe.{module}.weight"
    for i in range(3)
    for module in ("gate", "experts.0.w1", "experts.0.w2", "experts.1.w1", "experts.1.w2")
]
MODELS = {"llama": LLAMA, "qwen3": QWEN3, "gpt2": GPT2, "mixtral": MIXTRAL}
STACKS = {"llama": "model.layers", "qwen3": "model.layers", "gpt2": "transformer.h", "mixtral": "model.layers"}
every_model = pytest.mark.parametrize("model", MODELS)

TIES = {"method": "ties", "ranges": {**WEIGHT, "density": Range(0.2, 1.0, 0.5), "lambda": Range(0.5, 1.5, 1.0)}}
"""A method with two parameters of every expert and one of the merge."""


def layer_of(tensor: str) -> int | None:
    number = next((part for part in tensor.split(".") if part.isdigit()), None)
    return None if number is None else int(number)


def value(recipe: Recipe, name: str, model: int | None, tensor: str, layers: int) -> float:
    found = recipe.parameter(name, model, tensor=tensor, layer=layer_of(tensor), layers=layers)
    assert found is not None
    return float(found)


def per_layer(recipe: Recipe, layers: int) -> list[list[float]]:
    def weight(model: int, layer: int) -> float:
        found = recipe.parameter("weight", model, tensor="", layer=layer, layers=layers)
        assert found is not None
        return float(found)

    return [[weight(model, layer) for layer in range(layers)] for model in range(len(recipe.models))]


# --- genome and recipe ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        ("model", [[0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]),
        ("group", [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]),
        ("smooth", [[0, 0.4, 0.8, 1.2, 1.6, 2], [3, 3.4, 3.8, 4.2, 4.6, 5]]),
        ("layer", [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]),
    ],
)
def test_the_genome_runs_expert_by_expert_from_first_to_last_layer(
    granularity: Granularity, expected: list[list[float]]
) -> None:
    searched = space(granularity=granularity, groups=3)
    found = per_layer(searched.recipe([float(i) for i in range(searched.size)]), 6)
    for own, wanted in zip(found, expected, strict=True):
        assert own == pytest.approx(wanted)


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


def test_every_parameter_that_moves_has_its_own_run_of_the_genome() -> None:
    searched = space(**TIES, fixed={"normalize": False})
    assert searched.labels == ["e0", "e1", "e0:density", "e1:density", "merge:lambda"]
    assert (searched.low, searched.high) == ((0, 0, 0.2, 0.2, 0.5), (1.5, 1.5, 1, 1, 1.5))
    assert searched.start == (0.5, 0.5, 0.5, 0.5, 1.0)
    recipe = parse_recipe(searched.recipe([0.1, 0.2, 0.3, 0.4, 0.6]).to_yaml(), "recipe.yaml")
    tensor = "model.layers.1.mlp.up_proj.weight"
    found = [value(recipe, name, model, tensor, 6) for name in ("weight", "density") for model in (0, 1)]
    assert [*found, value(recipe, "lambda", None, tensor, 6)] == [0.1, 0.2, 0.3, 0.4, 0.6]
    assert recipe.parameters["normalize"] is False


@every_model
def test_each_module_kind_of_a_layer_has_a_value_of_its_own(model: str) -> None:
    """A tensor's value in the recipe is the one whose label names its expert, kind and layer."""
    tensors = MODELS[model]
    kinds = module_kinds(tensors)
    searched = space(granularity="module", layers=3, kinds=kinds)
    genome = [float(i) for i in range(searched.size)]
    by_label = searched.named(genome)
    recipe = parse_recipe(searched.recipe(genome).to_yaml(), "recipe.yaml")
    for tensor, (index, expert) in itertools.product(tensors, enumerate(searched.experts)):
        kind = next(kind for kind, texts in kinds.items() if any(text in tensor for text in texts))
        label = f"{expert}/{kind}" if kind == "embeddings" else f"{expert}/{kind}/{layer_of(tensor) or 0}"
        assert value(recipe, "weight", index, tensor, 3) == by_label[label]


def test_a_tensor_of_no_kind_keeps_its_start() -> None:
    searched = space(granularity="module", layers=3, kinds={"mlp": (".mlp.",)})
    recipe = searched.recipe([7.0] * searched.size)
    assert value(recipe, "weight", 0, "model.layers.1.self_attn.q_proj.weight", 3) == 0.5


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


def test_constant_sets_weights_by_expert_and_leaves_the_rest() -> None:
    searched = space(**TIES, granularity="group", groups=2)
    assert searched.constant([0.3, 0.9]) == (0.3, 0.3, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0)
    slerp = space(method="slerp", ranges={"t": Range(0.0, 1.0, 0.4)})
    assert slerp.constant([0.3, 0.9]) == slerp.start == (0.4,)


def test_same_gives_every_expert_and_layer_one_value() -> None:
    searched = space(**TIES, granularity="group", groups=2)
    assert searched.same({"weight": 0.3, "density": 0.25}) == (0.3,) * 4 + (0.25,) * 4 + (1.0, 1.0)


# --- the chain rule ---------------------------------------------------------------------------------------

GRANULARITIES: dict[str, dict[str, object]] = {
    "model": {},
    "group": {"granularity": "group", "groups": 2},
    "smooth": {"granularity": "smooth", "groups": 2},
    "layer": {"granularity": "layer"},
    "module": {"granularity": "module"},
}


def searched_for(model: str, granularity: str) -> SearchSpace:
    changes = dict(GRANULARITIES[granularity])
    if granularity == "module":
        changes["kinds"] = module_kinds(MODELS[model])
    return space(**TIES, layers=3, **changes)


@every_model
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_gradient_is_that_of_finite_differences_through_the_recipe(model: str, granularity: str) -> None:
    """A made-up loss of every tensor's own coefficients, as the recipe gives them: norms in attention modules,
    embeddings outside of layers, and parameters of the merge included."""
    tensors, searched = MODELS[model], searched_for(model, granularity)
    rng = np.random.default_rng(0)
    tilt = {tensor: rng.normal(0, 1, 5) for tensor in tensors}

    def coefficients(at: list[float], tensor: str) -> np.ndarray:
        recipe = searched.recipe(at)
        own = [value(recipe, name, i, tensor, 3) for name in ("weight", "density") for i in (0, 1)]
        return np.array([*own, value(recipe, "lambda", None, tensor, 3)])

    def loss(at: list[float]) -> float:
        return math.fsum(float(np.sin(tilt[tensor] @ coefficients(at, tensor))) for tensor in tensors)

    genome = rng.uniform(0.3, 0.9, searched.size).tolist()
    by_tensor: dict[str, dict[str, float | list[float]]] = {}
    for tensor in tensors:
        slope = np.cos(tilt[tensor] @ coefficients(genome, tensor)) * tilt[tensor]
        by_tensor[tensor] = {"weight": slope[:2].tolist(), "density": slope[2:4].tolist(), "lambda_": float(slope[4])}
    found = searched.gradient(by_tensor, {STACKS[model]: 3})
    for i in range(searched.size):
        up, down = list(genome), list(genome)
        up[i] += 1e-5
        down[i] -= 1e-5
        assert found[i] == pytest.approx((loss(up) - loss(down)) / 2e-5, rel=1e-5, abs=1e-7), searched.labels[i]


def test_the_arguments_that_move_are_named_as_the_method_takes_them() -> None:
    assert space(**TIES).arguments == ("weight", "density", "lambda_")


# --- module kinds -----------------------------------------------------------------------------------------


def test_a_llamas_modules_are_sorted_by_kind() -> None:
    assert module_kinds(LLAMA) == {
        "norms": (".input_layernorm.", ".post_attention_layernorm.", "model.norm"),
        "attention": (".self_attn.",),
        "mlp": (".mlp.",),
        "embeddings": ("lm_head", "model.embed_tokens"),
    }


def kind_of(model: str, tensor: str) -> str:
    return next(kind for kind, texts in module_kinds(MODELS[model]).items() if any(text in tensor for text in texts))


@pytest.mark.parametrize(
    ("model", "tensor", "kind"),
    [
        ("qwen3", "model.layers.1.self_attn.q_norm.weight", "norms"),
        ("qwen3", "model.layers.1.self_attn.q_proj.weight", "attention"),
        ("gpt2", "transformer.h.0.ln_1.bias", "norms"),
        ("gpt2", "transformer.h.0.attn.c_proj.weight", "attention"),
        ("gpt2", "transformer.h.0.mlp.c_proj.weight", "mlp"),
        ("gpt2", "transformer.wpe.weight", "embeddings"),
        ("gpt2", "transformer.ln_f.weight", "norms"),
        ("mixtral", "model.layers.2.block_sparse_moe.experts.1.w2.weight", "mlp"),
        ("mixtral", "model.layers.2.block_sparse_moe.gate.weight", "mlp"),
        ("mixtral", "lm_head.weight", "embeddings"),
    ],
)
def test_each_architecture_names_its_modules_in_its_own_way(model: str, tensor: str, kind: str) -> None:
    assert tensor in MODELS[model]
    assert kind_of(model, tensor) == kind


@every_model
def test_every_tensor_has_a_kind_and_no_kind_is_empty(model: str) -> None:
    kinds = module_kinds(MODELS[model])
    assert {kind_of(model, tensor) for tensor in MODELS[model]} == set(kinds)
    assert "other" not in kinds


# --- labels and refusals ----------------------------------------------------------------------------------


def test_every_coefficient_has_a_name_of_its_own() -> None:
    assert space().labels == ["e0", "e1"]
    assert space(granularity="group", groups=4).labels[:4] == ["e0/0", "e0/1-2", "e0/3", "e0/4-5"]
    assert space(granularity="smooth", groups=2).labels[:2] == ["e0/knot 0", "e0/knot 1"]


@every_model
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_no_two_coefficients_share_a_name(model: str, granularity: str) -> None:
    searched = searched_for(model, granularity)
    assert len(set(searched.labels)) == searched.size == len(searched.low) == len(searched.high) == len(searched.start)


def test_a_genome_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 3 values, the space 2"):
        space().recipe([1.0, 2.0, 3.0])


@pytest.mark.parametrize("granularity", ["group", "smooth"])
@pytest.mark.parametrize("groups", [0, 7])
def test_more_groups_than_layers_are_refused_with_the_way_out(granularity: Granularity, groups: int) -> None:
    with pytest.raises(ConfigError, match=f"search.layer_groups is {groups}: choose 1 to 6"):
        space(granularity=granularity, groups=groups)


@pytest.mark.parametrize(
    ("method", "ranges", "message"),
    [
        ("task_arithmetic", {}, "no parameter of 'task_arithmetic' moves"),
        ("task_arithmetic", {"wieght": Range(0, 1, 0.5)}, "has no parameter 'wieght' to search: choose from weight"),
        ("ties", {"density": Range(0.5, 1.2, 0.6)}, r"density is \[0.5, 1.2\], .*: density is in \[0, 1\]"),
        ("ties", {"density": Range(0.5, 0.5, 0.5)}, "which is no range"),
        ("ties", {"normalize": Range(0, 1, 0.5)}, "normalize is a switch"),
    ],
)
def test_what_can_not_move_is_refused_with_the_way_out(method: str, ranges: dict[str, Range], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space(method=method, ranges=ranges)
