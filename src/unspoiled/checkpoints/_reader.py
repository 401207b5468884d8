"""Open a checkpoint without loading it: headers are checked, tensors are memory-mapped when read."""

import hashlib
import json
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Lock
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unspoiled.checkpoints._header import TensorInfo, read_header
from unspoiled.checkpoints._positioned import PositionedFiles
from unspoiled.checkpoints._tying import tied_names
from unspoiled.errors import CheckpointError
from unspoiled.files import hash_file

INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAME = "model.safetensors"

_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A full model on disk, read lazily.

    Attributes:
        directory: Where it is.
        config: The content of config.json.
        tensors: Every stored tensor, sorted by name, without a stored copy of a tied head.
        aliases: Tied names: a name that isn't in `tensors` → the stored name whose tensor it shares (the
            output head of a model with tied embeddings). `read` accepts both.
    """

    directory: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    aliases: Mapping[str, str]
    _files: "MappedFiles" = field(repr=False)
    _positioned: PositionedFiles = field(default_factory=PositionedFiles, repr=False)

    @property
    def size_bytes(self) -> int:
        """The size of all tensors in bytes, in their storage dtypes."""
        return sum(info.nbytes for info in self.tensors.values())

    def read(self, name: str) -> Tensor:
        """Return a tensor in its storage dtype, mapped from the file without a copy.

        Changing it in place changes this process's view only, never the file.

        Raises:
            CheckpointError: no such tensor.
        """
        return self._files.read(self._info(name))

    def read_rows(self, name: str, start: int, stop: int, *, out: Tensor | None = None) -> Tensor:
        """Return rows [start, stop) of a tensor in its storage dtype, copied from the file; any thread may call.

        Unlike `read`, nothing stays mapped: the memory in use is that of the result.

        Args:
            name: The tensor's name; tied names work too.
            start: The first row, counted along dimension 0.
            stop: The row after the last. The one row of a scalar is (0, 1).
            out: Contiguous CPU memory in the result's dtype and shape to read into; saves the page faults of
                fresh memory where blocks follow each other.

        Returns:
            Shape [stop - start, ...]; [] for a scalar. `out` if that was given.

        Raises:
            CheckpointError: no such tensor, or a file that has become shorter since it was opened.
            ValueError: rows that the tensor doesn't have, or an `out` that doesn't fit.
        """
        return self._positioned.read_rows(self._info(name), start, stop, out)

    def _info(self, name: str) -> TensorInfo:
        info = self.tensors.get(self.aliases.get(name, name))
        if info is None:
            raise CheckpointError(f"{self.directory} has no tensor {name!r}. Run `unspoiled check` on the inputs.")
        return info

    def fingerprint(self) -> str:
        """Return a SHA-256 over the weight files' names and contents; cached for unchanged files."""
        return fingerprint_files({info.file for info in self.tensors.values()})


class MappedFiles:
    """The memory maps of a checkpoint's files, each opened at the first read."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}
        self._lock = Lock()

    def read(self, info: TensorInfo) -> Tensor:
        """Return the tensor that `info` describes as a view of the file."""
        if info.numel == 0:
            return torch.empty(info.shape, dtype=info.dtype)
        mapped = self._map(info.file)
        if info.start % info.dtype.itemsize:  # old writers didn't align; torch wants aligned memory
            copy = bytearray(mapped[info.start : info.start + info.nbytes])
            return torch.frombuffer(copy, dtype=info.dtype).view(info.shape)
        flat = torch.frombuffer(mapped, dtype=info.dtype, count=info.numel, offset=info.start)
        return flat.view(info.shape)

    def _map(self, file: Path) -> mmap.mmap:
        with self._lock:
            if file not in self._maps:
                with file.open("rb") as stream:
                    # Private: a stray in-place operation can't reach the file. Without reserve: a mapping
                    # larger than memory and swap is refused otherwise.
                    self._maps[file] = mmap.mmap(
                        stream.fileno(),
                        0,
                        flags=mmap.MAP_PRIVATE | _MAP_NORESERVE,
                        prot=mmap.PROT_READ | mmap.PROT_WRITE,
                    )
            return self._maps[file]


def open_checkpoint(directory: Path) -> Checkpoint:
    """Check a checkpoint's config, index and safetensors headers, and return it; no tensor is loaded.

    Raises:
        CheckpointError: no config.json or weights, pickled weights only, remote code, quantised weights, an
            index with unsafe or wrong paths, or a damaged file; the message names file and tensor.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is no directory. Give the directory that holds config.json.")
    config = _read_config(directory)
    tensors: dict[str, TensorInfo] = {}
    for file, names in _weight_files(directory).items():
        found = read_header(file)
        if names is not None:
            _compare_with_index(file, set(found), names)
        tensors.update(found)
    if not tensors:
        raise CheckpointError(f"{directory}: the weight files hold no tensor.")
    files = MappedFiles()
    aliases = _tied(config, tensors, files)
    stored = {name: info for name, info in sorted(tensors.items()) if name not in aliases}
    return Checkpoint(directory, MappingProxyType(config), MappingProxyType(stored), MappingProxyType(aliases), files)


def _tied(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], files: MappedFiles) -> dict[str, str]:
    """Return the tied names that hold: as transformers does, a stored head that differs is not tied."""
    aliases = tied_names(config, tensors)
    for alias, target in list(aliases.items()):
        if alias in tensors and (
            tensors[alias].shape != tensors[target].shape
            or tensors[alias].dtype != tensors[target].dtype
            or not torch.equal(files.read(tensors[alias]), files.read(tensors[target]))
        ):
            del aliases[alias]
    return aliases


def safe_path(directory: Path, name: str) -> Path:
    """Return `directory / name`, refusing names and links that lead out of the directory.

    The one exception is the hub's cache, where a snapshot consists of links into the cache's blobs.

    Raises:
        CheckpointError: the name is absolute or has `..`, or the file is a link to somewhere else.
    """
    parts = PurePosixPath(name)
    if not name or parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"{directory}: the file name {name!r} leads out of the checkpoint. "
            "Don't use this checkpoint unless you know who made it and why."
        )
    path = directory / name
    home = directory.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed += [home.parents[1] / "blobs", home.parents[2] / "blobs"]
    target = path.resolve()
    if not any(target.is_relative_to(root) for root in allowed):
        raise CheckpointError(
            f"{path} is a link to {target}, outside of the checkpoint. Replace the link by the file itself."
        )
    return path


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a checkpoint's file.

    Raises:
        CheckpointError: unsafe link, not JSON, or not an object.
    """
    path = safe_path(directory, name)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}). Get the file again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object. Get the file again.")
    return value


def _read_config(directory: Path) -> dict[str, Any]:
    if not (directory / "config.json").exists():
        if (directory / "adapter_config.json").exists():
            raise CheckpointError(
                f"{directory} is a LoRA adapter, not a full model. Write it behind its base: BASE+{directory.name}."
            )
        raise CheckpointError(f"{directory} has no config.json. Give the directory of a Hugging Face checkpoint.")
    config = read_json(directory, "config.json")
    tokenizer_has_code = (directory / "tokenizer_config.json").exists() and bool(
        read_json(directory, "tokenizer_config.json").get("auto_map")
    )
    if config.get("auto_map") or tokenizer_has_code:
        file = "config.json" if config.get("auto_map") else "tokenizer_config.json"
        raise CheckpointError(
            f"{directory / file} asks for remote code (auto_map), which unspoiled never runs. Use a "
            "checkpoint "
            "whose architecture is part of transformers; if this one's is, remove auto_map from the file."
        )
    quantisation = config.get("quantization_config")
    if quantisation:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation
        raise CheckpointError(
            f"{directory / 'config.json'}: the checkpoint is quantised ({method!r}), and a merge of "
            "quantised "
            "weights is not defined. Use the original BF16, F16 or F32 checkpoint, or dequantise first."
        )
    return config


def _weight_files(directory: Path) -> dict[Path, set[str] | None]:
    """Return the weight files with the names that the index puts into each (None without an index)."""
    has_index, has_single = (directory / INDEX_NAME).exists(), (directory / WEIGHTS_NAME).exists()
    if not has_index and not has_single:
        raise _no_weights(directory)
    if not has_index:
        return {safe_path(directory, WEIGHTS_NAME): None}
    weight_map = read_json(directory, INDEX_NAME).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{directory / INDEX_NAME} has no weight_map of file names. Get the file again.")
    files: dict[Path, set[str] | None] = {}
    for file_name in sorted(set(weight_map.values())):
        path = safe_path(directory, file_name)
        if not path.is_file():
            raise CheckpointError(f"{directory / INDEX_NAME} names {file_name!r}, which is missing. Get the file.")
        files[path] = {tensor for tensor, file in weight_map.items() if file == file_name}
    if has_single and directory / WEIGHTS_NAME not in files:
        raise CheckpointError(
            f"{directory} has both {WEIGHTS_NAME} and {INDEX_NAME}, two different models. Remove one of them."
        )
    return files


def _compare_with_index(file: Path, found: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - found):
        raise CheckpointError(f"{file} lacks tensors that the index puts there: {listed(missing)}.")
    if extra := sorted(found - expected):
        raise CheckpointError(f"{file} holds tensors that the index doesn't put there: {listed(extra)}.")


def _no_weights(directory: Path) -> CheckpointError:
    names = sorted(path.name for path in directory.iterdir())
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")) and "args" not in name]
    if pickles:
        return CheckpointError(
            f"{directory} holds pickled weights only ({listed(pickles)}), and loading a pickle runs code. "
            "Convert "
            "them where you trust them: load with transformers, then save_pretrained (it writes safetensors)."
        )
    if ggufs := [name for name in names if name.endswith(".gguf")]:
        return CheckpointError(
            f"{directory} holds GGUF files only ({listed(ggufs)}). Use the safetensors checkpoint they were made from."
        )
    return CheckpointError(
        f"{directory} has neither {WEIGHTS_NAME} nor {INDEX_NAME}. Give the directory of a complete checkpoint."
    )


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Return names for a message, the first `limit` of them and a count of the others."""
    names = list(names)
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


_HASHES: dict[tuple[str, int, int], str] = {}


def fingerprint_files(files: Iterable[Path]) -> str:
    """Return a SHA-256 over files' names and contents; a file unchanged in size and mtime is hashed once."""
    digest = hashlib.sha256()
    for file in sorted(files):
        status = file.stat()
        key = (str(file.resolve()), status.st_size, status.st_mtime_ns)
        if key not in _HASHES:
            _HASHES[key] = hash_file(file)
        digest.update(f"{file.name}\0{_HASHES[key]}\n".encode())
    return digest.hexdigest()
