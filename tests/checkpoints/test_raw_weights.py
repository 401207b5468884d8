"""Weights without a config: a safetensors file, or a directory of nothing else."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import Bunch, tiny_adapter, tiny_base
from unspoiled.checkpoints import ModelRef, ModelSource, open_checkpoint, open_model, output_layout, preflight
from unspoiled.errors import CheckpointError

NORM = "model.norm.weight"


def open_path(path: Path) -> ModelSource:
    return open_model(ModelRef(str(path)))


def raw_shards(directory: Path, numbers: list[int], count: int, stem: str = "model") -> Path:
    directory.mkdir()
    for number in numbers:
        save_file({f"w{number}": torch.ones(2)}, directory / f"{stem}-{number:05}-of-{count:05}.safetensors")
    return directory


def test_a_file_and_a_directory_of_it_read_like_the_checkpoint(bunch: Bunch, tmp_path: Path) -> None:
    file = tmp_path / "any name.safetensors"
    shutil.copy(bunch.full / "model.safetensors", file)
    expected = load_file(file)
    for path in (file, tmp_path):
        source = open_path(path)
        assert dict(source.checkpoint.config) == {}
        assert list(source.tensors) == sorted(expected)
        for name, tensor in expected.items():
            assert torch.equal(source.read(name), tensor)
            matrix = source.checkpoint.info(name).matrix
            assert torch.equal(source.read_rows(name, 0, matrix[0]), tensor.view(matrix))
        assert not (source.tokenizer_directory / "tokenizer.json").exists()
    assert open_path(file).fingerprint() == open_path(tmp_path).fingerprint()


def test_two_files_of_one_directory_are_two_models(bunch: Bunch, tmp_path: Path) -> None:
    for name in ("base", "full"):
        shutil.copy(getattr(bunch, name) / "model.safetensors", tmp_path / f"{name}.safetensors")
    cache: dict[Path, object] = {}
    one, other = (
        open_model(ModelRef(str(tmp_path / f"{name}.safetensors")), cache=cache)  # type: ignore[arg-type]
        for name in ("base", "full")
    )
    assert one.directory != other.directory
    assert not torch.equal(one.read(NORM), other.read(NORM))
    assert preflight(one, {"full": other}, output=None, dtype=torch.float32).problems == ()


def test_raw_experts_fit_a_base_with_a_config(bunch: Bunch, tmp_path: Path) -> None:
    file = Path(shutil.copy(bunch.full / "model.safetensors", tmp_path / "full.safetensors"))
    base, expert = open_path(bunch.base), open_path(file)
    report = preflight(base, {"raw": expert}, output=None, dtype=torch.float32)
    assert report.problems == ()
    assert "'raw': its tokenizer could not be compared" in report.warnings[0]
    assert output_layout([base, expert]).tied, "a head that isn't stored is the embedding"


def test_names_and_shapes_are_still_compared(bunch: Bunch, tmp_path: Path) -> None:
    tensors = load_file(bunch.full / "model.safetensors")
    tensors[NORM] = torch.ones(31)
    tensors["strange"] = torch.ones(1)
    save_file(tensors, tmp_path / "full.safetensors")
    report = preflight(open_path(bunch.base), {"raw": open_path(tmp_path)}, output=None, dtype=torch.float32)
    assert report.problems == (
        "expert 'raw': has 1 tensors that the base lacks: 'strange'",
        f"expert 'raw': other shapes than the base: '{NORM}' [31] instead of [32]",
    )


def test_an_adapter_lies_on_a_raw_base(bunch: Bunch, tmp_path: Path) -> None:
    file = Path(shutil.copy(bunch.base / "model.safetensors", tmp_path / "base.safetensors"))
    adapter = tiny_adapter(bunch.base, tmp_path / "lora", seed=1)
    source = open_model(ModelRef(str(file), None, ModelRef(str(adapter))))
    assert source.delta("model.layers.0.mlp.up_proj.weight") is not None


def test_shards_without_an_index_are_read_if_they_are_all_there(tmp_path: Path) -> None:
    whole = open_checkpoint(raw_shards(tmp_path / "whole", [1, 2, 3], 3, stem="weights"))
    assert list(whole.tensors) == ["w1", "w2", "w3"]
    for name, numbers, missing in [("cut", [1, 2], 3), ("hole", [1, 3], 2), ("headless", [2, 3], 1)]:
        with pytest.raises(CheckpointError, match=rf"has 2 shards of 3\. Get 'model-0000{missing}-of-00003"):
            open_checkpoint(raw_shards(tmp_path / name, numbers, 3))
    with pytest.raises(CheckpointError, match="has 1 shards of 2"):
        open_checkpoint(raw_shards(tmp_path / "alone", [1], 2))


def test_shards_with_an_index_follow_the_index(tmp_path: Path) -> None:
    directory = tiny_base(tmp_path / "sharded", max_shard_size=40_000)
    expected = open_checkpoint(directory).fingerprint()
    (directory / "config.json").unlink()
    assert open_checkpoint(directory).fingerprint() == expected


def test_several_models_in_one_directory_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"more than one model: beside 'a\.safetensors' there are 'b\.saf"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"x": torch.full((1,), float(number))}, tmp_path / f"m-0000{number}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.safetensors repeats tensors of m-00001-.*: 'x'"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.bin", "is a pickle"), ("model.pt", "is a pickle"), ("model.gguf", r"or a \.safetensors file")],
)
def test_other_files_are_refused_with_the_way_out(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(CheckpointError, match=message):
        open_path(tmp_path / name)
