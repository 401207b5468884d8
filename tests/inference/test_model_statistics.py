"""Statistics of a model's data: collected, written, and merged by."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from command import unspoiled
from tiny import Bunch
from unspoiled.config import ModelEntry, Recipe, parse_recipe
from unspoiled.errors import CheckpointError, ConfigError, DataError
from unspoiled.files import write_jsonl_atomic
from unspoiled.inference import (
    ChatTemplate,
    Exchange,
    Prompt,
    collect_fisher,
    collect_importance,
    collect_input_grams,
    load_chat_template,
    load_model,
    write_model_statistics,
)
from unspoiled.merging import MergePlan, Models

EXCHANGES = [
    Exchange(Prompt("How do I bake bread?"), "Mix flour, water, salt and yeast, and wait."),
    Exchange(Prompt("7"), "The answer is 42."),
    Exchange(Prompt("Harm someone."), "I can't help with that."),
]


@pytest.fixture(scope="module")
def model(bunch: Bunch) -> Any:
    return load_model(bunch.base, dtype=torch.float32)


@pytest.fixture(scope="module")
def chat(bunch: Bunch) -> ChatTemplate:
    return load_chat_template(bunch.base)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    write_jsonl_atomic(path, [{"prompt": one.prompt.user, "response": one.response} for one in EXCHANGES])
    return path


def _gradients(model: Any, chat: ChatTemplate, exchange: Exchange) -> dict[str, torch.Tensor]:
    """Return the gradient of log p(response | prompt), token by token from the whole sequence's logits."""
    prompt, response = chat.prompt_ids(exchange.prompt), chat.response_ids(exchange.response)
    log_p = model(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
    total = sum(log_p[len(prompt) + i - 1, token] for i, token in enumerate(response))
    parameters = dict(model.named_parameters())
    return dict(zip(parameters, torch.autograd.grad(total, list(parameters.values())), strict=True))


def test_fisher_and_importance_are_means_over_each_rows_own_gradient(model: Any, chat: ChatTemplate) -> None:
    each = [_gradients(model, chat, exchange) for exchange in EXCHANGES]
    fisher = collect_fisher(model, chat, EXCHANGES)
    importance = collect_importance(model, chat, EXCHANGES)
    parameters = dict(model.named_parameters())
    assert fisher.keys() == importance.keys() == parameters.keys()
    for name, weight in parameters.items():
        squares = sum(gradients[name] ** 2 for gradients in each) / len(EXCHANGES)
        torch.testing.assert_close(fisher[name], squares, rtol=1e-4, atol=1e-8, msg=name)
        products = sum((weight * gradients[name]).abs() for gradients in each) / len(EXCHANGES)
        torch.testing.assert_close(importance[name], products.detach(), rtol=1e-4, atol=1e-7, msg=name)
        assert weight.grad is None, "nothing is left behind"


def test_input_grams_are_of_what_the_layers_are_given(model: Any, chat: ChatTemplate) -> None:
    """The inputs of the first layer's query projection are the normalised embeddings, known without a hook."""
    ids = [[*chat.prompt_ids(one.prompt), *chat.response_ids(one.response)[:-1]] for one in EXCHANGES]
    layer = model.model.layers[0]
    inputs = torch.cat([layer.input_layernorm(model.model.embed_tokens(torch.tensor(row))) for row in ids])
    grams = collect_input_grams(model, chat, EXCHANGES)
    torch.testing.assert_close(
        grams["model.layers.0.self_attn.q_proj.weight"], (inputs.T @ inputs / len(inputs)).detach()
    )
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    assert grams.keys() == linear - {"lm_head.weight"}, "a tied head is an embedding"


def _plan(method: str, models: dict[str, str], base: Path | None = None, **parameters: Any) -> MergePlan:
    recipe = Recipe(
        merge_method=method,
        base_model=None if base is None else str(base),
        models=tuple(ModelEntry(model=model, statistics=file) for model, file in models.items()),
        parameters=parameters,
    )
    return MergePlan(recipe, Models.open([recipe], Path.cwd()))


def _merged(
    method: str, models: dict[str, str], base: Path | None = None, **parameters: Any
) -> dict[str, torch.Tensor]:
    plan = _plan(method, models, base, **parameters)
    return {name: tensor.merged() for name, tensor in plan.tensors.items()}


@pytest.mark.parametrize("block", [None, 100])
def test_a_recipe_merges_by_the_collected_fisher(
    bunch: Bunch, data: Path, tmp_path: Path, block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small blocks read the statistics a few rows at a time; the result is the formula's on whole tensors."""
    if block is not None:
        monkeypatch.setattr("unspoiled.merging._blocks._BLOCK", block)
    models = [str(bunch.full), f"{bunch.base}+{bunch.aligned}"]
    files = [str(tmp_path / f"{i}.safetensors") for i in range(2)]
    for model, file in zip(models, files, strict=True):
        write_model_statistics(model, data, Path(file), kind="fisher")
    merged = _merged("fisher", dict(zip(models, files, strict=True)))
    first, second = (load_file(file) for file in files)
    name = "model.layers.1.mlp.down_proj.weight"
    one = Models.open([Recipe(merge_method="linear", models=(ModelEntry(model=m),)) for m in models], Path.cwd())
    delta = one.sources[models[1]].delta(name)
    assert delta is not None
    weights = [one.sources[models[0]].read(name).double(), one.sources[models[1]].read(name).double() + delta.dense()]
    a, b = first[f"fisher:{name}"].double(), second[f"fisher:{name}"].double()
    torch.testing.assert_close(merged[name].double(), (a * weights[0] + b * weights[1]) / (a + b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [None, 100])
def test_a_recipe_merges_by_the_collected_grams_and_scores(
    bunch: Bunch, data: Path, tmp_path: Path, block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two copies of one expert come out as that expert; LED finds that both claim everything, and keeps the base."""
    if block is not None:
        monkeypatch.setattr("unspoiled.merging._blocks._BLOCK", block)
    copy = tmp_path / "copy"
    copy.symlink_to(bunch.full)
    grams, scores = str(tmp_path / "grams.safetensors"), str(tmp_path / "scores.safetensors")
    write_model_statistics(str(bunch.full), data, Path(grams), kind="input_gram")
    write_model_statistics(str(bunch.full), data, Path(scores), kind="importance", base=str(bunch.base))
    name = "model.layers.1.mlp.down_proj.weight"
    expert, base = (load_file(directory / "model.safetensors")[name] for directory in (bunch.full, bunch.base))
    models = [str(bunch.full), str(copy)]
    torch.testing.assert_close(_merged("regmean", dict.fromkeys(models, grams))[name], expert)
    assert torch.equal(_merged("led", dict.fromkeys(models, scores), bunch.base, density=0.5)[name], base)
    alone = _merged("led", {models[0]: scores}, bunch.base, density=0.5)[name]
    changed = (alone != base).float().mean().item()
    assert 0.25 < changed < 0.5, "what is in the upper half of both scores"
    assert torch.equal(alone[alone != base], expert[alone != base])


def test_a_recipe_with_statistics_is_read_and_written() -> None:
    text = "merge_method: fisher\nmodels:\n- model: a\n  statistics: a.safetensors\n- model: b\n  statistics: b.st\n"
    recipe = parse_recipe(text, "recipe.yaml")
    assert [entry.statistics for entry in recipe.models] == ["a.safetensors", "b.st"]
    assert parse_recipe(recipe.to_yaml(), "recipe.yaml") == recipe


def test_missing_and_unfit_statistics_are_refused(bunch: Bunch, tmp_path: Path) -> None:
    model = str(bunch.full)
    file = tmp_path / "statistics.safetensors"
    both = dict.fromkeys([model, str(bunch.base)], str(file))
    with pytest.raises(ConfigError, match=r"needs the statistics \(fisher\).*names no `statistics` file"):
        _plan("fisher", {model: None})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="does not exist"):
        _plan("fisher", both)
    save_file({"input_gram:model.norm.weight": torch.ones(3, 3)}, file)
    with pytest.raises(ConfigError, match=r"has no 'fisher' \(it has: input_gram\)"):
        _plan("fisher", both)
    with pytest.raises(ConfigError, match="which 'linear' does not use"):
        _plan("linear", both, weight=1.0)
    save_file({"fisher:model.norm.weight": torch.ones(3)}, file)
    plan = _plan("fisher", both)
    with pytest.raises(
        CheckpointError, match=r"'fisher:model.norm.weight' is .* \[3\], which does not fit the model's"
    ):
        plan.tensors["model.norm.weight"].merged()
    with pytest.raises(ConfigError, match=r"has no 'fisher:model\.embed_tokens\.weight'"):
        plan.tensors["model.embed_tokens.weight"].merged()
    save_file({"fisher:model.norm.weight": torch.full((32,), torch.nan)}, file)
    with pytest.raises(CheckpointError, match=r"fisher:model\.norm\.weight"):
        _plan("fisher", both).tensors["model.norm.weight"].merged()
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError):
        _plan("fisher", both)


def test_the_command_writes_a_file_that_is_named(bunch: Bunch, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "full.safetensors"
    done = unspoiled("statistics", bunch.full, data, out, "--kind", "fisher", "--quiet")
    assert (done.code, done.out.strip()) == (0, str(out))
    held = load_file(out)
    assert all(name.startswith("fisher:") and values.dtype == torch.float32 for name, values in held.items())
    assert unspoiled("statistics", bunch.full, data, out, "--kind", "importance").code == 2, "--base is missing"


def test_rows_without_a_response_are_named(tmp_path: Path, bunch: Bunch) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n')
    with pytest.raises(DataError, match="row 2 has no 'response'"):
        write_model_statistics(str(bunch.full), path, tmp_path / "out", kind="fisher")
    path.write_text("")
    with pytest.raises(DataError, match="has no rows"):
        write_model_statistics(str(bunch.full), path, tmp_path / "out", kind="fisher")
    with pytest.raises(ConfigError, match="name the base too"):
        write_model_statistics(str(bunch.full), path, tmp_path / "out", kind="importance")


def test_statistics_by_rows_do_not_go_with_a_merged_vocabulary(bunch: Bunch, tmp_path: Path) -> None:
    """The embeddings' rows move to new places, where their statistics would belong to other tokens."""
    file = tmp_path / "statistics.safetensors"
    save_file({"fisher:model.norm.weight": torch.ones(32)}, file)
    recipe = Recipe(
        merge_method="fisher",
        models=tuple(ModelEntry(model=str(model), statistics=str(file)) for model in (bunch.full, bunch.base)),
        tokenizer={"source": "union", "pad_to_multiple_of": 64},
    )
    with pytest.raises(ConfigError, match="moves the rows of the embeddings"):
        MergePlan(recipe, Models.open([recipe], Path.cwd()))
