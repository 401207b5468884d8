"""Writing checkpoints: any layout, any order, any thread, the same bytes."""

import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tiny import Bunch
from unspoiled.checkpoints import CheckpointWriter, open_checkpoint
from unspoiled.checkpoints._header import read_header
from unspoiled.errors import CheckpointError, ResourceError

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]

NAMES = st.text(alphabet='abé."\\.0', min_size=1, max_size=6).filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
DTYPES = st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64])
LAYOUTS = st.dictionaries(NAMES, st.tuples(DTYPES, SHAPES), min_size=1, max_size=6)


def fill(layout: Layout) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, (dtype, shape) in layout.items()}


@contextmanager
def temporary() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        yield Path(directory)


def write(directory: Path, tensors: dict[str, torch.Tensor], shard_size: int = 5_000_000_000) -> None:
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    with CheckpointWriter(directory, layout, shard_size=shard_size) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@given(layout=LAYOUTS, shard_size=st.integers(1, 200), order=st.randoms(use_true_random=False))
def test_what_is_written_in_any_order_is_read_back_and_the_bytes_are_the_same(
    layout: Layout,
    shard_size: int,
    order: random.Random,
) -> None:
    tensors = fill(layout)
    shuffled = list(tensors.items())
    order.shuffle(shuffled)
    with temporary() as one, temporary() as other:
        write(one, tensors, shard_size)
        write(other, dict(shuffled), shard_size)
        assert files(one) == files(other)
        (one / "config.json").write_text("{}")
        checkpoint = open_checkpoint(one)
        assert checkpoint.tensors.keys() == layout.keys()
        by_safetensors = {k: v for file in one.glob("*.safetensors") for k, v in load_file(file).items()}
        for name, tensor in tensors.items():
            for read in (checkpoint.read(name), by_safetensors[name]):
                assert read.dtype == tensor.dtype
                assert torch.equal(read, tensor)
        for file in one.glob("*.safetensors"):
            sizes = [info.nbytes for info in read_header(file).values()]
            assert sum(sizes) <= shard_size or len(sizes) == 1


def test_one_file_has_the_plain_name_and_many_have_an_index(tmp_path: Path) -> None:
    tensors = fill(dict.fromkeys("abcde", (torch.float32, (10,))))
    (tmp_path / "one").mkdir()
    write(tmp_path / "one", tensors)
    assert set(files(tmp_path / "one")) == {"model.safetensors"}
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    (tmp_path / "many").mkdir()
    write(tmp_path / "many", tensors, shard_size=80)
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert sorted(files(tmp_path / "many")) == [*shards, "model.safetensors.index.json"]
    index = json.loads(files(tmp_path / "many")["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == 200
    assert index["weight_map"] == dict(zip("abcde", [shards[0]] * 2 + [shards[1]] * 2 + [shards[2]], strict=True))


@pytest.mark.parametrize("shard_size", [40_000, 5_000_000_000])
def test_transformers_loads_what_was_written(bunch: Bunch, tmp_path: Path, shard_size: int) -> None:
    source = open_checkpoint(bunch.full)
    write(tmp_path, {name: source.read(name) for name in source.tensors}, shard_size)
    (tmp_path / "config.json").write_bytes((bunch.full / "config.json").read_bytes())
    ids = torch.arange(12).reshape(2, 6)
    logits = [AutoModelForCausalLM.from_pretrained(path)(ids).logits for path in (bunch.full, tmp_path)]
    assert torch.equal(*logits)


def test_threads_write_at_once(tmp_path: Path) -> None:
    tensors = fill({f"t{number}": (torch.float32, (1000, number + 1)) for number in range(16)})
    (tmp_path / "serial").mkdir()
    (tmp_path / "threads").mkdir()
    write(tmp_path / "serial", tensors, shard_size=100_000)
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    start = threading.Barrier(len(tensors))
    with CheckpointWriter(tmp_path / "threads", layout, shard_size=100_000) as writer:

        def work(name: str) -> None:
            start.wait()
            writer.write(name, tensors[name])

        threads = [threading.Thread(target=work, args=(name,)) for name in tensors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert files(tmp_path / "serial") == files(tmp_path / "threads")


def test_views_and_parameters_are_written_by_value(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    write(tmp_path, {"t": matrix.T, "row": matrix[1], "p": torch.nn.Parameter(matrix)})
    read = load_file(tmp_path / "model.safetensors")
    assert torch.equal(read["t"], matrix.T)
    assert torch.equal(read["row"], matrix[1])
    assert torch.equal(read["p"], matrix)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("a", torch.zeros(3), r"'a' was laid out as torch\.float32 \[2\] and came as torch\.float32 \[3\]"),
        ("a", torch.zeros(2).half(), r"came as torch\.float16"),
        ("c", torch.zeros(2), r"'c' is not in the layout"),
    ],
)
def test_a_tensor_that_was_not_laid_out_is_refused(
    tmp_path: Path, name: str, tensor: torch.Tensor, message: str
) -> None:
    layout: Layout = {"a": (torch.float32, (2,))}
    with pytest.raises(CheckpointError, match=message), CheckpointWriter(tmp_path, layout) as writer:
        writer.write(name, tensor)


def test_a_tensor_written_twice_or_never_is_an_error(tmp_path: Path) -> None:
    layout: Layout = {"a": (torch.float32, (2,)), "b": (torch.float32, (2,))}
    writer = CheckpointWriter(tmp_path, layout, shard_size=8).__enter__()
    writer.write("a", torch.zeros(2))
    with pytest.raises(CheckpointError, match="'a' was written twice"):
        writer.write("a", torch.zeros(2))
    with pytest.raises(CheckpointError, match="tensors were not written: 'b'"):
        writer.__exit__(None, None, None)
    assert not (tmp_path / "model.safetensors.index.json").exists()


def test_an_error_in_the_block_is_not_hidden_by_missing_tensors(tmp_path: Path) -> None:
    with pytest.raises(KeyError), CheckpointWriter(tmp_path, {"a": (torch.float32, (2,))}):
        raise KeyError


def test_a_full_disk_shows_before_the_first_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match="No space left on device while writing a checkpoint of"):
        CheckpointWriter(tmp_path, {"a": (torch.float32, (2,))}).__enter__()


def test_empty_layouts_and_foreign_dtypes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tensor to write"):
        CheckpointWriter(tmp_path, {})
    with pytest.raises(CheckpointError, match=r"'a' can't be written in torch\.int8"):
        CheckpointWriter(tmp_path, {"a": (torch.int8, (1,))})
