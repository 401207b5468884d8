"""Open a checkpoint without loading it: headers are checked, tensors are memory-mapped when read."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unspoiled.checkpoints._header import TensorInfo, read_header
from unspoiled.checkpoints._reads import MappedFiles, PositionedFiles
from unspoiled.checkpoints._tying import tied_names
from unspoiled.errors import CheckpointError
from unspoiled.files import hash_file

INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAME = "model.safetensors"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.safetensors")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A full model on disk, read lazily.

    Attributes:
        directory: Where it is; the file itself for a model that is one safetensors file and nothing else.
        config: The content of config.json; empty for raw weights, of which nothing but the tensors is known.
        tensors: Every stored tensor, sorted by name, without a stored copy of a tied head.
        aliases: Tied names: a name that isn't in `tensors` → the stored name whose tensor it shares (the
            output head of a model with tied embeddings). `read` accepts both.
    """

    directory: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    aliases: Mapping[str, str]
    _files: MappedFiles = field(repr=False)
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
        return self._files.read(self.info(name))

    def read_rows(self, name: str, start: int, stop: int, *, out: Tensor | None = None) -> Tensor:
        """Return rows [start, stop) of a tensor in its storage dtype, copied from the file; any thread may call.

        The tensor counts as a matrix [rows, width] (`TensorInfo.matrix`). Unlike `read`, nothing stays mapped: the
        memory in use is that of the result.

        Args:
            name: The tensor's name; tied names work too.
            start: The first row.
            stop: The row after the last.
            out: Contiguous CPU memory in the result's dtype and shape to read into; saves the page faults of
                fresh memory where blocks follow each other.

        Returns:
            Shape [stop - start, width]. `out` if that was given.

        Raises:
            CheckpointError: no such tensor, or a file that has become shorter since it was opened.
            ValueError: rows that the tensor doesn't have, or an `out` that doesn't fit.
        """
        return self._positioned.read_rows(self.info(name), start, stop, out)

    def info(self, name: str) -> TensorInfo:
        """Return what is known of a tensor without reading it; tied names work too.

        Raises:
            CheckpointError: no such tensor.
        """
        info = self.tensors.get(self.aliases.get(name, name))
        if info is None:
            raise CheckpointError(f"{self.directory} has no tensor {name!r}. Run `unspoiled check` on the inputs.")
        return info

    def fingerprint(self) -> str:
        """Return a SHA-256 over the weight files' names and contents; cached for unchanged files."""
        return fingerprint_files({info.file for info in self.tensors.values()})


def open_checkpoint(directory: Path) -> Checkpoint:
    """Check a checkpoint's config, index and safetensors headers, and return it; no tensor is loaded.

    Weights without a config.json are raw: one safetensors file, or a complete set of shards, whatever their names.

    Args:
        directory: A checkpoint's directory, a directory of raw weights, or a safetensors file.

    Raises:
        CheckpointError: no weights, several models in one directory, pickled weights only, remote code, quantised
            weights, an index with unsafe or wrong paths, or a damaged file; the message names file and tensor.
    """
    if directory.is_file():
        config: dict[str, Any] = {}
        files: Mapping[Path, set[str] | None] = {_safetensors_file(directory): None}
    elif directory.is_dir():
        config = _read_config(directory)
        files = _weight_files(directory) if (directory / "config.json").exists() else _raw_files(directory)
    else:
        raise CheckpointError(f"{directory} is no directory. Give the directory that holds config.json.")
    tensors: dict[str, TensorInfo] = {}
    for file, names in files.items():
        found = read_header(file)
        if names is not None:
            _compare_with_index(file, set(found), names)
        if twice := sorted(found.keys() & tensors.keys()):
            raise CheckpointError(f"{file} repeats tensors of {tensors[twice[0]].file.name}: {listed(twice)}.")
        tensors.update(found)
    if not tensors:
        raise CheckpointError(f"{directory}: the weight files hold no tensor.")
    mapped = MappedFiles()
    aliases = _tied(config, tensors, mapped)
    stored = {name: info for name, info in sorted(tensors.items()) if name not in aliases}
    return Checkpoint(directory, MappingProxyType(config), MappingProxyType(stored), MappingProxyType(aliases), mapped)


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
    has_config = (directory / "config.json").exists()
    if not has_config and (directory / "adapter_config.json").exists():
        raise CheckpointError(
            f"{directory} is a LoRA adapter, not a full model. Write it behind its base: BASE+{directory.name}."
        )
    config = read_json(directory, "config.json") if has_config else {}
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


def _raw_files(directory: Path) -> dict[Path, set[str] | None]:
    """Return the weight files of a directory without a config: an index's, the only one, or one set of shards."""
    if (directory / INDEX_NAME).exists():
        return _weight_files(directory)
    names = sorted(path.name for path in directory.glob("*.safetensors"))
    if not names:
        raise CheckpointError(
            f"{directory} has no config.json and no safetensors. Give the directory of a Hugging Face checkpoint, "
            "or a .safetensors file."
        )
    if shard := _SHARD.fullmatch(names[0]):
        stem, count = shard["stem"], int(shard["count"])
        expected = [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    else:
        expected = names[:1]
    if strange := sorted(set(names) - set(expected)):
        raise CheckpointError(
            f"{directory} has no config.json and more than one model: beside {names[0]!r} there are "
            f"{listed(strange)}. Name the file that you mean."
        )
    if missing := sorted(set(expected) - set(names)):
        raise CheckpointError(f"{directory} has {len(names)} shards of {len(expected)}. Get {listed(missing)}.")
    return {safe_path(directory, name): None for name in names}


def _safetensors_file(file: Path) -> Path:
    if file.suffix == ".safetensors":
        return file
    if file.suffix in _PICKLES:
        raise CheckpointError(
            f"{file} is a pickle, and loading a pickle runs code. Convert it where you trust it: load it with "
            "transformers, then save_pretrained (it writes safetensors)."
        )
    raise CheckpointError(
        f"{file} is a file. Give the directory that holds config.json and the weights, or a .safetensors file."
    )


def _compare_with_index(file: Path, found: set[str], expected: set[str]) -> None:
    if missing := sorted(expected - found):
        raise CheckpointError(f"{file} lacks tensors that the index puts there: {listed(missing)}.")
    if extra := sorted(found - expected):
        raise CheckpointError(f"{file} holds tensors that the index doesn't put there: {listed(extra)}.")


def _no_weights(directory: Path) -> CheckpointError:
    names = sorted(path.name for path in directory.iterdir())
    pickles = [name for name in names if name.endswith(_PICKLES) and "args" not in name]
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
