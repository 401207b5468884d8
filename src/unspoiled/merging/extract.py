"""Write the difference of two models as a LoRA adapter: the best approximation of a given rank, per matrix.

The truncated singular value decomposition is the nearest matrix of its rank (Eckart and Young 1936). Large matrices
are decomposed by randomised subspace iteration (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithms 4.4
and 5.1), which reads the matrix a few times instead of decomposing it whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from unspoiled.checkpoints import ModelRef, ModelSource, open_model, require_finite, write_manifest
from unspoiled.config import Dtype
from unspoiled.errors import CheckpointError, ConfigError, PreflightError
from unspoiled.files import staged_directory, write_json_atomic

_DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_EXACT_SIDE = 512
"""Matrices with a side up to this are decomposed exactly: that takes seconds at most."""
_OVERSAMPLING = 16
_POWER_ITERATIONS = 4
_STORED_TRANSPOSED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
"""Architectures of transformers' Conv1D, whose `c_` and `q_` matrices are stored [in, out]."""
_SHOWN = 8


@dataclass(frozen=True)
class ExtractedTensor:
    """One tensor of the adapter.

    Attributes:
        name: The base's tensor.
        shape: Its shape.
        norm: The Frobenius norm of its task vector.
        energy: The share of the task vector's squared norm that the adapter holds, 0 to 1.
    """

    name: str
    shape: tuple[int, int]
    norm: float
    energy: float


@dataclass(frozen=True)
class Extraction:
    """What an adapter holds and what it doesn't.

    Attributes:
        tensors: The tensors of the adapter, sorted by name.
        left_out: Tensors that differ and that a LoRA can't hold (norms, biases, tied or resized embeddings).
        excluded: Tensors that differ and that the patterns excluded.
        parameters: The number of the adapter's parameters.
    """

    tensors: tuple[ExtractedTensor, ...]
    left_out: tuple[str, ...]
    excluded: tuple[str, ...]
    parameters: int

    @property
    def energy(self) -> float:
        """The share of all the adapter's task vectors' squared norm that it holds, 0 to 1."""
        whole = sum(tensor.norm**2 for tensor in self.tensors)
        return sum(tensor.energy * tensor.norm**2 for tensor in self.tensors) / whole


def extract_lora(
    model: str,
    base: str,
    destination: Path,
    *,
    rank: int,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dtype: Dtype = "float32",
    ignore_other_tensors: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extraction:
    """Write what `model` adds to `base` as a PEFT LoRA adapter with scale 1.

    Tensors are read one at a time; memory holds a few copies of the largest, and the adapter. Modules are named as
    the base's tensors are: PEFT finds them where transformers names its modules like that too, as for language
    models without mixture-of-experts layers; `open_adapter` finds them always.

    Args:
        model: The merged or tuned model: `PATH`, `HUB/ID`, `HUB/ID@REVISION`, each with `+ADAPTER`.
        base: The model that the adapter will lie on, of the same architecture.
        destination: A directory that is absent, empty, or an earlier output of unspoiled.
        rank: The rank of every factor pair, at least 1. A matrix with a shorter side is held whole.
        include: Globs of tensor names (`*.self_attn.*`); only those go into the adapter. All by default.
        exclude: Globs of tensor names that stay out of it.
        dtype: The storage dtype of the factors.
        ignore_other_tensors: Leave out tensors that differ and that a LoRA can't hold, instead of refusing them.
        seed: Seeds the randomised decomposition of large matrices.
        progress: Called with (tensors done, tensors in all) after each tensor.

    Raises:
        CheckpointError: NaN or Inf in a tensor, or tensors that differ and can't be in a LoRA.
        ConfigError: A rank below 1.
        PreflightError: The models' tensors don't have the same names, or nothing differs.
    """
    if rank < 1:
        raise ConfigError(f"rank is {rank}: it must be at least 1.")
    tuned, origin = open_model(ModelRef.parse(model)), open_model(ModelRef.parse(base))
    names = _common_names(tuned, origin)
    fan_in_fan_out = origin.checkpoint.config.get("model_type") in _STORED_TRANSPOSED
    taken, other, excluded = [], [], []
    for name in names:
        if _equal(tuned, origin, name):
            continue
        if not _is_wanted(name, include, exclude):
            excluded.append(name)
        elif _fits_lora(tuned, origin, name):
            taken.append(name)
        else:
            other.append(name)
    if other and not ignore_other_tensors:
        raise CheckpointError(_other_tensors(model, base, other))
    if not taken:
        raise PreflightError(f"{model} and {base} have no matrix that differs (of those included): nothing to extract.")
    factors: dict[str, Tensor] = {}
    extracted: list[ExtractedTensor] = []
    for done, name in enumerate(taken, start=1):
        delta = _weights(tuned, name, model).sub_(_weights(origin, name, base))
        shape = (delta.shape[0], delta.shape[1])
        embedding = _is_embedding(name)
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if embedding or (fan_in_fan_out and _is_stored_transposed(name)):
            delta = delta.T
        b, a = low_rank_factors(delta, rank, torch.Generator().manual_seed(seed ^ zlib.crc32(name.encode())))
        norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
        # With B = U √S and A = √S Vᵀ the singular values are the squared norms of A's rows.
        held = float(a.double().square().sum(1).square().sum())
        keys = ("lora_embedding_B", "lora_embedding_A") if embedding else ("lora_B.weight", "lora_A.weight")
        for key, factor in zip(keys, (b, a), strict=True):
            factors[f"{module}.{key}"] = factor.to(_DTYPES[dtype]).contiguous()
        extracted.append(ExtractedTensor(name, shape, norm, min(1.0, held / norm**2)))
        progress(done, len(taken))
    with staged_directory(destination) as staging:
        save_file(factors, staging / "adapter_model.safetensors", metadata={"format": "pt"})
        modules = [name.removesuffix(".weight") for name in taken]
        write_json_atomic(staging / "adapter_config.json", _config(origin, rank, modules, fan_in_fan_out))
        write_manifest(staging)
    parameters = sum(factor.numel() for factor in factors.values())
    return Extraction(tuple(extracted), tuple(other), tuple(excluded), parameters)


def low_rank_factors(matrix: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return B, A with B A the best approximation of a matrix of at most the given rank, both of equal scale.

    Args:
        matrix: Shape [out, in], float32.
        rank: The number of columns of B. Columns beyond the shorter side of the matrix are zero.
        generator: Draws the test matrix of the randomised decomposition; unused for small matrices.

    Returns:
        B = U √S of shape [out, rank] and A = √S Vᵀ of shape [rank, in].
    """
    side = min(matrix.shape)
    sketch = rank + _OVERSAMPLING
    if side <= _EXACT_SIDE or sketch > side // 2:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    else:
        q = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], sketch, generator=generator)).Q
        for _ in range(_POWER_ITERATIONS):
            q = torch.linalg.qr(matrix.T @ q).Q
            q = torch.linalg.qr(matrix @ q).Q
        u, s, vh = torch.linalg.svd(q.T @ matrix, full_matrices=False)
        u = q @ u
    kept = min(rank, side)
    root = s[:kept].sqrt()
    b, a = matrix.new_zeros(matrix.shape[0], rank), matrix.new_zeros(rank, matrix.shape[1])
    torch.mul(u[:, :kept], root, out=b[:, :kept])
    torch.mul(vh[:kept], root[:, None], out=a[:kept])
    return b, a


def _common_names(tuned: ModelSource, origin: ModelSource) -> list[str]:
    ours, theirs = ({*model.tensors, *model.checkpoint.aliases} for model in (tuned, origin))
    missing = sorted((origin.tensors.keys() - ours) | (tuned.tensors.keys() - theirs))
    if missing:
        raise PreflightError(
            f"{tuned.ref} and {origin.ref} are not of one architecture: {len(missing)} tensors are in only one of "
            f"them: {_listed(missing)}. Name the base that the model was made from."
        )
    return sorted(tuned.tensors.keys() | origin.tensors.keys())


def _shape(model: ModelSource, name: str) -> tuple[int, ...]:
    return model.tensors[model.checkpoint.aliases.get(name, name)].shape


def _equal(tuned: ModelSource, origin: ModelSource, name: str) -> bool:
    if tuned.delta(name) is not None or origin.delta(name) is not None or _shape(tuned, name) != _shape(origin, name):
        return False
    one, other = (_rows(model, name) for model in (tuned, origin))
    return torch.equal(one, other) if one.dtype == other.dtype else torch.equal(one.float(), other.float())


def _rows(model: ModelSource, name: str) -> Tensor:
    info = model.checkpoint.info(name)
    return model.read_rows(name, 0, info.matrix[0]).view(info.shape)


def _weights(model: ModelSource, name: str, label: str) -> Tensor:
    """Return a tensor with its adapter, in float32 and in memory of its own."""
    weights = _rows(model, name).float()
    if (delta := model.delta(name)) is not None:
        weights += delta.dense()
    require_finite(weights, model=label, name=name)
    return weights


def _is_wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    included = not include or any(fnmatchcase(name, pattern) for pattern in include)
    return included and not any(fnmatchcase(name, pattern) for pattern in exclude)


def _fits_lora(tuned: ModelSource, origin: ModelSource, name: str) -> bool:
    shape = _shape(origin, name)
    aliases = origin.checkpoint.aliases
    return (
        name.endswith(".weight")
        and len(shape) == 2
        and 0 not in shape
        and shape == _shape(tuned, name)
        and name not in aliases
        and name not in aliases.values()  # a tied pair is one tensor with two uses, and a LoRA changes one of them
        and origin.tensors[name].dtype.is_floating_point
    )


def _is_embedding(name: str) -> bool:
    module = name.removesuffix(".weight").rpartition(".")[2]
    named = module in {"wte", "wpe", "shared", "tokens_embed", "positions_embed", "relative_attention_bias"}
    return named or ("emb" in module and module != "embed_out")


def _is_stored_transposed(name: str) -> bool:
    return name.removesuffix(".weight").rpartition(".")[2].startswith(("c_", "q_attn"))


def _other_tensors(model: str, base: str, other: Sequence[str]) -> str:
    return (
        f"{len(other)} tensors of {model} differ from {base} and can't be in a LoRA (norms, biases, tied or resized "
        f"embeddings): {_listed(other)}. Leave them as they are in the base with --ignore-other-tensors, or keep the "
        "full checkpoint."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _config(origin: ModelSource, rank: int, modules: list[str], fan_in_fan_out: bool) -> dict[str, object]:
    architectures = origin.checkpoint.config.get("architectures") or [""]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if str(architectures[0]).endswith("ForCausalLM") else None,
        "base_model_name_or_path": origin.ref.path,
        "revision": origin.ref.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": fan_in_fan_out,
        "init_lora_weights": True,
        "target_modules": modules,
    }
