"""Opening checkpoints: laziness, shards, unsafe paths, unsupported contents."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import Bunch, tiny_base
from unspoiled.checkpoints import ModelRef, open_checkpoint, open_model
from unspoiled.checkpoints import _reader as reader
from unspoiled.errors import CheckpointError


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    directory = tiny_base(tmp_path / "sharded", max_shard_size=40_000)
    assert len(list(directory.glob("*.safetensors"))) > 1
    return directory


@pytest.fixture
def copy(bunch: Bunch, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bunch.base, tmp_path / "copy"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_reads_what_safetensors_reads_from_any_shard_layout(bunch: Bunch, sharded: Path) -> None:
    expected = load_file(bunch.base / "model.safetensors")
    for directory in (bunch.base, sharded):
        checkpoint = open_checkpoint(directory)
        assert list(checkpoint.tensors) == sorted(expected)
        for name, tensor in expected.items():
            read = checkpoint.read(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)
        assert checkpoint.size_bytes == sum(tensor.nbytes for tensor in expected.values())
        assert checkpoint.config["model_type"] == "llama"


def test_tensors_are_views_of_one_mapping_and_never_write_to_the_file(copy: Path) -> None:
    before = (copy / "model.safetensors").read_bytes()
    checkpoint = open_checkpoint(copy)
    first, second = (checkpoint.read("model.norm.weight") for _ in range(2))
    assert first.data_ptr() == second.data_ptr(), "a second read is no second copy"
    first.fill_(7.0)
    assert (copy / "model.safetensors").read_bytes() == before


def test_unaligned_scalar_and_empty_tensors_are_read(tmp_path: Path) -> None:
    values = torch.arange(3, dtype=torch.float32)
    header = json.dumps(
        {
            "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
            "odd": {"dtype": "F32", "shape": [3], "data_offsets": [1, 13]},
            "scalar": {"dtype": "F32", "shape": [], "data_offsets": [13, 17]},
            "void": {"dtype": "F32", "shape": [0, 2], "data_offsets": [17, 17]},
        }
    ).encode()
    data = b"\1" + values.numpy().tobytes() + values[2].numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert torch.equal(checkpoint.read("odd"), values)
    assert checkpoint.read("odd").data_ptr() % 4 == 0, "copied to an aligned place"
    assert checkpoint.read("scalar").shape == ()
    assert checkpoint.read("scalar").item() == 2.0
    assert checkpoint.read("void").shape == (0, 2)


def test_an_unknown_tensor_is_named(bunch: Bunch) -> None:
    with pytest.raises(CheckpointError, match=r"has no tensor 'model\.nothing'"):
        open_checkpoint(bunch.base).read("model.nothing")


def test_the_fingerprint_follows_the_weights_and_nothing_else(copy: Path, bunch: Bunch) -> None:
    before = open_checkpoint(copy).fingerprint()
    assert before == open_checkpoint(bunch.base).fingerprint(), "the place doesn't matter"
    edit_json(copy / "config.json", transformers_version="0")
    assert open_checkpoint(copy).fingerprint() == before
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    assert open_checkpoint(copy).fingerprint() != before


def test_an_unchanged_file_is_hashed_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_checkpoint(copy).fingerprint()
    monkeypatch.setattr(reader, "hash_file", lambda path: pytest.fail("hashed again"))
    assert open_checkpoint(copy).fingerprint() == first


def test_a_bunch_opens_its_base_once(bunch: Bunch) -> None:
    cache: dict[Path, Any] = {}
    base = open_model(ModelRef(str(bunch.base)), cache=cache)
    expert = open_model(ModelRef(str(bunch.base) + "/.", None, ModelRef(str(bunch.aligned))), cache=cache)
    assert expert.checkpoint is base.checkpoint
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(expert.read(name), base.read(name)), "read gives the base tensor, without the adapter"
    assert expert.delta(name) is not None
    assert base.delta(name) is None
    assert expert.fingerprint() != base.fingerprint()


# --- the index --------------------------------------------------------------------------------------------


def edit_weight_map(directory: Path, changes: dict[str, str | None]) -> None:
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].update(changes)
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file is not None}
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../outside.safetensors", "a/../../outside.safetensors", "/outside.safetensors", ""])
def test_an_index_that_leads_out_of_the_directory_is_refused(sharded: Path, name: str) -> None:
    save_file({"x": torch.ones(1)}, sharded.parent / "outside.safetensors")
    edit_weight_map(sharded, {"x": name})
    with pytest.raises(CheckpointError, match="leads out of the checkpoint"):
        open_checkpoint(sharded)


def test_a_link_out_of_the_directory_is_refused(copy: Path) -> None:
    outside = copy.parent / "outside.safetensors"
    (copy / "model.safetensors").rename(outside)
    (copy / "model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match=r"is a link to .*outside\.safetensors"):
        open_checkpoint(copy)


def test_a_linked_config_is_refused_as_well(copy: Path) -> None:
    (copy / "config.json").rename(copy.parent / "secret.json")
    (copy / "config.json").symlink_to("../secret.json")
    with pytest.raises(CheckpointError, match="is a link to"):
        open_checkpoint(copy)


@pytest.mark.parametrize("shared", [False, True])
def test_the_hubs_cache_is_made_of_links_and_opens(bunch: Bunch, tmp_path: Path, shared: bool) -> None:
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (tmp_path / "hub" / "blobs" / "ab").mkdir(parents=True)
    for number, file in enumerate(sorted(bunch.base.iterdir())):
        blob = repository / "blobs" / f"blob{number}"
        if shared:  # newer hub versions keep one store for all repositories, linked from each one's blobs
            shutil.copy(file, tmp_path / "hub" / "blobs" / "ab" / f"blob{number}")
            blob.symlink_to(f"../../blobs/ab/blob{number}")
        else:
            shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(f"../../blobs/blob{number}")
    assert open_checkpoint(snapshot).fingerprint() == open_checkpoint(bunch.base).fingerprint()
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(bunch.base / "model.safetensors")
    with pytest.raises(CheckpointError, match="is a link to"):
        open_checkpoint(snapshot)


def test_index_and_files_must_agree(sharded: Path) -> None:
    edit_weight_map(sharded, {"model.ghost.weight": "model-00001-of-00003.safetensors"})
    with pytest.raises(CheckpointError, match=r"00001-of-.* lacks tensors .*'model.ghost.weight'"):
        open_checkpoint(sharded)
    edit_weight_map(sharded, {"model.ghost.weight": None, "model.norm.weight": None})
    with pytest.raises(CheckpointError, match=r"holds tensors that the index doesn't put there: 'model\.norm\.weight'"):
        open_checkpoint(sharded)


def test_a_missing_shard_and_a_second_model_beside_the_index_are_refused(sharded: Path) -> None:
    save_file({"x": torch.ones(1)}, sharded / "model.safetensors")
    with pytest.raises(CheckpointError, match="two different models"):
        open_checkpoint(sharded)
    (sharded / "model.safetensors").unlink()
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names 'model-00002-of-00003\.safetensors', which is missing"):
        open_checkpoint(sharded)


def test_a_truncated_shard_is_named(sharded: Path) -> None:
    shard = sharded / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"00002-of-00003\.safetensors is damaged: tensor '.*' ends 10 bytes"):
        open_checkpoint(sharded)


# --- contents ---------------------------------------------------------------------------------------------


def test_remote_code_is_refused(copy: Path) -> None:
    edit_json(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok.Tok", None]})
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json asks for remote code"):
        open_checkpoint(copy)
    edit_json(copy / "config.json", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(CheckpointError, match=r"/config\.json asks for remote code \(auto_map\)"):
        open_checkpoint(copy)


def test_a_quantised_checkpoint_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(CheckpointError, match=r"quantised \('gptq'\).*original"):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pytorch_model.bin", "pickled weights only .*runs code.*save_pretrained"),
        ("consolidated.00.pth", "pickled weights only"),
        ("model.Q4_K_M.gguf", "GGUF files only"),
        ("readme.md", "has neither model.safetensors nor"),
    ],
)
def test_other_weights_are_refused_with_the_way_out(copy: Path, file: str, message: str) -> None:
    (copy / "model.safetensors").rename(copy / file)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(copy)


def test_a_directory_that_is_no_model_says_what_it_is(bunch: Bunch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a LoRA adapter, .*BASE\+aligned"):
        open_checkpoint(bunch.aligned)
    with pytest.raises(CheckpointError, match=r"has no config\.json and no safetensors"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="is no directory"):
        open_checkpoint(tmp_path / "gone")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is not a JSON object"):
        open_checkpoint(tmp_path)
