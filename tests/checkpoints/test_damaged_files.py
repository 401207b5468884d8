"""Safetensors files that lie: each claim of a header is checked before anything is mapped."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from unspoiled.checkpoints._header import MAX_HEADER_BYTES, read_header
from unspoiled.errors import CheckpointError


def forge(path: Path, header: str | bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> Path:
    """Write a file with a given header, whatever it says, and a header length, whatever it is."""
    raw = json.dumps(header).encode() if isinstance(header, dict) else header
    raw = raw.encode() if isinstance(raw, str) else raw
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_an_honest_file_is_read_like_safetensors_reads_it(tmp_path: Path) -> None:
    tensors = {
        "b": torch.zeros(3, 2, dtype=torch.bfloat16),
        "a": torch.ones(5),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.empty(0, 4),
        "flags": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "f.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "f.safetensors")
    assert list(header) == sorted(tensors)
    assert {name: (info.dtype, info.shape) for name, info in header.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()
    }


def test_a_file_truncated_at_any_byte_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2)}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors is damaged"):
            read_header(cut)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match="1 bytes after the last tensor belong to no tensor"):
        read_header(cut)


LIES = {
    "overlap": ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "'b' overlaps"),
    "same place": ({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, 8, "'b' overlaps"),
    "hole": ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12, "a hole of 4 bytes before tensor 'b'"),
    "hole at the start": ({"a": entry(4, 8, [1])}, 8, "a hole of 4 bytes before tensor 'a'"),
    "beyond the end": ({"a": entry(0, 400, [100])}, 8, "'a' ends 392 bytes after the end"),
    "backwards": ({"a": entry(8, 0, [2])}, 8, "takes 8 bytes, not -8"),
    "negative": ({"a": entry(-4, 0, [1])}, 8, r"data_offsets \[-4, 0\]"),
    "size against shape": ({"a": entry(0, 8, [3])}, 8, "takes 12 bytes, not 8"),
    "negative shape": ({"a": entry(0, 8, [-1, -2])}, 8, r"shape \[-1, -2\]"),
    "boolean shape": ({"a": entry(0, 4, [True])}, 4, r"shape \[True\]"),
    "fractional shape": ({"a": entry(0, 4, [1.0])}, 4, r"shape \[1.0\]"),
    "overflowing shape": ({"a": entry(0, 0, [2**40, 2**40, 0])}, 0, "impossible shape"),
    "one offset": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, 4, "data_offsets"),
    "no dtype": ({"a": {"shape": [1], "data_offsets": [0, 4]}}, 4, "no dtype"),
    "unknown dtype": ({"a": entry(0, 4, [1], "F33")}, 4, "unknown dtype 'F33'"),
    "tensor is a list": ({"a": [0, 4]}, 4, "no dtype"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
}


@pytest.mark.parametrize(("header", "size", "message"), LIES.values(), ids=LIES.keys())
def test_a_header_that_lies_is_refused(tmp_path: Path, header: dict[str, Any], size: int, message: str) -> None:
    file = forge(tmp_path / "f.safetensors", header, bytes(size))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(file)
    assert str(file) in str(caught.value)


TEXTS = {
    "duplicate tensor": (
        '{"a": {"dtype":"F32","shape":[0],"data_offsets":[0,0]}, "a": {}}',
        "names 'a' twice",
    ),
    "duplicate key in a tensor": ('{"a": {"dtype":"F32","dtype":"F16"}}', "names 'dtype' twice"),
    "not JSON": ("{", "not JSON"),
    "not UTF-8": (b'{"\xff": 1}', "not JSON"),
    "not an object": ("[]", "not a JSON object"),
    "nested without end": ('{"a":' + "[" * 200_000, "not JSON"),
    "number without end": ('{"a":' + "1" * 10_000 + "}", "not JSON"),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS.keys())
def test_a_header_that_is_no_proper_json_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_header(forge(tmp_path / "f.safetensors", text))


def test_a_header_over_the_limit_is_refused_without_reading_it(tmp_path: Path) -> None:
    file = forge(tmp_path / "f.safetensors", "{}", length=MAX_HEADER_BYTES + 1)
    with file.open("rb+") as stream:
        stream.truncate(MAX_HEADER_BYTES + 100)  # sparse: the file is as large as it says
    with pytest.raises(CheckpointError, match="over the limit"):
        read_header(file)
    with pytest.raises(CheckpointError, match="over the limit"):
        read_header(forge(tmp_path / "f.safetensors", "{}", length=2**63))


@pytest.mark.parametrize(("dtype", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("I8", 1), ("U8", 1), ("I32", 4)])
def test_quantised_tensors_are_refused_with_the_way_out(tmp_path: Path, dtype: str, size: int) -> None:
    file = forge(tmp_path / "f.safetensors", {"a": entry(0, size, [1], dtype)}, bytes(size))
    with pytest.raises(CheckpointError, match=rf"'a' is stored as {dtype}: .*quantised.*BF16, F16 or F32"):
        read_header(file)
