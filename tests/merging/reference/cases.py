"""Read the cases that `make.py` wrote."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference.inputs import Models, tensor_shapes, write_models
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """A recipe and what mergekit made of it.

    Attributes:
        name: `METHOD/WHAT` or `layers/WHAT`.
        recipe: mergekit's recipe as plain data; its models are the directories that `write_inputs` writes.
        expected: Some of the merged tensors, in float32.
    """

    name: str
    recipe: dict[str, Any]
    expected: dict[str, Tensor]


def load_cases() -> list[Case]:
    """Return every case, in the order of `wanted.py`."""
    found = json.loads((HERE / "cases.json").read_text())
    values = load_file(HERE / "values.safetensors")
    shapes = tensor_shapes()
    cases = []
    for name, case in found["cases"].items():
        names = case.get("tensors", found["method_tensors"])
        sizes = [shapes[_first_layer(tensor)] for tensor in names]
        parts = values[name].split([math.prod(size) for size in sizes])
        expected = {tensor: part.view(size) for tensor, part, size in zip(names, parts, sizes, strict=True)}
        cases.append(Case(name, case["recipe"], expected))
    return cases


def write_inputs(directory: Path) -> Path:
    """Write the checkpoints `base`, `a`, `b` and `c` that the recipes name; return `directory`."""
    values = load_file(HERE / "values.safetensors")
    models: Models = {
        model: {name: values[f"{model}/{name}"] for name in tensor_shapes()} for model in ("base", "a", "b", "c")
    }
    write_models(models, directory)
    return directory


def _first_layer(tensor: str) -> str:
    """Return the same part's name in layer 0, since a merged model may have more layers than its inputs."""
    before, mark, after = tensor.partition("layers.")
    return before + mark + "0." + after.partition(".")[2] if mark else tensor
