"""Comparing tokenizers and chat templates as files."""

import json
from pathlib import Path
from typing import Any

import pytest

from tiny import CHATML, tiny_tokenizer
from unspoiled.checkpoints import chat_template, compare_tokenizers, hash_tokenizer, tokenizer_signature
from unspoiled.errors import CheckpointError


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        tiny_tokenizer().save_pretrained(tmp_path / name)
    return tmp_path / "one", tmp_path / "other"


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_same_tokenizer_saved_differently_is_the_same(pair: tuple[Path, Path]) -> None:
    one, other = pair

    def reserialise(content: dict[str, Any]) -> None:
        content["padding"] = {"strategy": {"Fixed": 8}}
        content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
        content["model"]["vocab"] = dict(reversed(content["model"]["vocab"].items()))

    edit(other / "tokenizer.json", reserialise)
    assert compare_tokenizers(one, other) == []
    assert tokenizer_signature(one) == tokenizer_signature(other)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda content: content["added_tokens"].append(
                content["added_tokens"][0] | {"id": 300, "content": "<pad>"}
            ),
            ["vocabulary size: 300 and 301", "token ids: '<pad>' (absent and 300)", "properties of added"],
        ),
        (
            lambda content: content["model"]["vocab"].update({"a": 68, "b": 67}),
            ["token ids: 'a' (67 and 68), 'b' (68 and 67)"],
        ),
        (lambda content: content["model"]["merges"].reverse(), ["model (merges, scores or settings)"]),
        (
            lambda content: content["added_tokens"][1].update(special=False),
            ["properties of added or special"],
        ),
        (lambda content: content.update(normalizer={"type": "Lowercase"}), ["text normalisation"]),
        (
            lambda content: content["pre_tokenizer"].update(add_prefix_space=True),
            ["splitting of text into words"],
        ),
    ],
    ids=["added token", "swapped ids", "merges", "special flag", "normaliser", "pre-tokenizer"],
)
def test_every_difference_that_changes_ids_is_named(pair: tuple[Path, Path], change: Any, expected: list[str]) -> None:
    one, other = pair
    edit(other / "tokenizer.json", change)
    differences = compare_tokenizers(one, other)
    assert len(differences) == len(expected)
    assert all(found.startswith(start) for found, start in zip(differences, expected, strict=True))
    assert tokenizer_signature(one) != tokenizer_signature(other)


def test_long_lists_of_tokens_are_cut(pair: tuple[Path, Path], tmp_path: Path) -> None:
    tiny_tokenizer(vocab_size=280).save_pretrained(tmp_path / "small")
    difference = next(d for d in compare_tokenizers(pair[0], tmp_path / "small") if d.startswith("token ids"))
    assert difference.endswith(" and 15 more")


def test_roles_and_templates_are_compared_with_a_short_diff(pair: tuple[Path, Path]) -> None:
    one, other = pair
    edit(other / "tokenizer_config.json", lambda content: content.update(pad_token="<|endoftext|>"))
    (other / "chat_template.jinja").write_text(CHATML.replace("<|im_end|>", "</s>"))
    role, template = compare_tokenizers(one, other)
    assert role == "pad_token: '<|im_end|>' and '<|endoftext|>'"
    lines = template.splitlines()
    assert lines[0] == "chat template:"
    assert any(line.startswith("-") and "<|im_end|>" in line for line in lines)
    assert any(line.startswith("+") and "</s>" in line for line in lines)
    (other / "chat_template.jinja").write_text("\n".join(f"line {number}" for number in range(100)))
    assert 20 <= len(compare_tokenizers(one, other)[1].splitlines()) <= 23
    (other / "chat_template.jinja").unlink()
    assert compare_tokenizers(one, other)[1] == f"chat template: only {one} has one"


def test_the_template_is_found_in_every_place_transformers_has_used(tmp_path: Path) -> None:
    assert chat_template(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "plain"}))
    assert chat_template(tmp_path) == "plain"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert chat_template(tmp_path) == "named"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "processor"}))
    assert chat_template(tmp_path) == "processor"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert chat_template(tmp_path) == "file"


def test_every_file_of_a_tokenizer_counts_and_no_other(tmp_path: Path) -> None:
    seen = {hash_tokenizer(tmp_path)}
    for name in ("tokenizer.json", "chat_template.json", "special_tokens_map.json", "tokenizer.model", "merges.txt"):
        (tmp_path / name).write_text("{}")
        seen.add(hash_tokenizer(tmp_path))
    assert len(seen) == 6
    (tmp_path / "README.md").write_text("other")
    assert hash_tokenizer(tmp_path) in seen
    (tmp_path / "chat_template.json").write_text("{ }")
    assert hash_tokenizer(tmp_path) not in seen


def test_a_tokenizer_without_tokenizer_json_is_compared_by_its_bytes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        tokenizer_signature(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    first = tokenizer_signature(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece2")
    assert tokenizer_signature(tmp_path) != first


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has no vocabulary"):
        tokenizer_signature(tmp_path)
