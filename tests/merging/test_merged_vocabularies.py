"""Models of different vocabularies, merged by the command: what transformers then says of a text is what it should."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import loaded
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from command import Finished, unspoiled
from tiny import CHATML, tiny_adapter, tiny_base, tiny_expert

TEXT = "<|im_start|>How do <b>I bake<|im_end|>"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` of 300 tokens; `one` with <a> and <b> more, `two` with <b>, so that <b> has other ids in them."""
    root = tmp_path_factory.mktemp("root")
    base = tiny_base(root / "base", seed=1, tie=False)
    for number, (name, tokens) in enumerate({"one": ["<a>", "<b>"], "two": ["<b>"]}.items()):
        with_tokens(tiny_expert(base, root / f"{name}-before", seed=number + 2), root / name, tokens)
    return root


def with_tokens(model: Path, path: Path, tokens: list[str]) -> Path:
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"extra_special_tokens": tokens})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for matrix in (network.get_input_embeddings().weight, network.get_output_embeddings().weight):
            matrix[-len(tokens) :] = torch.randn(len(tokens), 32, generator=torch.Generator().manual_seed(len(tokens)))
    network.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def recipe(root: Path, more: str, base: str = "base", models: tuple[str, str] = ("one", "two")) -> str:
    """A task-arithmetic recipe of 0.6 and 0.3."""
    listed = "".join(
        f"  - {{model: {root / model}, parameters: {{weight: {weight}}}}}\n"
        for model, weight in zip(models, (0.6, 0.3), strict=True)
    )
    return f"merge_method: task_arithmetic\nbase_model: {root / base}\ndtype: float32\nmodels:\n{listed}{more}"


def merge(place: Path, text: str) -> Finished:
    place.mkdir(exist_ok=True)
    (place / "recipe.yaml").write_text(text)
    return unspoiled("merge", place / "recipe.yaml", place / "out", "--quiet")


@cache
def rows(root: Path, name: str, matrix: str) -> dict[str, Tensor]:
    """Return a model's rows by their tokens."""
    weight = loaded(root / name).state_dict()[matrix]
    return {token: weight[number] for token, number in AutoTokenizer.from_pretrained(root / name).get_vocab().items()}


def by_hand(root: Path, token: str, matrix: str) -> Tensor:
    """Return a token's merged row: where the base has none, it takes the experts' mean; where one has none, that."""
    base, one, two = (rows(root, name, matrix).get(token) for name in ("base", "one", "two"))
    owners = [row for row in (one, two) if row is not None]
    lent = base if base is not None else torch.stack(owners).mean(0)
    filled = [lent if row is None else row for row in (one, two)]
    return lent + 0.6 * (filled[0] - lent) + 0.3 * (filled[1] - lent)


def reference(root: Path, tokens: list[str]) -> Any:
    """Return the merge made by hand, its rows in the order of `tokens`."""
    states = [loaded(root / name).state_dict() for name in ("base", "one", "two")]
    model = loaded(root / "base")
    model.resize_token_embeddings(len(tokens), mean_resizing=False)
    merged = {name: root_ + 0.6 * (a - root_) + 0.3 * (b - root_) for name, root_, a, b in same_shaped(states)}
    for matrix in (EMBEDDING, HEAD):
        merged[matrix] = torch.stack([by_hand(root, token, matrix) for token in tokens])
    model.load_state_dict(merged)
    return model


def same_shaped(states: list[dict[str, Tensor]]) -> list[tuple[str, Tensor, Tensor, Tensor]]:
    return [(n, states[0][n], states[1][n], states[2][n]) for n in states[0] if n not in (EMBEDDING, HEAD)]


def logits(model: Any, directory: Path, text: str) -> tuple[Tensor, list[str]]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        return model(ids).logits, tokenizer.convert_ids_to_tokens(range(len(tokenizer)))


@pytest.mark.parametrize(
    ("section", "added"),
    [
        ("tokenizer: {source: union}", ["<a>", "<b>"]),
        ("tokenizer_source: union", ["<a>", "<b>"]),
        ("tokenizer: {source: base}", []),
        ("tokenizer_source: TWO", ["<b>"]),
        ("tokenizer: {source: TWO}", ["<b>"]),
    ],
)
def test_a_text_has_the_logits_of_the_merge_made_by_hand(
    root: Path, tmp_path: Path, section: str, added: list[str]
) -> None:
    done = merge(tmp_path, recipe(root, section.replace("TWO", str(root / "two")) + "\n"))
    assert done.code == 0, done.err
    model = loaded(tmp_path / "out")
    ours, tokens = logits(model, tmp_path / "out", TEXT)
    assert set(tokens[300:]) == set(added)
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == len(tokens)
    theirs, _ = logits(reference(root, tokens), tmp_path / "out", TEXT)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_rules_and_padding(root: Path, tmp_path: Path) -> None:
    """<b> is the base's <|im_end|> for all, <a> nothing for those that lack it, and rows come in eights."""
    base = root / "base"
    rules = (
        "tokenizer:\n  source: union\n  pad_to_multiple_of: 8\n  tokens:\n"
        f'    "<b>": {{source: {{kind: model_token, model: {base}, token: "<|im_end|>"}}, force: true}}\n'
        '    "<a>": {source: {kind: zero}}\n'
    )
    done = merge(tmp_path, recipe(root, rules))
    assert done.code == 0, done.err
    model, tokenizer = loaded(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == 304
    ids = tokenizer.get_vocab()
    for matrix in (EMBEDDING, HEAD):
        merged = model.state_dict()[matrix]
        assert merged.shape[0] == 304
        end = rows(root, "base", matrix)["<|im_end|>"]
        torch.testing.assert_close(merged[ids["<b>"]], end)
        torch.testing.assert_close(merged[ids["<a>"]], 0.6 * rows(root, "one", matrix)["<a>"])
        assert not torch.equal(merged[ids["<|im_end|>"]], end), "the rule is about <b> alone"


def test_different_vocabularies_are_refused_with_the_way_out(root: Path, tmp_path: Path) -> None:
    for number, models in enumerate([("one", "two"), ("one-before", "two")]):
        done = merge(tmp_path / str(number), recipe(root, "", models=models))
        assert done.code == 4
        assert str(root / "two") in done.err
        assert sorted(path.name for path in (tmp_path / str(number)).iterdir()) == ["recipe.yaml"]
    padded = tiny_expert(root / "base", tmp_path / "padded", seed=7)  # as many rows as the base, and one token more
    vocabulary = AutoTokenizer.from_pretrained(padded)
    vocabulary.add_special_tokens({"extra_special_tokens": ["<c>"]})
    vocabulary.save_pretrained(padded)
    text = recipe(root, "", models=("one-before", str(padded)))
    done = merge(tmp_path / "place", text)
    assert done.code == 4
    assert "the tokenizer differs from the base's" in done.err
    assert "`tokenizer: {source: union}`, `base`, or one of the models." in done.err


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, CHATML),
        ("auto", "{{ 'other' }}"),
        ("chatml", '<|im_start|>" + turn.role'),
        ("\"{{ messages[0]['content'] }}\"", "{{ messages[0]['content'] }}"),
    ],
)
def test_the_chat_template_is_chosen_and_differences_are_noted(
    root: Path, tmp_path: Path, choice: str | None, expected: str
) -> None:
    for name in ("three", "four"):
        other = tiny_expert(root / "base", tmp_path / name, seed=4)
        (other / "chat_template.jinja").write_text("{{ 'other' }}")
    more = "" if choice is None else f"chat_template: {choice}\n"
    done = merge(tmp_path / "place", recipe(root, more, models=(str(tmp_path / "three"), str(tmp_path / "four"))))
    assert done.code == 0
    assert done.out == f"{tmp_path / 'place' / 'out'}\n"
    for name in ("three", "four"):
        assert f"note: expert '{tmp_path / name}': differs from the base in" in done.err
    assert "chat template" in done.err.replace("chat_template", "chat template")
    written = AutoTokenizer.from_pretrained(tmp_path / "place" / "out").chat_template
    assert expected in written
    assert expected == written or choice == "chatml"


def test_an_adapter_on_a_model_of_another_vocabulary(root: Path, tmp_path: Path) -> None:
    """Also one that changes the embedding, whose rows move with the tokens."""
    modules = ["embed_tokens", "q_proj", "lm_head"]
    lora = tiny_adapter(root / "two", tmp_path / "lora", seed=3, target_modules=modules)
    (lora / "tokenizer.json").unlink(missing_ok=True)
    done = unspoiled("materialize", f"{root / 'two'}+{lora}", tmp_path / "full", "--quiet")
    assert done.code == 0, done.err
    union = "tokenizer: {source: union}\n"
    for name, two in {"low_rank": f"{root / 'two'}+{lora}", "dense": str(tmp_path / "full")}.items():
        done = merge(tmp_path / name, recipe(root, union, models=("one", two)))
        assert done.code == 0, done.err
    ours, theirs = (loaded(tmp_path / name / "out").state_dict() for name in ("low_rank", "dense"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6, msg=name)
    written = json.loads((tmp_path / "low_rank" / "out" / "config.json").read_text())
    assert written["vocab_size"] == 302
