"""Find everything that is wrong with a bunch before any work, and say it all at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path

import torch

from unspoiled.checkpoints._header import DTYPE_NAMES
from unspoiled.checkpoints._reader import listed
from unspoiled.checkpoints._source import ModelSource, OutputLayout, output_layout, text_config
from unspoiled.checkpoints._tokenizer import TOKENIZER_FILES, template_differences, vocabulary_differences
from unspoiled.checkpoints._tying import embedding_names
from unspoiled.errors import CheckpointError, PreflightError
from unspoiled.files import free_bytes

_ARCHITECTURE_KEYS = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *(
        "intermediate_size",
        "head_dim",
        "hidden_act",
        "vocab_size",
        "num_experts",
        "num_local_experts",
    ),
)
_OUTPUT_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
SMALL_FILES_BYTES = 50_000_000
"""Allowance for the tokenizer, configs and card beside the weights."""


@dataclass(frozen=True)
class PreflightReport:
    """What was found before a merge.

    Attributes:
        problems: What makes the merge impossible or meaningless.
        warnings: What the user should know and may accept.
        disk_bytes: The size of the merged checkpoint.
        memory_bytes: An estimate of the memory that a live merge holds: the model in float32, the adapters'
            factors, and the float32 copies of the largest tensor of every model while it is merged. Memory-
            mapped inputs come on top and can be given back to the system at any time.
        parameters: The number of the merged model's parameters.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    disk_bytes: int
    memory_bytes: int
    parameters: int

    @property
    def summary(self) -> str:
        """One line: parameters, disk and memory."""
        return (
            f"{self.parameters / 1e6:,.1f} M parameters, {self.disk_bytes / 1e9:.2f} GB on disk, "
            f"about {self.memory_bytes / 1e9:.2f} GB of memory"
        )

    def raise_if_problems(self) -> None:
        """Raise `PreflightError` with every problem as a bullet, if there is one."""
        if self.problems:
            count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
            bullets = "\n".join(f"  - {problem}" for problem in self.problems)
            raise PreflightError(f"The models don't fit together ({count}):\n{bullets}")


def preflight(
    base: ModelSource, experts: Mapping[str, ModelSource], *, output: Path | None, dtype: torch.dtype
) -> PreflightReport:
    """Compare every expert with the base and the output with the disk; only integers are loaded.

    Args:
        base: The common ancestor.
        experts: The experts by name; the names appear in the messages.
        output: Where the merged checkpoint will be written, or None if it won't.
        dtype: The dtype of the merged checkpoint.
    """
    problems: list[str] = []
    warnings: list[str] = []
    if dtype not in _OUTPUT_DTYPES:
        names = ", ".join(str(allowed).removeprefix("torch.") for allowed in _OUTPUT_DTYPES)
        problems.append(f"output dtype {str(dtype).removeprefix('torch.')} is not one of {names}")
    if base.adapter is not None:
        warnings.append(f"base: {base.ref} has an adapter; a base is usually a full checkpoint")
    for name, expert in experts.items():
        if expert.checkpoint is not base.checkpoint:
            problems += _architecture_problems(name, base, expert)
            problems += tensor_problems(name, base, expert)
            if base.checkpoint.config and expert.checkpoint.config and _rope_base(expert) != _rope_base(base):
                warnings.append(
                    f"expert {name!r}: rope_theta is {_rope_base(expert)!r}, and {_rope_base(base)!r} in the "
                    "base, which the merge takes; skill in long contexts may suffer"
                )
            if bool(expert.checkpoint.aliases) != bool(base.checkpoint.aliases):
                warnings.append(f"expert {name!r}: only one of it and the base has a tied head; the merge's is untied")
        vocabulary, other = tokenizer_findings(name, base, expert)
        problems += vocabulary
        warnings += other
    layout = output_layout([base, *experts.values()])
    disk = layout.nbytes(dtype) + SMALL_FILES_BYTES
    memory = _memory(layout, [base, *experts.values()])
    if output is not None and (free := free_bytes(output)) < disk:
        problems.append(
            f"{output}: the merged checkpoint takes {disk / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "free space or choose another disk"
        )
    if (available := available_memory()) is not None and available < memory:
        warnings.append(
            f"a live merge takes about {memory / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are available"
        )
    parameters = sum(prod(shape) for shape in layout.shapes.values())
    return PreflightReport(tuple(problems), tuple(warnings), disk, memory, parameters)


def _architecture_problems(name: str, base: ModelSource, expert: ModelSource) -> list[str]:
    one, other = base.checkpoint.config, expert.checkpoint.config
    problems: list[str] = []
    if not one or not other:  # raw weights say nothing about their architecture; names and shapes must do
        return problems
    if one.get("architectures") != other.get("architectures"):
        problems.append(
            f"expert {name!r}: architecture {other.get('architectures')!r}, but the base has "
            f"{one.get('architectures')!r}"
        )
    for key in _ARCHITECTURE_KEYS:
        ours, theirs = text_config(one).get(key), text_config(other).get(key)
        if ours is not None and theirs is not None and ours != theirs:
            problems.append(f"expert {name!r}: {key} is {theirs!r} in its config, but {ours!r} in the base's")
    return problems


def _rope_base(model: ModelSource) -> object:
    config = text_config(model.checkpoint.config)
    parameters = config.get("rope_parameters")  # transformers 5; a plain key before
    nested = parameters.get("rope_theta") if isinstance(parameters, Mapping) else None
    return config.get("rope_theta", nested)


def tensor_problems(name: str, base: ModelSource, expert: ModelSource, *, rows_differ: bool = False) -> list[str]:
    """Return why two models' tensors can't be merged, one item for each kind of difference; an empty list if they can.

    Integer and boolean tensors have no mean, so they must be equal. A tied head counts as there in either form.

    Args:
        name: The expert's name in the messages.
        base: The model to compare with.
        expert: The model that the messages are about.
        rows_differ: Embeddings and heads may have different numbers of rows, as their vocabularies are mapped.
    """
    ours, others = (_shapes(model, without_rows=rows_differ) for model in (base, expert))
    known = base.tensors.keys() | base.checkpoint.aliases.keys()
    theirs = expert.tensors.keys() | expert.checkpoint.aliases.keys()
    problems = []
    if missing := sorted(base.tensors.keys() - theirs):
        problems.append(f"expert {name!r}: lacks {len(missing)} tensors that the base has: {listed(missing)}")
    if extra := sorted(expert.tensors.keys() - known):
        problems.append(f"expert {name!r}: has {len(extra)} tensors that the base lacks: {listed(extra)}")
    shapes = [
        f"{tensor!r} {list(others[tensor])} instead of {list(ours[tensor])}"
        for tensor in sorted(ours.keys() & others.keys())
        if ours[tensor] != others[tensor]
    ]
    if shapes:
        rest = f" and {len(shapes) - 8} more" if len(shapes) > 8 else ""
        problems.append(f"expert {name!r}: other shapes than the base: {', '.join(shapes[:8])}{rest}")
    return problems + _buffer_problems(name, base, expert)


def _shapes(model: ModelSource, *, without_rows: bool) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors; those with one row per token without the rows, if asked."""
    shapes = {name: info.shape for name, info in model.tensors.items()}
    return shapes | {name: shapes[name][1:] for name in embedding_names(shapes) if without_rows}


def _buffer_problems(name: str, base: ModelSource, expert: ModelSource) -> list[str]:
    """Return the integer and boolean tensors that differ: they have no mean, so only equal ones can be kept."""
    differing = [
        tensor
        for tensor in sorted(base.tensors.keys() & expert.tensors.keys())
        if not (base.tensors[tensor].dtype.is_floating_point and expert.tensors[tensor].dtype.is_floating_point)
        and base.tensors[tensor].shape == expert.tensors[tensor].shape
        and not _same_values(base, expert, tensor)
    ]
    if not differing:
        return []
    kinds = sorted({DTYPE_NAMES[model.tensors[tensor].dtype] for tensor in differing for model in (base, expert)})
    return [
        f"expert {name!r}: tensors in {', '.join(kinds)} differ from the base's, and integers can't be merged: "
        f"{listed(differing)}"
    ]


def _same_values(base: ModelSource, expert: ModelSource, tensor: str) -> bool:
    one, other = base.read(tensor), expert.read(tensor)
    return one.dtype == other.dtype and torch.equal(one, other)


def tokenizer_findings(name: str, base: ModelSource, expert: ModelSource) -> tuple[list[str], list[str]]:
    """Return how a model's tokenizer differs from the base's: what makes a merge meaningless, and what is to be known.

    The first are differences of the vocabulary, for which the same row means different tokens; the second those of
    special tokens' roles and chat templates.
    """
    one, other = base.tokenizer_directory, expert.tokenizer_directory
    if one.resolve() == other.resolve() or not (_has_tokenizer(one) or _has_tokenizer(other)):
        return [], []
    try:
        vocabulary, rest = vocabulary_differences(one, other), template_differences(one, other)
    except CheckpointError as error:
        return [], [f"expert {name!r}: its tokenizer could not be compared with the base's: {error}"]
    return (
        [f"expert {name!r}: the tokenizer differs from the base's: {difference}" for difference in vocabulary],
        [f"expert {name!r}: differs from the base in {difference}" for difference in rest],
    )


def _has_tokenizer(directory: Path) -> bool:
    return any((directory / name).exists() for name in TOKENIZER_FILES)


def _memory(layout: OutputLayout, models: Iterable[ModelSource]) -> int:
    models = list(models)
    largest = max((prod(shape) for shape in layout.shapes.values()), default=0)
    adapters = sum(model.adapter.size_bytes for model in models if model.adapter is not None)
    return layout.nbytes(torch.float32) + adapters + 4 * largest * (len(models) + 1)


def available_memory() -> int | None:
    """Return the bytes that the system can give without swapping, or None where it doesn't say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = next(chain((line for line in lines if line.startswith("MemAvailable:")), [""]))
    return int(found.split()[1]) * 1024 if found else None
