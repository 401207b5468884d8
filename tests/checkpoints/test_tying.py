"""Tied heads: absent, stored, contradicted, and mixed within a bunch."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tiny import Bunch, tiny_base
from unspoiled.checkpoints import (
    CheckpointWriter,
    ModelRef,
    finish_checkpoint,
    open_checkpoint,
    open_model,
    output_layout,
    tied_names,
)

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
STORED = {EMBEDDING: None, "model.norm.weight": None}


@pytest.mark.parametrize(
    ("config", "head_stored", "tied"),
    [
        ({"tie_word_embeddings": True}, False, True),
        ({"tie_word_embeddings": True}, True, True),
        ({"tie_word_embeddings": False}, True, False),
        ({}, False, True),
        ({}, True, False),
        ({"text_config": {"tie_word_embeddings": False}}, True, False),
        ({"text_config": {"tie_word_embeddings": True}}, True, True),
    ],
)
def test_the_config_decides_and_a_silent_one_leaves_it_to_the_tensors(
    config: dict[str, object], head_stored: bool, tied: bool
) -> None:
    tensors = STORED | ({HEAD: None} if head_stored else {})
    assert tied_names(config, tensors) == ({HEAD: EMBEDDING} if tied else {})


def test_gpt2_names_are_known() -> None:
    assert tied_names({"tie_word_embeddings": True}, {"transformer.wte.weight": None}) == {
        HEAD: "transformer.wte.weight"
    }


def with_head(base: Path, path: Path, change: float) -> Path:
    """Copy a tied model and store its head, equal to the embedding or not."""
    shutil.copytree(base, path)
    tensors = load_file(path / "model.safetensors")
    save_file(tensors | {HEAD: tensors[EMBEDDING] + change}, path / "model.safetensors", {"format": "pt"})
    return path


def test_a_stored_copy_of_a_tied_head_makes_no_difference(bunch: Bunch, tmp_path: Path) -> None:
    plain, redundant = (
        open_checkpoint(bunch.base),
        open_checkpoint(with_head(bunch.base, tmp_path / "m", 0.0)),
    )
    assert redundant.tensors.keys() == plain.tensors.keys()
    assert redundant.aliases == plain.aliases == {HEAD: EMBEDDING}
    assert redundant.size_bytes == plain.size_bytes
    assert torch.equal(redundant.read(HEAD), redundant.read(EMBEDDING))


def test_a_stored_head_that_differs_is_untied_as_in_transformers(bunch: Bunch, tmp_path: Path) -> None:
    path = with_head(bunch.base, tmp_path / "m", 0.5)
    checkpoint = open_checkpoint(path)
    assert checkpoint.aliases == {}
    assert HEAD in checkpoint.tensors
    loaded = AutoModelForCausalLM.from_pretrained(path)
    assert torch.equal(checkpoint.read(HEAD), loaded.lm_head.weight)
    assert torch.equal(checkpoint.read(EMBEDDING), loaded.model.embed_tokens.weight)


@pytest.mark.parametrize("expert_tied", [True, False])
def test_a_merge_of_tied_and_untied_models_reloads_with_the_logits_of_the_reference(
    bunch: Bunch, tmp_path: Path, expert_tied: bool
) -> None:
    """The average of two models, computed from our tensors and from transformers' parameters."""
    expert = open_model(ModelRef(str(tiny_base(tmp_path / "expert", seed=9, tie=expert_tied))))
    base = open_model(ModelRef(str(bunch.base)))
    layout = output_layout([base, expert])
    assert layout.tied == expert_tied
    assert (HEAD in layout.shapes) == (not expert_tied)
    (tmp_path / "merged").mkdir()
    with CheckpointWriter(tmp_path / "merged", layout.with_dtype(torch.float32)) as writer:
        for name in layout.shapes:
            writer.write(name, (base.read(name) + expert.read(name)) / 2)
    finish_checkpoint(
        tmp_path / "merged", source=base, dtype=torch.float32, recipe_yaml="", tie_word_embeddings=layout.tied
    )
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] == expert_tied
    reference = AutoModelForCausalLM.from_pretrained(expert.directory)
    other = AutoModelForCausalLM.from_pretrained(bunch.base)
    if not expert_tied:
        other.lm_head.weight = torch.nn.Parameter(other.lm_head.weight.clone())
    with torch.no_grad():
        theirs = dict(other.named_parameters(remove_duplicate=False))
        for name, parameter in reference.named_parameters():
            parameter.copy_((parameter + theirs[name]) / 2)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = torch.arange(20).reshape(2, 10)
    torch.testing.assert_close(merged(ids).logits, reference(ids).logits)
    assert not torch.allclose(merged(ids).logits, other(ids).logits)
