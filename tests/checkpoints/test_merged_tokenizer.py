"""The merged tokenizer as transformers loads it: its ids, and how it splits text."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vocabularies import edit_json, permuted, save_model

from tiny import CHATML, tiny_tokenizer
from unspoiled.checkpoints import (
    FromToken,
    ModelSource,
    TokenRule,
    Vocabulary,
    Zero,
    compare_tokenizers,
    merge_vocabularies,
    write_tokenizer,
)
from unspoiled.errors import CheckpointError, PreflightError

TEXTS = [
    "How do I bake bread? The answer is 42.",
    "<|im_start|>user\nI can't help with that.<|im_end|>\n",
    "A sailor sails the salty seas; was it Größe, 東京 or <x>?",
    "zebra zebras zz  and <tool>call</tool>",
]


def written(vocabulary: Vocabulary, path: Path) -> Any:
    path.mkdir()
    write_tokenizer(vocabulary, path)
    return AutoTokenizer.from_pretrained(path)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def pieces(tokenizer: Any, text: str) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(ids(tokenizer, text)))


def loaded(model: ModelSource) -> Any:
    return AutoTokenizer.from_pretrained(model.directory)


def extended_bpe(vocab_size: int = 300, extra: tuple[tuple[str, str], ...] = ()) -> PreTrainedTokenizerFast:
    """Return the tiny tokenizer with further merges, whose parts and products become tokens behind the others."""
    content = json.loads(tiny_tokenizer(vocab_size=vocab_size).backend_tokenizer.to_str())
    for pair in extra:
        content["model"]["vocab"].setdefault("".join(pair), len(content["model"]["vocab"]))
        content["model"]["merges"].append(list(pair))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), bos_token="<|im_start|>", eos_token="<|im_end|>"
    )


ZEBRA = (("z", "e"), ("b", "r"), ("ze", "br"), ("Ġ", "zebr"), ("Ġzebr", "a"))


def test_the_donors_files_are_copied_as_they_are_when_its_vocabulary_is_the_merges(tmp_path: Path) -> None:
    models = {"base": save_model(tmp_path / "base"), "expert": save_model(tmp_path / "expert", add=("<x>",))}
    (tmp_path / "base" / "generation_config.json").write_text("{}")
    vocabulary = merge_vocabularies(models, base="base", source="base")
    tokenizer = written(vocabulary, tmp_path / "merged")
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == set(names)
    for name in names:
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    assert tokenizer.get_vocab() == vocabulary.token_ids


def test_added_tokens_come_with_their_flags_and_never_disturb_other_text(tmp_path: Path) -> None:
    tool = AddedToken("<tool>", special=False, normalized=True, rstrip=True)
    models = {
        "base": save_model(tmp_path / "base"),
        "one": save_model(tmp_path / "one", add=("<x>", tool)),
        "two": save_model(tmp_path / "two", add=("<y>", "<x>")),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids
    assert [vocabulary.token_ids[token] for token in ("<x>", "<tool>", "<y>")] == [300, 301, 302]
    decoder = tokenizer.added_tokens_decoder
    assert (decoder[300].special, decoder[302].special) == (True, True)
    assert (decoder[301].special, decoder[301].normalized, decoder[301].rstrip) == (False, True, True)
    for name, model in models.items():  # what a model's own tokenizer reads, the union reads alike
        for text in TEXTS:
            if name == "one" or "<" not in text:
                assert pieces(tokenizer, text) == pieces(loaded(model), text)
    assert tokenizer.decode(ids(tokenizer, TEXTS[2]), skip_special_tokens=True) == TEXTS[2].replace("<x>", "")
    assert tokenizer.chat_template == CHATML


def test_a_vocabulary_that_extends_the_bases_splits_text_as_before(tmp_path: Path) -> None:
    models = {
        "base": save_model(tmp_path / "base"),
        "expert": save_model(tmp_path / "expert", extended_bpe(extra=ZEBRA), add=("<x>",)),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids == loaded(models["expert"]).get_vocab()
    assert "Ġzebra" in pieces(tokenizer, TEXTS[3])
    for text in TEXTS:
        assert ids(tokenizer, text) == ids(loaded(models["expert"]), text)
    assert any("5 tokens of the vocabulary of expert added: 'ze'" in note for note in vocabulary.notes)


def test_vocabulary_tokens_find_room_behind_the_bases_added_tokens(tmp_path: Path) -> None:
    # the library numbers added tokens from the vocabulary's end on, so a longer vocabulary would move <x>
    models = {
        "base": save_model(tmp_path / "base", add=("<x>",)),
        "expert": save_model(tmp_path / "expert", extended_bpe(extra=ZEBRA), add=("<y>",)),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids
    assert [vocabulary.token_ids[token] for token in ("<x>", "ze", "Ġzebra", "<y>")] == [300, 301, 305, 306]
    assert pieces(tokenizer, "a zebra<x><y>") == ["a", "Ġzebra", "<x>", "<y>"]
    assert tokenizer.decode(ids(tokenizer, "a zebra<x>")) == "a zebra<x>"


def test_the_bases_merges_go_first_and_text_is_never_lost(tmp_path: Path) -> None:
    models = {
        "base": save_model(tmp_path / "base"),
        "other": save_model(tmp_path / "other", extended_bpe(270, extra=(("h", "e"), ("t", "he"), ("s", "z")))),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids
    for text in TEXTS:
        assert tokenizer.decode(ids(tokenizer, text)) == text
        if not set(pieces(tokenizer, text)) - loaded(models["base"]).get_vocab().keys():
            assert ids(tokenizer, text) == ids(loaded(models["base"]), text)


def test_merges_in_the_old_form_stay_in_it(tmp_path: Path) -> None:
    models = {
        "base": save_model(tmp_path / "base"),
        "expert": save_model(tmp_path / "expert", extended_bpe(extra=ZEBRA)),
    }
    edit_json(
        tmp_path / "base" / "tokenizer.json",
        lambda content: content["model"].update(merges=[" ".join(pair) for pair in content["model"]["merges"]]),
    )
    written(merge_vocabularies(models, base="base", source="union"), tmp_path / "merged")
    merges = json.loads((tmp_path / "merged" / "tokenizer.json").read_text())["model"]["merges"]
    assert merges[-1] == "Ġzebr a"


def test_a_model_of_permuted_ids_reads_text_as_the_same_tokens(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", add=("<x>",))
    expert = save_model(tmp_path / "expert", add=("<x>", "<y>"))
    models = {"base": permuted(base, tmp_path / "moved", list(reversed(range(301)))), "expert": expert}
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids
    for text in TEXTS:
        assert pieces(tokenizer, text) == pieces(loaded(expert), text)


@pytest.mark.parametrize("name", ["Qwen2Tokenizer", "GPT2Tokenizer", "PreTrainedTokenizerFast"])
def test_it_loads_under_the_class_that_the_config_names(tmp_path: Path, name: str) -> None:
    models = {
        "base": save_model(tmp_path / "base", add=("<x>",)),
        "expert": save_model(tmp_path / "expert", extended_bpe(extra=ZEBRA), add=("<y>",)),
    }
    edit_json(
        tmp_path / "base" / "tokenizer_config.json", lambda config: config.update(tokenizer_class=name, backend=None)
    )
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids
    assert ids(tokenizer, "<y>") == [vocabulary.token_ids["<y>"]]


def test_stale_copies_of_the_vocabulary_are_left_out_and_the_config_lists_new_tokens(tmp_path: Path) -> None:
    models = {"base": save_model(tmp_path / "base"), "expert": save_model(tmp_path / "expert", add=("<x>",))}
    for name in ("vocab.json", "merges.txt", "tokenizer.model", "added_tokens.json"):
        (tmp_path / "base" / name).write_text("{}")
    edit_json(tmp_path / "base" / "tokenizer_config.json", lambda config: config.update(added_tokens_decoder={}))
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    config = json.loads((tmp_path / "merged" / "tokenizer_config.json").read_text())
    assert config["added_tokens_decoder"]["300"]["content"] == "<x>"
    assert tokenizer.get_vocab() == vocabulary.token_ids


def test_a_token_that_only_the_donors_config_names_keeps_its_place(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    base = save_model(tmp_path / "base", rows=301)
    edit_json(tmp_path / "base" / "tokenizer_config.json", lambda config: config.update(pad_token="[PAD]"))
    models = {"base": base, "expert": save_model(tmp_path / "expert", add=("<x>",))}
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids == loaded(base).get_vocab() | {"<x>": 301}


def test_conflicting_flags_are_reported_and_the_donors_kept(tmp_path: Path) -> None:
    models = {
        "base": save_model(tmp_path / "base", add=("<x>",)),
        "expert": save_model(tmp_path / "expert", add=(AddedToken("<x>", normalized=False, lstrip=True),)),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    assert vocabulary.is_identity
    assert vocabulary.notes == (
        "added token '<x>': lstrip is False and True, special is True and False in expert; the first is kept",
    )
    assert written(vocabulary, tmp_path / "merged").added_tokens_decoder[300].special


def test_a_usual_token_becomes_special_where_another_model_says_so(tmp_path: Path) -> None:
    models = {"base": save_model(tmp_path / "base"), "expert": save_model(tmp_path / "expert", add=("Q", "e"))}
    edit_json(
        tmp_path / "expert" / "tokenizer.json",
        lambda content: content["added_tokens"][-1].update(special=False),
    )
    vocabulary = merge_vocabularies(models, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids == loaded(models["base"]).get_vocab()
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    assert "Q" in special
    assert "e" not in special
    assert len(vocabulary.notes) == 2


def test_a_rules_new_token_takes_the_flags_of_the_token_it_copies(tmp_path: Path) -> None:
    models = {"base": save_model(tmp_path / "base")}
    rules = {
        "<start>": TokenRule(FromToken("base", token="<|im_start|>")),
        "<plain>": TokenRule(Zero()),
        "<first>": TokenRule(FromToken("base", token_id=1)),
    }
    vocabulary = merge_vocabularies(models, base="base", source="base", rules=rules)
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids
    special = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    assert (special["<start>"], special["<plain>"], special["<first>"]) == (True, False, True)
    assert pieces(tokenizer, "a<plain>b") == ["a", "<plain>", "b"]


def metaspace(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=80, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_tokens_that_spell_text_in_another_way_are_not_mixed(tmp_path: Path) -> None:
    models = {"base": save_model(tmp_path / "base"), "other": save_model(tmp_path / "other", metaspace(TEXTS))}
    with pytest.raises(
        PreflightError, match=r"'other' has \d+ tokens that 'base' lacks .*different ways.*source: base"
    ):
        merge_vocabularies(models, base="base", source="union")
    vocabulary = merge_vocabularies(models, base="base", source="base")
    assert any(
        note == "other splits text into words otherwise than base, whose way is kept" for note in vocabulary.notes
    )


def test_a_unigram_vocabulary_takes_added_tokens_only(tmp_path: Path) -> None:
    models = {
        "base": save_model(tmp_path / "base", unigram(TEXTS)),
        "same": save_model(tmp_path / "same", unigram(TEXTS), add=("<x>",)),
    }
    vocabulary = merge_vocabularies(models, base="base", source="union")
    assert written(vocabulary, tmp_path / "merged").get_vocab() == vocabulary.token_ids
    models["other"] = save_model(tmp_path / "other", unigram(["quite other words, jumping over vexed foxes"]))
    with pytest.raises(PreflightError, match="can't be added to a Unigram vocabulary"):
        merge_vocabularies(models, base="base", source="union")


def test_a_word_piece_vocabulary_grows(tmp_path: Path) -> None:
    def words(*texts: str) -> PreTrainedTokenizerFast:
        vocabulary = {token: index for index, token in enumerate(["[UNK]", *texts])}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")

    both = {
        "base": save_model(tmp_path / "base", words("the", "##re", "answer"), add=("<x>",)),
        "expert": save_model(tmp_path / "expert", words("the", "answer", "##s")),
    }
    vocabulary = merge_vocabularies(both, base="base", source="union")
    tokenizer = written(vocabulary, tmp_path / "merged")
    assert tokenizer.get_vocab() == vocabulary.token_ids
    assert pieces(tokenizer, "there answers <x>") == ["the", "##re", "answer", "##s", "<x>"]


def test_what_the_library_would_number_otherwise_is_refused(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", unigram(TEXTS), add=("<x>",), rows=100)
    edit_json(tmp_path / "base" / "tokenizer.json", lambda content: content["added_tokens"][-1].update(id=90))
    models = {"base": base, "expert": save_model(tmp_path / "expert", unigram(TEXTS), add=("<y>",))}
    with pytest.raises(CheckpointError, match="2 tokens have other ids than they should, such as '<x>'"):
        merge_vocabularies(models, base="base", source="union")


def test_the_union_is_the_same_for_comparison_as_the_models_that_agree_with_it(tmp_path: Path) -> None:
    models = {"base": save_model(tmp_path / "base"), "expert": save_model(tmp_path / "expert", add=("<x>",))}
    written(merge_vocabularies(models, base="base", source="union"), tmp_path / "merged")
    assert compare_tokenizers(tmp_path / "merged", tmp_path / "expert") == []
