"""Merges by slices of layers, from the command to a model that transformers loads and that says what it should."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from recipes import loaded
from torch import Tensor

from command import Finished, unspoiled
from tiny import tiny_base, tiny_tokenizer

IDS = torch.arange(3, 19).reshape(1, 16)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of four layers with their heads stored."""
    root = tmp_path_factory.mktemp("pair")
    return tiny_base(root / "one", seed=1, tie=False, layers=4), tiny_base(root / "two", seed=2, tie=False, layers=4)


def merge(place: Path, recipe: str, *options: str) -> Finished:
    (place / "recipe.yaml").write_text(recipe)
    return unspoiled("merge", place / "recipe.yaml", place / "out", "--quiet", *options)


def merged(place: Path, recipe: str) -> Any:
    done = merge(place, recipe)
    assert done.code == 0, done.err
    return loaded(place / "out")


def passthrough(*slices: tuple[Path, int, int]) -> str:
    parts = "".join(
        f"  - sources: [{{model: {model}, layer_range: [{start}, {stop}]}}]\n" for model, start, stop in slices
    )
    return f"merge_method: passthrough\nslices:\n{parts}"


def stacked(layers: Sequence[tuple[Any, int]], *, head: Any) -> Any:
    """Return a model of copies of these layers, with the embedding of the first's model and `head`'s norm and head."""
    model = copy.deepcopy(layers[0][0])
    model.model.layers = torch.nn.ModuleList(copy.deepcopy(owner.model.layers[index]) for owner, index in layers)
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index
    model.config.num_hidden_layers = len(layers)
    model.model.norm, model.lm_head = copy.deepcopy(head.model.norm), copy.deepcopy(head.lm_head)
    return model


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def refusal(place: Path, recipe: str) -> str:
    """Return the message of a merge that is refused and leaves nothing."""
    done = merge(place, recipe)
    assert done.code in (2, 4), done.err
    assert done.err.count("Error: ") == 1
    assert sorted(path.name for path in place.iterdir()) == ["recipe.yaml"]
    return done.err


def test_a_stack_of_two_models_is_the_one_made_by_hand(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Layers 0-2 of one and 1-3 of the other: embeddings come from the first, norm and head from the last."""
    model = merged(tmp_path, passthrough((pair[0], 0, 3), (pair[1], 1, 4)))
    one, two = map(loaded, pair)
    expected = stacked([*((one, i) for i in range(3)), *((two, i) for i in range(1, 4))], head=two)
    assert model.config.num_hidden_layers == len(model.model.layers) == 6
    assert torch.equal(logits(model), logits(expected))


def test_layers_may_be_repeated_and_turned_round(pair: tuple[Path, Path], tmp_path: Path) -> None:
    model = merged(tmp_path, passthrough((pair[0], 2, 4), (pair[0], 2, 4), (pair[0], 0, 1)))
    one = loaded(pair[0])
    assert torch.equal(logits(model), logits(stacked([(one, i) for i in (2, 3, 2, 3, 0)], head=one)))


def test_a_tied_model_stays_tied(tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base", layers=3)
    (tmp_path / "place").mkdir()
    model = merged(tmp_path / "place", passthrough((base, 0, 2), (base, 1, 3)))
    one = loaded(base)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    expected = stacked([(one, i) for i in (0, 1, 1, 2)], head=one)
    expected.lm_head.weight = expected.model.embed_tokens.weight
    assert torch.equal(logits(model), logits(expected))


def test_a_gradient_runs_over_the_layers_of_its_slice(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Three layers of both, the second's weight rising 0, 0.5, 1, then one layer of the first alone.

    What is outside of layers takes a gradient's first entry: 0 before the layers, the last slice's 0.25 after them.
    """
    one, two = pair
    model = merged(
        tmp_path,
        f"merge_method: linear\ndtype: float32\nslices:\n"
        f"  - sources:\n"
        f"      - {{model: {one}, layer_range: [0, 3], parameters: {{weight: [1.0, 0.0]}}}}\n"
        f"      - {{model: {two}, layer_range: [1, 4], parameters: {{weight: [0.0, 1.0]}}}}\n"
        f"  - sources:\n"
        f"      - {{model: {one}, layer_range: [3, 4], parameters: {{weight: 0.75}}}}\n"
        f"      - {{model: {two}, layer_range: [0, 1], parameters: {{weight: 0.25}}}}\n",
    )
    first, second = (loaded(path).state_dict() for path in pair)

    def mixed(name: str, other: str, share: float) -> Tensor:
        return (1 - share) * first[name] + share * second[other]

    for name, tensor in model.state_dict().items():
        layer = next((int(part) for part in name.split(".") if part.isdigit()), None)
        if layer is None:
            expected = mixed(name, name, 0.0 if "embed" in name else 0.25)
        elif layer < 3:
            expected = mixed(name, name.replace(f"layers.{layer}", f"layers.{layer + 1}"), (0.0, 0.5, 1.0)[layer])
        else:
            expected = mixed(name, name.replace("layers.3", "layers.0"), 0.25)
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7, msg=name)


def qwen3(path: Path, seed: int, kinds: Sequence[str]) -> Path:
    """Save a model whose config says of each layer whether its attention slides."""
    tokenizer = tiny_tokenizer()
    config = hf.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=len(kinds),
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        layer_types=list(kinds),
        sliding_window=4,
        use_sliding_window=True,
        max_position_embeddings=64,
        eos_token_id=[2, 0],
        bos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = hf.Qwen3ForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


FULL, SLIDING = "full_attention", "sliding_attention"


def test_what_a_config_says_of_each_layer_follows_the_layers(tmp_path: Path) -> None:
    """Sliding layers stay sliding, and lists that aren't about layers stay as they are, though as long."""
    base = qwen3(tmp_path / "base", 1, [FULL, SLIDING])
    (tmp_path / "place").mkdir()
    model = merged(tmp_path / "place", passthrough((base, 1, 2), (base, 0, 2), (base, 1, 2)))
    assert model.config.layer_types == [SLIDING, FULL, SLIDING, SLIDING]
    assert model.config.eos_token_id == [2, 0]
    written = json.loads((tmp_path / "place" / "out" / "config.json").read_text())
    assert written["architectures"] == ["Qwen3ForCausalLM"]
    one = loaded(base)
    expected = stacked([(one, i) for i in (1, 0, 1, 1)], head=one)
    expected.config.layer_types = model.config.layer_types
    assert torch.equal(logits(model), logits(expected))


def test_each_layers_kind_comes_from_the_model_it_was_in(tmp_path: Path) -> None:
    """The models differ in depth and in the kinds of their layers; the config at large is the base's."""
    base = qwen3(tmp_path / "base", 1, [SLIDING, FULL])
    deep = qwen3(tmp_path / "deep", 2, [FULL, FULL, SLIDING, SLIDING])
    (tmp_path / "place").mkdir()
    model = merged(tmp_path / "place", passthrough((base, 0, 2), (deep, 1, 4)) + f"base_model: {base}\n")
    assert model.config.layer_types == [SLIDING, FULL, FULL, SLIDING, SLIDING]
    one, two = loaded(base), loaded(deep)
    expected = stacked([(one, 0), (one, 1), *((two, i) for i in (1, 2, 3))], head=two)
    expected.config.layer_types = model.config.layer_types
    assert torch.equal(logits(model), logits(expected))


def test_a_range_past_the_end_says_where_the_end_is(pair: tuple[Path, Path], tmp_path: Path) -> None:
    message = refusal(tmp_path, passthrough((pair[0], 0, 2), (pair[1], 2, 5)))
    assert f"layer_range [2, 5] of '{pair[1]}': the model has 4 layers, so the range may end at 4" in message


def test_a_model_of_two_stacks_is_refused(tmp_path: Path) -> None:
    config = hf.T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    hf.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    (tmp_path / "place").mkdir()
    message = refusal(tmp_path / "place", passthrough((tmp_path / "t5", 0, 1)))
    assert "/t5' has 2: decoder.block, encoder.block. Merge it whole, with `models`" in message


def test_layers_of_another_width_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Also in a stack of one model after the other, whose slices alone are whole."""
    narrow = qwen3(tmp_path / "narrow", 1, [FULL, FULL])
    (tmp_path / "place").mkdir()
    message = refusal(tmp_path / "place", passthrough((pair[0], 0, 2), (narrow, 0, 2)))
    assert str(narrow) in message
    assert str(pair[0]) in message


def test_layers_with_other_tensors_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Biases that only some layers have would be dropped by transformers, or made up, without a word."""
    model, tokenizer = loaded(pair[0]), tiny_tokenizer()
    config = hf.LlamaConfig(**model.config.to_dict() | {"attention_bias": True})
    hf.LlamaForCausalLM(config).save_pretrained(tmp_path / "biased")
    tokenizer.save_pretrained(tmp_path / "biased")
    for number, order in enumerate([(pair[0], tmp_path / "biased"), (tmp_path / "biased", pair[0])]):
        (place := tmp_path / str(number)).mkdir()
        message = refusal(place, passthrough(*((path, 0, 2) for path in order)))
        has, lacks = ("[16]", "nowhere") if number == 0 else ("nowhere", "[16]")
        bias = f"slice 1: layers of '{order[1]}' have *.self_attn.k_proj.bias {has}, and those of '{order[0]}' {lacks}"
        assert bias in message


def test_a_base_that_is_no_source_lends_the_layers_of_the_sources(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = pair
    base = tiny_base(tmp_path / "base", seed=3, tie=False, layers=4)
    (tmp_path / "place").mkdir()
    recipe = (
        f"merge_method: task_arithmetic\nbase_model: {base}\ndtype: float32\nslices:\n"
        f"  - sources:\n"
        f"      - {{model: {one}, layer_range: [START, 4], parameters: {{weight: 0.5}}}}\n"
        f"      - {{model: {two}, layer_range: [2, 4], parameters: {{weight: 0.25}}}}\n"
    )
    model = merged(tmp_path / "place", recipe.replace("START", "2"))
    states = [loaded(path).state_dict() for path in (base, one, two)]
    for name, tensor in model.state_dict().items():
        old = name.replace("layers.1", "layers.3").replace("layers.0", "layers.2")
        root, first, second = (state[old] for state in states)
        expected = root + 0.5 * (first - root) + 0.25 * (second - root)
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6, msg=name)
    (tmp_path / "other").mkdir()
    different = recipe.replace("START", "1").replace("[2, 4]", "[0, 3]")
    message = refusal(tmp_path / "other", different)
    assert "slice 0 merges different layers [[0, 3], [1, 4]], and doesn't say which of the base's" in message
