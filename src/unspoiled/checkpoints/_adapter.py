"""LoRA adapters in PEFT's format, read directly: the task vector as two thin matrices.

Semantics are PEFT's (Hu et al., arXiv 2106.09685; rank-stabilised scale: Kalajdzievski, arXiv 2312.03732):
W = W_base + scale · B A with scale = alpha / r, or alpha / sqrt(r) with rslora. What PEFT would do and this
module doesn't is refused by name, never approximated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import torch
from torch import Tensor

from unspoiled.checkpoints._adapter_config import check_adapter_config, pattern_value
from unspoiled.checkpoints._header import TensorInfo, read_header
from unspoiled.checkpoints._reader import (
    Checkpoint,
    fingerprint_files,
    listed,
    read_json,
    safe_path,
)
from unspoiled.checkpoints._reads import MappedFiles
from unspoiled.errors import CheckpointError
from unspoiled.files import hash_value

ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(\.weight)?")
_WRAPPERS = ("model.", "transformer.", "language_model.")
"""Components that one form of a checkpoint puts before its layers and another leaves out or orders otherwise."""


@dataclass(frozen=True, eq=False)
class LowRankDelta:
    """The task vector of one tensor, scale · B A, in the orientation of the base's stored tensor.

    Attributes:
        b: Shape [out, rank], in the adapter's storage dtype.
        a: Shape [rank, in], in the adapter's storage dtype.
        scale: alpha / r, or alpha / sqrt(r) with rslora.
    """

    b: Tensor
    a: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the dense task vector, which is that of the base's tensor: (out, in)."""
        return (self.b.shape[0], self.a.shape[1])

    @property
    def rank(self) -> int:
        """The number of columns of B, an upper bound of the task vector's rank."""
        return self.b.shape[1]

    def dense(self) -> Tensor:
        """Return scale · B A in float32, shape [out, in]."""
        return self.scale * (self.b.float() @ self.a.float())


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA adapter, matched with the tensors of its base.

    Attributes:
        directory: Where it is.
        config: The content of adapter_config.json.
        deltas: The base's tensor name → the task vector of that tensor, sorted by name.
    """

    directory: Path
    config: Mapping[str, Any]
    deltas: Mapping[str, LowRankDelta]

    @property
    def size_bytes(self) -> int:
        """The size of all factors in bytes, in their storage dtypes."""
        return sum(delta.a.nbytes + delta.b.nbytes for delta in self.deltas.values())

    def fingerprint(self) -> str:
        """Return a SHA-256 over the adapter's weights and everything in its config that scales them."""
        keys = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
        weights = fingerprint_files([self.directory / ADAPTER_WEIGHTS_NAME])
        return hash_value([weights, {key: self.config.get(key) for key in keys}])


def open_adapter(directory: Path, base: Checkpoint) -> Adapter:
    """Read a LoRA adapter's factors (memory-mapped) and match them with the tensors of `base`.

    The base's name in the adapter's config is not compared, since paths differ between machines; names and
    shapes of the tensors are.

    Raises:
        CheckpointError: not a LoRA adapter, pickled weights, an option that changes the model in another way
            than scale · B A (DoRA, biases, whole modules, new tokens ...), keys without a tensor in the base,
            or shapes that don't fit. The message names file and key.
    """
    if not (directory / ADAPTER_CONFIG_NAME).exists():
        raise CheckpointError(f"{directory} has no {ADAPTER_CONFIG_NAME}. Give the directory of a PEFT LoRA adapter.")
    config = read_json(directory, ADAPTER_CONFIG_NAME)
    check_adapter_config(directory / ADAPTER_CONFIG_NAME, config)
    if not (directory / ADAPTER_WEIGHTS_NAME).exists():
        raise _no_weights(directory)
    file = safe_path(directory, ADAPTER_WEIGHTS_NAME)
    files, header = MappedFiles(), read_header(file)
    pairs = _pair_factors(file, header, base, files)
    deltas = {}
    transposed_by_shape = _orientations(pairs)
    for name, pair in pairs.items():
        scale = _scale(file, config, pair)
        b, a = files.read(pair.b), files.read(pair.a)
        if pair.embedding or _is_transposed(file, config, pair, transposed_by_shape):
            b, a = a.T, b.T
        deltas[name] = LowRankDelta(b, a, scale)
    return Adapter(directory, MappingProxyType(config), MappingProxyType(dict(sorted(deltas.items()))))


def _no_weights(directory: Path) -> CheckpointError:
    if (directory / "adapter_model.bin").exists():
        return CheckpointError(
            f"{directory} holds its weights as a pickle only (adapter_model.bin), and loading a pickle "
            "runs code. "
            "Load it with PEFT where you trust it, and save it again with save_pretrained."
        )
    return CheckpointError(f"{directory} has no {ADAPTER_WEIGHTS_NAME}. Give a complete PEFT adapter.")


@dataclass(frozen=True)
class _Pair:
    """The two stored factors of one module: b [out, rank], a [rank, in], in the module's orientation."""

    module: str
    embedding: bool
    b: TensorInfo
    a: TensorInfo
    target: tuple[int, ...]

    @property
    def dense_shape(self) -> tuple[int, int]:
        return (self.b.shape[0], self.a.shape[1])


def _pair_factors(
    file: Path, header: Mapping[str, TensorInfo], base: Checkpoint, files: MappedFiles
) -> dict[str, _Pair]:
    factors: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    unknown: list[str] = []
    for key, info in header.items():
        module = key.removeprefix(_PREFIX)
        match = _FACTOR.fullmatch(module)
        if match and key.startswith(_PREFIX):
            factors.setdefault((match["module"], bool(match["embedding"])), {})[match["factor"]] = info
        elif not _repeats_base(module, info, base, files):
            unknown.append(key)
    if unknown:
        raise CheckpointError(
            f"{file} holds more than LoRA factors: {listed(unknown)}. Whole modules, biases, magnitudes "
            "and resized "
            "embeddings are not supported in an adapter. Merge it into its base with PEFT's "
            "merge_and_unload, and "
            "use the result as a full checkpoint."
        )
    unwrapped: dict[str, list[str]] = {}
    for name in [*base.tensors, *base.aliases]:
        unwrapped.setdefault(_unwrap(name), []).append(name)
    pairs: dict[str, _Pair] = {}
    unmatched: list[str] = []
    for (module, embedding), pair in sorted(factors.items()):
        if pair.keys() != {"A", "B"}:
            raise CheckpointError(f"{file}: module {module!r} has only one of its two LoRA factors. Save it again.")
        target = _target(module, base, unwrapped)
        if target is None:
            unmatched.append(module)
            continue
        _refuse_tied(file, target, base)
        if target in pairs:
            other = pairs[target].module
            raise CheckpointError(f"{file}: two modules, {other!r} and {module!r}, both change {target!r}.")
        pairs[target] = _checked_pair(file, _Pair(module, embedding, pair["B"], pair["A"], base.tensors[target].shape))
    if unmatched or not pairs:
        what = f"modules that {base.directory} doesn't have: {listed(unmatched)}" if unmatched else "no LoRA factor"
        raise CheckpointError(f"{file} changes {what}. The adapter was made for another base; name that one.")
    return pairs


def _repeats_base(module: str, info: TensorInfo, base: Checkpoint, files: MappedFiles) -> bool:
    """Tell whether a key is an unchanged copy of a base tensor (PEFT saves targeted embeddings whole)."""
    name = module.replace(".base_layer.", ".")
    if name not in base.tensors and name not in base.aliases:
        return False
    stored = base.read(name)
    return stored.shape == info.shape and torch.equal(stored.float(), files.read(info).float())


def _target(module: str, base: Checkpoint, unwrapped: Mapping[str, list[str]]) -> str | None:
    """Return the base's tensor for a module: that of its name, or the only one of its name but for the wrappers.

    A module's name is that in the model class, and a stored tensor's can differ from it at the front: checkpoints
    of the bare model lack `model.`, and vision-language models store `language_model.model.layers.0 ...` or
    `model.layers.0 ...` for `model.language_model.layers.0 ...`.
    """
    name = f"{module}.weight"
    if name in base.tensors or name in base.aliases:
        return name
    alike = unwrapped.get(_unwrap(name), [])
    return alike[0] if len(alike) == 1 else None


def _unwrap(name: str) -> str:
    while (shorter := next((name.removeprefix(p) for p in _WRAPPERS if name.startswith(p)), name)) != name:
        name = shorter
    return name


def _refuse_tied(file: Path, name: str, base: Checkpoint) -> None:
    for head, embedding in base.aliases.items():
        if name in (head, embedding):
            raise CheckpointError(
                f"{file} changes {name!r}, but in {base.directory} {head!r} and {embedding!r} are one tied "
                "tensor, so "
                "the adapter has no unique meaning there. Untie the base (tie_word_embeddings: false, with "
                "its head "
                "stored), or merge the adapter with PEFT's merge_and_unload and use the result as a full "
                "checkpoint."
            )


def _checked_pair(file: Path, pair: _Pair) -> _Pair:
    fits = len(pair.a.shape) == len(pair.b.shape) == 2 and pair.a.shape[0] == pair.b.shape[1]
    dense = (pair.b.shape[0], pair.a.shape[-1]) if fits else None
    orientations = {pair.target[::-1]} if pair.embedding else {pair.target, pair.target[::-1]}
    if dense not in orientations:
        raise CheckpointError(
            f"{file}: module {pair.module!r} has factors B {list(pair.b.shape)} and A "
            f"{list(pair.a.shape)}, which don't "
            f"give the base's shape {list(pair.target)}. The adapter was made for another base; name that "
            "one."
        )
    if not (pair.a.dtype.is_floating_point and pair.b.dtype.is_floating_point):
        raise CheckpointError(f"{file}: module {pair.module!r} has factors in {pair.a.dtype}, not in floating point.")
    return pair


def _scale(file: Path, config: Mapping[str, Any], pair: _Pair) -> float:
    rank = pattern_value(file, config, "rank_pattern", pair.module, config.get("r", 8))
    alpha = pattern_value(file, config, "alpha_pattern", pair.module, config.get("lora_alpha", 8))
    stored = pair.a.shape[0]
    if rank != stored or stored == 0:
        raise CheckpointError(
            f"{file}: module {pair.module!r} has rank {stored}, but {ADAPTER_CONFIG_NAME} gives it rank "
            f"{rank!r}. "
            "Config and weights are of different adapters; save the adapter again."
        )
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise CheckpointError(f"{file}: module {pair.module!r} has lora_alpha {alpha!r}, which is not a number.")
    return alpha / (sqrt(stored) if config.get("use_rslora") else stored)


def _orientations(pairs: Mapping[str, _Pair]) -> set[bool]:
    """Return which orientations the adapter's oblong matrices prove: True for weights stored [in, out]."""
    return {
        pair.dense_shape != pair.target
        for pair in pairs.values()
        if not pair.embedding and pair.target[0] != pair.target[-1]
    }


def _is_transposed(file: Path, config: Mapping[str, Any], pair: _Pair, proven: set[bool]) -> bool:
    """Tell whether the base stores this module as [in, out] (transformers' Conv1D), against B A's [out, in].

    The shape says so, except for square matrices, where PEFT's flag does. PEFT corrects the flag per module
    while it loads, so that a flag that contradicts the oblong matrices can't be trusted for the square ones.
    """
    if pair.target[0] != pair.target[1]:
        return pair.dense_shape != pair.target
    flag = bool(config.get("fan_in_fan_out"))
    if proven and proven != {flag}:
        _refuse_ambiguous(file, pair, flag)
    return flag


def _refuse_ambiguous(file: Path, pair: _Pair, flag: bool) -> NoReturn:
    raise CheckpointError(
        f"{file}: module {pair.module!r} is square, and fan_in_fan_out={flag} contradicts the shapes of "
        "other modules, "
        "so its orientation is unknown. Merge the adapter with PEFT's merge_and_unload and use the result "
        "as a full "
        "checkpoint."
    )
