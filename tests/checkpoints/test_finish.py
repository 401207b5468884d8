"""Completing a merged checkpoint, and proving later that it is still whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import CHATML, Bunch
from unspoiled import __version__
from unspoiled.checkpoints import (
    CheckpointWriter,
    ModelRef,
    chat_template,
    finish_checkpoint,
    merged_config,
    open_model,
    output_layout,
    read_manifest,
    tokenizer_signature,
    verify_manifest,
)
from unspoiled.errors import CheckpointError
from unspoiled.files import hash_file, staged_directory


@pytest.fixture
def merged(bunch: Bunch, tmp_path: Path) -> Path:
    """A "merge" in bf16 that takes the full expert as it is."""
    source = open_model(ModelRef(str(bunch.full)))
    layout = output_layout([source])
    with staged_directory(tmp_path / "merged") as staging:
        with CheckpointWriter(staging, layout.with_dtype(torch.bfloat16), shard_size=40_000) as writer:
            for name in layout.shapes:
                writer.write(name, source.read(name).bfloat16())
        finish_checkpoint(
            staging,
            source=source,
            dtype=torch.bfloat16,
            recipe_yaml="models: []\n",
            extra={"README.md": "# card"},
        )
    return tmp_path / "merged"


def test_the_result_is_a_complete_model_for_transformers(bunch: Bunch, merged: Path) -> None:
    ids = torch.arange(8).reshape(1, 8)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    assert model.dtype == torch.bfloat16
    reference = AutoModelForCausalLM.from_pretrained(bunch.full, dtype=torch.bfloat16)
    assert torch.equal(model(ids).logits, reference(ids).logits)
    assert model.generation_config.eos_token_id == reference.generation_config.eos_token_id
    messages = [{"role": "user", "content": "Bread?"}]
    theirs, ours = (AutoTokenizer.from_pretrained(path) for path in (bunch.full, merged))
    assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages)
    assert tokenizer_signature(merged) == tokenizer_signature(bunch.base)
    assert (merged / "mergekit_config.yml").read_text() == "models: []\n"
    assert (merged / "README.md").read_text() == "# card"


def test_another_chat_template_takes_the_place_of_every_older_one(bunch: Bunch, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(bunch.base, old)
    (old / "chat_template.jinja").unlink()
    config = json.loads((old / "tokenizer_config.json").read_text())
    (old / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHATML}))
    source = open_model(ModelRef(str(old)))
    for name, template in (("kept", None), ("replaced", "{{ messages[0]['content'] }}")):
        (tmp_path / name).mkdir()
        finish_checkpoint(tmp_path / name, source=source, dtype=torch.float32, recipe_yaml="", chat_template=template)
        assert chat_template(tmp_path / name) == (template or CHATML)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        assert tokenizer.chat_template == (template or CHATML)
    assert "chat_template" not in json.loads((tmp_path / "replaced" / "tokenizer_config.json").read_text())


def test_an_adapters_own_tokenizer_is_the_models(bunch: Bunch, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(bunch.aligned, adapter)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bunch.base / name, adapter / name)
    (adapter / "chat_template.jinja").write_text("its own")
    source = open_model(ModelRef(str(bunch.base), None, ModelRef(str(adapter))))
    (tmp_path / "out").mkdir()
    finish_checkpoint(tmp_path / "out", source=source, dtype=torch.float32, recipe_yaml="")
    assert chat_template(tmp_path / "out") == "its own"
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_the_config_says_the_new_dtype_under_the_name_that_its_reader_knows() -> None:
    bf16 = torch.bfloat16
    assert merged_config({"dtype": "float32"}, bf16) == {"dtype": "bfloat16"}
    assert merged_config({"torch_dtype": "float32"}, bf16) == {"torch_dtype": "bfloat16"}
    assert merged_config({"_name_or_path": "/home/me/x"}, bf16) == {"dtype": "bfloat16"}
    nested = {"text_config": {"dtype": "float32", "tie_word_embeddings": True}, "tie_word_embeddings": True}
    assert merged_config(nested, bf16, tie_word_embeddings=False) == {
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "text_config": {"dtype": "bfloat16", "tie_word_embeddings": False},
    }


@pytest.mark.parametrize("name", ["../card.md", "/card.md", "a/b", "unspoiled.json", "config.json", ""])
def test_a_further_file_stays_in_the_directory_and_replaces_nothing(bunch: Bunch, tmp_path: Path, name: str) -> None:
    source = open_model(ModelRef(str(bunch.base)))
    with pytest.raises(CheckpointError, match="can't be the name of a further file"):
        finish_checkpoint(tmp_path, source=source, dtype=torch.float32, recipe_yaml="", extra={name: "x"})
    assert not (tmp_path / "unspoiled.json").exists(), "the manifest is written last"


def test_the_manifest_names_every_file_with_size_and_hash(merged: Path) -> None:
    manifest = read_manifest(merged)
    assert manifest.tool_version == __version__
    assert set(manifest.files) == {path.name for path in merged.iterdir()} - {"unspoiled.json"}
    for name, record in manifest.files.items():
        assert record.size == (merged / name).stat().st_size
        assert record.sha256 == hash_file(merged / name)
    verify_manifest(merged)


def test_every_later_change_is_found(merged: Path) -> None:
    shards = sorted(merged.glob("*.safetensors"))
    content = bytearray(shards[0].read_bytes())
    content[-1] ^= 1
    shards[0].write_bytes(content)
    shards[1].unlink()
    (merged / "config.json").write_text("{}")
    (merged / "more.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        verify_manifest(merged)
    for text in (
        f"{shards[0].name} has another content",
        f"{shards[1].name} is missing",
        "config.json has 2 bytes instead of",
        "weights that weren't written with it: 'more.safetensors'",
    ):
        assert text in str(caught.value)


def test_no_or_a_damaged_manifest_is_an_error(bunch: Bunch, merged: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no unspoiled\.json: it is incomplete"):
        read_manifest(bunch.base)
    for text in ("{", "{}", '{"files": {"a": {}}, "tool": ""}', "[]"):
        (merged / "unspoiled.json").write_text(text)
        with pytest.raises(CheckpointError, match="is damaged"):
            read_manifest(merged)


def test_the_generation_config_comes_with_the_tokenizer(bunch: Bunch, tmp_path: Path) -> None:
    """A pretrained base ends at another token than the aligned expert whose chat template the merge takes."""
    donor = tmp_path / "donor"
    shutil.copytree(bunch.full, donor)
    (donor / "generation_config.json").write_text('{"eos_token_id": 7}')
    staging = tmp_path / "staging"
    staging.mkdir()
    source = open_model(ModelRef(str(bunch.base)))
    finish_checkpoint(staging, source=source, dtype=torch.bfloat16, recipe_yaml="models: []\n", tokenizer=donor)
    assert json.loads((staging / "generation_config.json").read_text())["eos_token_id"] == 7
