"""Positioned reads: the same bytes as the memory map, from any thread, and no descriptor left open."""

import gc
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tiny import Bunch, tiny_base
from unspoiled.checkpoints import Checkpoint, ModelRef, open_checkpoint, open_model
from unspoiled.errors import CheckpointError


def saved(directory: Path, **tensors: torch.Tensor) -> Checkpoint:
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text("{}")
    return open_checkpoint(directory)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_rows_are_those_of_the_whole_tensor(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randint(0, 2, (7, 3, 2)).to(dtype)
    checkpoint = saved(tmp_path, first=torch.ones(3), x=tensor)
    for start, stop in [(0, 21), (0, 1), (2, 5), (20, 21), (3, 3)]:
        rows = checkpoint.read_rows("x", start, stop)
        assert rows.dtype == dtype
        assert torch.equal(rows, tensor.view(21, 2)[start:stop])


def test_every_tensor_of_a_sharded_checkpoint_and_its_tied_head(tmp_path: Path) -> None:
    source = open_model(ModelRef(str(tiny_base(tmp_path, max_shard_size=40_000))))
    names = [*source.tensors, *source.checkpoint.aliases]
    assert "lm_head.weight" in names
    for name in names:
        info, expected = source.checkpoint.info(name), source.read(name)
        assert torch.equal(source.read_rows(name, 0, info.matrix[0]), expected.view(info.matrix))


def test_the_result_is_the_callers_own(bunch: Bunch) -> None:
    checkpoint = open_checkpoint(bunch.base)
    before = checkpoint.read("model.norm.weight").clone()
    checkpoint.read_rows("model.norm.weight", 0, 1).fill_(7.0)
    assert torch.equal(checkpoint.read_rows("model.norm.weight", 0, 1), before.view(1, 32))


def test_scalars_empty_and_unaligned_tensors(tmp_path: Path) -> None:
    header = json.dumps(
        {
            "flag": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]},
            "odd": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
            "scalar": {"dtype": "F32", "shape": [], "data_offsets": [9, 13]},
            "void": {"dtype": "F32", "shape": [4, 0], "data_offsets": [13, 13]},
        }
    ).encode()
    data = b"\1" + torch.tensor([1.0, 2.0, 3.0]).numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.read_rows("odd", 0, 1).tolist() == [[1.0, 2.0]]
    assert checkpoint.read_rows("scalar", 0, 1).tolist() == [[3.0]]
    assert checkpoint.read_rows("void", 1, 3).shape == (2, 0)


def test_memory_of_the_caller_is_filled_in_place(tmp_path: Path) -> None:
    tensor = torch.arange(12, dtype=torch.float32).view(6, 2)
    checkpoint = saved(tmp_path, x=tensor)
    memory = torch.zeros(3, 2)
    assert checkpoint.read_rows("x", 2, 5, out=memory) is memory
    assert torch.equal(memory, tensor[2:5])
    for wrong in (torch.zeros(2, 2), torch.zeros(3, 2, dtype=torch.float16), torch.zeros(2, 3).T):
        with pytest.raises(ValueError, match="out must be contiguous"):
            checkpoint.read_rows("x", 2, 5, out=wrong)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, 7), (7, 7)])
def test_rows_that_do_not_exist_are_refused(tmp_path: Path, start: int, stop: int) -> None:
    checkpoint = saved(tmp_path, x=torch.zeros(6, 2))
    with pytest.raises(ValueError, match="not among the tensor's 6"):
        checkpoint.read_rows("x", start, stop)


def test_a_file_cut_after_it_was_opened_is_named(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, x=torch.zeros(6, 2))
    file = tmp_path / "model.safetensors"
    os.truncate(file, file.stat().st_size - 10)
    assert checkpoint.read_rows("x", 0, 4).shape == (4, 2), "what is still there is right"
    with pytest.raises(CheckpointError, match=r"model\.safetensors ends at byte .* changed while it was read"):
        checkpoint.read_rows("x", 4, 6)


def test_threads_share_one_descriptor_without_disturbing_each_other(tmp_path: Path) -> None:
    tensor = torch.arange(64 * 1000, dtype=torch.float32).view(1000, 64)
    checkpoint = saved(tmp_path, x=tensor)
    with ThreadPoolExecutor(8) as pool:
        blocks = list(pool.map(lambda i: checkpoint.read_rows("x", 10 * i, 10 * i + 10), range(100)))
    assert torch.equal(torch.cat(blocks), tensor)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_descriptors_are_closed_with_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, x=torch.zeros(6, 2))

    def descriptors_of_the_file() -> int:
        links = []
        for link in Path("/proc/self/fd").iterdir():
            if link.is_symlink():
                links.append(os.path.realpath(link))
        return links.count(str((tmp_path / "model.safetensors").resolve()))

    for _ in range(3):
        checkpoint.read_rows("x", 0, 6)
    assert descriptors_of_the_file() == 1
    del checkpoint
    gc.collect()
    assert descriptors_of_the_file() == 0
