"""Embedding rows of merged vocabularies: laws, every way to fill a row worked by hand, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from vocabularies import EMBEDDING, WIDTH, edit_json, embedding, permuted, reader, save_model

from tiny import tiny_tokenizer
from unspoiled.checkpoints import (
    FromModel,
    FromToken,
    ModelRef,
    ModelSource,
    TokenRule,
    Vocabulary,
    Zero,
    embedding_names,
    merge_vocabularies,
    open_model,
)
from unspoiled.errors import CheckpointError, PreflightError, UnspoiledError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSource]:
    """The base has 300 tokens; `one` adds <a> and <both>, `two` adds <both> and <b>."""
    root = tmp_path_factory.mktemp("vocabularies")
    return {
        "base": save_model(root / "base", seed=1),
        "one": save_model(root / "one", add=("<a>", "<both>"), seed=2),
        "two": save_model(root / "two", add=("<both>", "<b>"), seed=3),
    }


def rows(vocabulary: Vocabulary, models: dict[str, ModelSource]) -> dict[str, Tensor]:
    return vocabulary.embedding_rows(0, vocabulary.rows, reader(models))


def row(found: dict[str, Tensor], vocabulary: Vocabulary, token: str) -> dict[str, Tensor]:
    return {model: each[vocabulary.token_ids[token]] for model, each in found.items()}


def own(model: ModelSource, token: str) -> Tensor:
    tokens = json.loads((model.directory / "tokenizer.json").read_text())
    ids = tokens["model"]["vocab"] | {entry["content"]: entry["id"] for entry in tokens["added_tokens"]}
    return embedding(model)[ids[token]]


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_a_model_with_itself_is_the_identity(models: dict[str, ModelSource]) -> None:
    for source in ("union", "base", "copy"):
        twice = {"model": models["one"], "copy": models["one"]}
        vocabulary = merge_vocabularies(twice, base="model", source=source)
        assert vocabulary.is_identity
        assert (vocabulary.size, vocabulary.rows, vocabulary.notes) == (302, 302, ())
        assert equal(rows(vocabulary, twice), dict.fromkeys(twice, embedding(models["one"])))


@pytest.mark.parametrize("name", ["base", "one", "two"])
@given(data=st.data())
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_permuting_a_models_ids_and_rows_changes_no_tokens_rows(
    models: dict[str, ModelSource], tmp_path: Path, name: str, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(embedding(models[name])))))
    shutil.rmtree(tmp_path / "moved", ignore_errors=True)
    moved = models | {name: permuted(models[name], tmp_path / "moved", order)}
    for source in ("union", "base", "one"):
        plain = merge_vocabularies(models, base="base", source=source)
        same = merge_vocabularies(moved, base="base", source=source)
        assert same.token_ids.keys() == plain.token_ids.keys()
        places = [same.token_ids[token] for token, _ in sorted(plain.token_ids.items(), key=lambda item: item[1])]
        expected = rows(plain, models)
        assert equal({model: each[places] for model, each in rows(same, moved).items()}, expected)


def test_a_union_keeps_the_bases_ids_and_adds_every_token(models: dict[str, ModelSource]) -> None:
    vocabulary = merge_vocabularies(models, base="base", source="union")
    base_ids = json.loads((models["base"].directory / "tokenizer.json").read_text())["model"]["vocab"]
    assert vocabulary.token_ids == base_ids | {"<a>": 300, "<both>": 301, "<b>": 302}
    assert (vocabulary.size, vocabulary.rows, vocabulary.donor) == (303, 303, "base")
    assert not vocabulary.is_identity
    found = rows(vocabulary, models)
    assert equal({name: each[:300] for name, each in found.items()}, {n: embedding(m)[:300] for n, m in models.items()})
    # one owner lends its row, two owners the mean of theirs; an owner keeps its own
    both = {name: own(models[name], "<both>") for name in ("one", "two")}
    assert equal(row(found, vocabulary, "<a>"), dict.fromkeys(models, own(models["one"], "<a>")))
    assert equal(row(found, vocabulary, "<b>"), dict.fromkeys(models, own(models["two"], "<b>")))
    assert equal(row(found, vocabulary, "<both>"), both | {"base": (both["one"] + both["two"]) / 2})


def test_the_base_lends_before_other_owners(models: dict[str, ModelSource]) -> None:
    vocabulary = merge_vocabularies(models, base="one", source="union")
    found = row(rows(vocabulary, models), vocabulary, "<both>")
    assert torch.equal(found["base"], own(models["one"], "<both>"))


def test_without_a_base_the_first_models_ids_stay_and_owners_are_averaged(models: dict[str, ModelSource]) -> None:
    ordered = {"two": models["two"], "one": models["one"], "base": models["base"]}
    vocabulary = merge_vocabularies(ordered, base=None, source="union")
    assert vocabulary.donor == "two"
    assert [vocabulary.token_ids[token] for token in ("<both>", "<b>", "<a>")] == [300, 301, 302]
    mean = (own(models["one"], "<both>") + own(models["two"], "<both>")) / 2
    assert torch.equal(row(rows(vocabulary, ordered), vocabulary, "<both>")["base"], mean)


@pytest.mark.parametrize(("source", "donor", "size"), [("base", "base", 300), ("one", "one", 302)])
def test_one_models_vocabulary_drops_the_others_tokens_and_says_so(
    models: dict[str, ModelSource], source: str, donor: str, size: int
) -> None:
    vocabulary = merge_vocabularies(models, base="base", source=source)
    assert (vocabulary.donor, vocabulary.size, vocabulary.rows) == (donor, size, size)
    assert any("of two not in the merged vocabulary" in note and "'<b>'" in note for note in vocabulary.notes)
    found = rows(vocabulary, models)
    assert torch.equal(found[donor], embedding(models[donor]))
    assert torch.equal(found["two"][:300], embedding(models["two"])[:300])


ZERO = torch.zeros(WIDTH)


@pytest.mark.parametrize(
    ("token", "rule", "expected"),
    [
        ("<both>", TokenRule(FromModel("two")), {"base": ("two", "<both>")}),
        ("<both>", TokenRule(FromModel("two"), force=True), {"base": ("two", "<both>"), "one": ("two", "<both>")}),
        ("<both>", TokenRule(Zero()), {"base": None}),
        ("<both>", TokenRule(Zero(), force=True), {"base": None, "one": None, "two": None}),
        ("<a>", TokenRule(FromToken("two", token="<b>")), {"base": ("two", "<b>"), "two": ("two", "<b>")}),
        ("<a>", TokenRule(FromToken("two", token_id=301)), {"base": ("two", "<b>"), "two": ("two", "<b>")}),
        ("e", TokenRule(FromModel("one"), force=True), {"base": ("one", "e"), "two": ("one", "e")}),
        ("<new>", TokenRule(FromToken("one", token="<a>")), dict.fromkeys(("base", "one", "two"), ("one", "<a>"))),
        ("<new>", TokenRule(Zero()), dict.fromkeys(("base", "one", "two"), None)),
    ],
)
def test_every_rule_by_hand(
    models: dict[str, ModelSource], token: str, rule: TokenRule, expected: dict[str, tuple[str, str] | None]
) -> None:
    vocabulary = merge_vocabularies(models, base="base", source="union", rules={token: rule})
    found = rows(vocabulary, models)
    for name in models:
        lent = expected.get(name, (name, token))
        assert torch.equal(row(found, vocabulary, token)[name], ZERO if lent is None else own(models[lent[0]], lent[1]))
    plain = merge_vocabularies(models, base="base", source="union")
    others = [index for index in range(plain.size) if index != vocabulary.token_ids[token]]
    untouched = rows(plain, models)
    assert equal({n: each[others] for n, each in found.items()}, {n: each[others] for n, each in untouched.items()})


def test_a_rule_brings_its_token_into_the_bases_vocabulary(models: dict[str, ModelSource]) -> None:
    rules = {"<b>": TokenRule(FromModel("two"))}
    vocabulary = merge_vocabularies(models, base="base", source="base", rules=rules)
    assert (vocabulary.size, vocabulary.token_ids["<b>"]) == (301, 300)
    assert equal(row(rows(vocabulary, models), vocabulary, "<b>"), dict.fromkeys(models, own(models["two"], "<b>")))


def test_a_rule_that_changes_nothing_is_said(models: dict[str, ModelSource]) -> None:
    vocabulary = merge_vocabularies(models, base="base", source="union", rules={"e": TokenRule(Zero())})
    assert any(note.startswith("the rules for 'e' change nothing") for note in vocabulary.notes)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (FromModel("three"), r"rule for '<a>': 'three' is not in the merge. Name one of 'base', 'one', 'two'"),
        (FromModel("two"), r"rule for '<a>': 'two' has no token '<a>'. Name 'one', which has it"),
        (FromToken("one", token="<c>"), r"rule for '<a>': 'one' has no token '<c>'. No model has it"),
        (FromToken("one", token_id=302), r"rule for '<a>': 'one' has no token with id 302; its ids end at 301"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(
    models: dict[str, ModelSource], rule: FromModel | FromToken, message: str
) -> None:
    with pytest.raises(PreflightError, match=message):
        merge_vocabularies(models, base="base", source="union", rules={"<a>": TokenRule(rule)})


def test_a_token_is_named_in_one_way() -> None:
    for wrong in ({}, {"token": "a", "token_id": 1}):
        with pytest.raises(ValueError, match="either"):
            FromToken("one", **wrong)  # type: ignore[arg-type]


def test_blocks_are_the_rows_of_the_whole_and_float32(models: dict[str, ModelSource]) -> None:
    rules = {"<both>": TokenRule(Zero(), force=True)}
    vocabulary = merge_vocabularies(models, base="base", source="union", rules=rules, pad_to_multiple_of=64)
    whole = rows(vocabulary, models)
    read = reader(models)
    blocks = [vocabulary.embedding_rows(i, min(i + 7, vocabulary.rows), read) for i in range(0, vocabulary.rows, 7)]
    assert equal({name: torch.cat([block[name] for block in blocks]) for name in models}, whole)
    half = vocabulary.embedding_rows(0, vocabulary.rows, lambda name, ids: read(name, ids).to(torch.bfloat16))
    assert {each.dtype for each in half.values()} == {torch.float32}
    with pytest.raises(ValueError, match="not within"):
        vocabulary.embedding_rows(0, vocabulary.rows + 1, read)


def test_a_heads_bias_is_mapped_like_its_rows(models: dict[str, ModelSource]) -> None:
    vocabulary = merge_vocabularies(models, base="base", source="union", pad_to_multiple_of=32)
    read = reader(models)
    bias = vocabulary.embedding_rows(0, vocabulary.rows, lambda name, ids: read(name, ids)[:, 0])
    whole = rows(vocabulary, models)
    for name in models:
        torch.testing.assert_close(bias[name], whole[name][:, 0])


def test_equal_vocabularies_keep_their_own_padding(tmp_path: Path) -> None:
    models = {name: save_model(tmp_path / name, rows=320, seed=seed) for seed, name in enumerate(("base", "expert"))}
    vocabulary = merge_vocabularies(models, base="base", source="union")
    assert vocabulary.is_identity
    assert (vocabulary.size, vocabulary.rows, vocabulary.notes) == (300, 320, ())
    wider = merge_vocabularies(models, base="base", source="base", pad_to_multiple_of=128)
    assert (wider.rows, wider.is_identity) == (384, False)
    found = rows(wider, models)
    for name, model in models.items():
        assert torch.equal(found[name][:320], embedding(model))
    # new padding: the mean of the rows that the donor's tokens have, and the same for all, so nothing is learnt of it
    mean = embedding(models["base"])[:300].double().mean(0).float().expand(64, -1)
    torch.testing.assert_close(found["base"][320:], mean)
    assert torch.equal(found["base"][320:], found["expert"][320:])
    assert any("mean of the rows of base" in note for note in wider.notes)


def test_padding_of_one_model_only_is_kept_and_said(tmp_path: Path) -> None:
    models = {
        "base": save_model(tmp_path / "base", rows=320, seed=1),
        "expert": save_model(tmp_path / "expert", seed=2),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    assert (vocabulary.size, vocabulary.rows, vocabulary.is_identity) == (300, 320, False)
    found = rows(vocabulary, models)
    assert torch.equal(found["expert"], torch.cat([embedding(models["expert"]), embedding(models["base"])[300:]]))
    assert any(note.startswith("the embedding has 320 rows, 300 of them for tokens") for note in vocabulary.notes)
    as_expert = merge_vocabularies(models, base="base", source="expert")
    assert as_expert.rows == 300


def test_new_tokens_take_the_place_of_padding(tmp_path: Path) -> None:
    models = {
        "base": save_model(tmp_path / "base", rows=320, seed=1),
        "expert": save_model(tmp_path / "expert", add=("<x>",), seed=2),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    assert (vocabulary.size, vocabulary.rows) == (301, 320)
    found = rows(vocabulary, models)
    assert torch.equal(found["base"][300], own(models["expert"], "<x>"))  # not the base's untrained padding
    assert torch.equal(found["expert"][301:], embedding(models["base"])[301:])


def test_a_token_without_a_row_is_refused(tmp_path: Path) -> None:
    models = {"base": save_model(tmp_path / "base"), "expert": save_model(tmp_path / "expert", add=("<x>",), rows=300)}
    with pytest.raises(CheckpointError, match=r"expert/tokenizer\.json: 1 token without a row .* '<x>' with id 300"):
        merge_vocabularies(models, base="base", source="union")


def test_a_token_that_only_a_config_names_counts_as_transformers_counts_it(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "expert")
    expert = save_model(tmp_path / "expert", rows=301, seed=2)
    edit_json(tmp_path / "expert" / "tokenizer_config.json", lambda config: config.update(pad_token="[PAD]"))
    models = {"base": save_model(tmp_path / "base", seed=1), "expert": expert}
    vocabulary = merge_vocabularies(models, base="base", source="union")
    assert vocabulary.token_ids["[PAD]"] == 300
    assert torch.equal(rows(vocabulary, models)["base"][300], embedding(expert)[300])


def test_names_outside_of_the_merge_are_refused(models: dict[str, ModelSource]) -> None:
    with pytest.raises(PreflightError, match="tokenizer source: 'three' is not in the merge"):
        merge_vocabularies(models, base="base", source="three")
    with pytest.raises(PreflightError, match="base: 'three' is not in the merge"):
        merge_vocabularies(models, base="three", source="union")
    with pytest.raises(PreflightError, match="pad_to_multiple_of is 0"):
        merge_vocabularies(models, base="base", source="union", pad_to_multiple_of=0)
    with pytest.raises(PreflightError, match="no models"):
        merge_vocabularies({}, base=None, source="union")


def test_embeddings_of_other_widths_are_refused(tmp_path: Path, models: dict[str, ModelSource]) -> None:
    wide = save_model(tmp_path / "wide", width=8)
    with pytest.raises(PreflightError, match=rf"{EMBEDDING}: .*\[4\] in 'base' and \[8\] in 'wide'"):
        merge_vocabularies({"base": models["base"], "wide": wide}, base="base", source="union")


def as_sentencepiece(model: ModelSource, content: bytes = b"pieces") -> ModelSource:
    (model.directory / "tokenizer.json").unlink()
    (model.directory / "tokenizer.model").write_bytes(content)
    return open_model(ModelRef(str(model.directory)))


def test_models_without_tokenizer_json_pass_only_if_all_are_the_same(tmp_path: Path) -> None:
    models = {name: as_sentencepiece(save_model(tmp_path / name)) for name in ("base", "expert")}
    assert merge_vocabularies(models, base="base", source="base").is_identity
    refused: list[dict[str, Any]] = [
        {"models": models, "rules": {"a": TokenRule(Zero())}},
        {"models": models, "pad_to_multiple_of": 64},
        {"models": models | {"other": as_sentencepiece(save_model(tmp_path / "other"), b"others")}},
        {"models": models | {"fast": save_model(tmp_path / "fast")}},
    ]
    for options in refused:
        with pytest.raises(PreflightError, match=r"no tokenizer\.json.*save_pretrained"):
            merge_vocabularies(**({"base": "base", "source": "union"} | options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(model={}), "no vocabulary"),
        (lambda content: content["model"]["vocab"].update(e=-1), "no vocabulary"),
        (lambda content: content["model"]["vocab"].update(e=7), "have the same id 7"),
        (lambda content: content["added_tokens"].append({"content": "<x>"}), "no text or no id"),
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    model = save_model(tmp_path / "model")
    edit_json(tmp_path / "model" / "tokenizer.json", change)
    with pytest.raises(UnspoiledError, match=message):
        merge_vocabularies({"model": model}, base=None, source="union")


def test_the_config_gets_the_rows_and_the_donors_special_ids(models: dict[str, ModelSource]) -> None:
    vocabulary = merge_vocabularies(models, base="base", source="union", pad_to_multiple_of=64)
    config = {"vocab_size": 300, "eos_token_id": 2, "pad_token_id": 0, "hidden_size": 4}
    donor = {"eos_token_id": [7, 8], "hidden_size": 9}
    assert vocabulary.config(config, donor) == {"vocab_size": 320, "eos_token_id": [7, 8], "hidden_size": 4}
    nested = {"text_config": config, "image_token_id": 5}
    assert vocabulary.config(nested, {"text_config": donor, "image_token_id": 6}) == {
        "text_config": {"vocab_size": 320, "eos_token_id": [7, 8], "hidden_size": 4},
        "image_token_id": 6,
    }


def test_the_tensors_with_a_row_per_token_are_found_by_name() -> None:
    expected = ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias", "language_model.lm_head.weight")
    expected += ("transformer.wte.weight", "model.layers.61.shared_head.head.weight")
    others = ("model.norm.weight", "layers.0.attention.output.weight", "model.embed_positions.weight")
    assert embedding_names([*expected, *others]) == expected
