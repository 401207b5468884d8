"""The safetensors format, checked by us: a header that lies must not reach a memory map.

Layout of a file: 8 bytes little-endian header length N, N bytes JSON, then the tensors' bytes without gaps.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from unspoiled.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
"""Names in the format of the dtypes that we read: weights, and the buffers (I64, BOOL) some models store."""

DTYPE_NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}

_OTHER_DTYPES = {
    *("I8", "U8", "I16", "U16", "I32", "U32", "U64", "C64"),
    *("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "F6_E2M3", "F6_E3M2"),
}
"""The format's further dtypes, which in a checkpoint mean that its weights are quantised."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is and what it is, known without reading it.

    Attributes:
        dtype: The storage dtype.
        shape: The shape.
        file: The safetensors file that holds it.
        start: The first byte of its data, counted from the start of the file.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    start: int = 0

    @property
    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """The (rows, width) of the tensor as a matrix: its leading dimensions as one; a vector or scalar is one row."""
        return (1, prod(self.shape)) if len(self.shape) < 2 else (prod(self.shape[:-1]), self.shape[-1])

    @property
    def nbytes(self) -> int:
        """The size of the data in bytes."""
        return self.numel * self.dtype.itemsize


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Return the tensors that a safetensors file declares, after checking every claim against the file.

    Raises:
        CheckpointError: truncated file, header too long or not JSON, duplicate names, offsets that overlap,
            leave holes or leave the file, sizes that contradict shapes, quantised or unknown dtypes. The
            message names file and tensor.
    """
    total = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise _damaged(file, f"it has {total} bytes and no header")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise _damaged(file, f"it declares a header of {length} bytes, over the limit of {MAX_HEADER_BYTES}")
        if 8 + length > total:
            raise _damaged(file, f"it declares a header of {length} bytes and has {total} bytes in all")
        entries = _parse_json(file, stream.read(length))
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(file, "its __metadata__ is not a map of strings")
    spans: list[tuple[int, int, str]] = []
    tensors: dict[str, TensorInfo] = {}
    for name, entry in entries.items():
        dtype, shape, begin, end = _check_entry(file, name, entry)
        spans.append((begin, end, name))
        tensors[name] = TensorInfo(dtype, shape, file, 8 + length + begin)
    _check_spans(file, spans, total - 8 - length)
    return dict(sorted(tensors.items()))


def _parse_json(file: Path, raw: bytes) -> dict[str, Any]:
    def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise _damaged(file, f"its header names {key!r} twice")
            result[key] = value
        return result

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=reject_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"its header is not JSON ({type(error).__name__})") from error
    if not isinstance(header, dict):
        raise _damaged(file, "its header is not a JSON object")
    return header


def _check_entry(file: Path, name: str, entry: object) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _damaged(file, f"tensor {name!r} has no dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or (dtype not in DTYPES and dtype not in _OTHER_DTYPES):
        raise _damaged(file, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if dtype not in DTYPES:
        raise CheckpointError(
            f"{file}: tensor {name!r} is stored as {dtype}: this checkpoint is quantised, and a merge of "
            "quantised weights is not defined. Use the original BF16, F16 or F32 checkpoint, or dequantise "
            "first."
        )
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _damaged(file, f"tensor {name!r} has shape {shape!r} and data_offsets {offsets!r}")
    begin, end = offsets
    if prod(size for size in shape if size) >= 2**62:
        raise _damaged(file, f"tensor {name!r} has the impossible shape {shape!r}")
    expected = prod(shape) * DTYPES[dtype].itemsize
    if end - begin != expected:
        raise _damaged(file, f"tensor {name!r} of shape {shape!r} in {dtype} takes {expected} bytes, not {end - begin}")
    return DTYPES[dtype], tuple(shape), begin, end


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_spans(file: Path, spans: list[tuple[int, int, str]], available: int) -> None:
    position = 0
    for begin, end, name in sorted(spans):
        if begin < position:
            raise _damaged(file, f"tensor {name!r} overlaps the one before it")
        if begin > position:
            raise _damaged(file, f"there is a hole of {begin - position} bytes before tensor {name!r}")
        if end > available:
            raise _damaged(file, f"tensor {name!r} ends {end - available} bytes after the end of the file")
        position = end
    if position != available:
        raise _damaged(file, f"{available - position} bytes after the last tensor belong to no tensor")


def _damaged(file: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {what}. Get the file again and compare its hash.")
