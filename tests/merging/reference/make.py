"""Ask mergekit for every case of `wanted.py`, and write what it answers.

    MERGEKIT_PYTHON tests/merging/reference/make.py

where MERGEKIT_PYTHON is the interpreter that `python benchmarks/mergekit_environment.py` prints. Writes beside
itself `values.safetensors` (the models as MODEL/TENSOR, and each case's merged tensors, flattened one after the
other, as CASE) and `cases.json` (the recipes, and which tensors are kept of them).
"""

import importlib.metadata
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from inputs import make_models, write_models
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save
from wanted import LAYER_SUFFIXES, LEFT_OUT, METHOD_TENSORS, wanted

HERE = Path(__file__).parent
SEED = 20240614


def main() -> None:
    """Merge all cases, each through the function behind mergekit's command."""
    torch.set_num_threads(1)
    models = make_models(SEED)
    values = {f"{model}/{name}": tensor for model, tensors in models.items() for name, tensor in tensors.items()}
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        write_models(models, Path(directory))
        os.chdir(directory)
        for case, recipe in wanted().items():
            merged = merge(recipe, Path("merged") / case)
            names = layer_tensors(merged) if case.startswith("layers/") else METHOD_TENSORS
            names = [name for name in names if name not in LEFT_OUT.get(case, [])]
            cases[case] = {"recipe": recipe} | ({"tensors": names} if names != METHOD_TENSORS else {})
            values[case] = torch.cat([merged[name].flatten() for name in names])
    found = {"mergekit": importlib.metadata.version("mergekit"), "torch": torch.__version__, "seed": SEED}
    lines = [f"{json.dumps(case)}: {json.dumps(content)}" for case, content in cases.items()]
    head = json.dumps(found | {"method_tensors": METHOD_TENSORS})
    (HERE / "cases.json").write_text(f'{head[:-1]}, "cases": {{\n' + ",\n".join(lines) + "\n}}\n")
    (HERE / "values.safetensors").write_bytes(save(values))


def merge(recipe: dict[str, Any], destination: Path) -> dict[str, torch.Tensor]:
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, clone_tensors=True, random_seed=0)
    run_merge(MergeConfiguration.model_validate(recipe), str(destination), options=options)
    return {
        name: tensor for path in sorted(destination.glob("*.safetensors")) for name, tensor in load_file(path).items()
    }


def layer_tensors(merged: dict[str, torch.Tensor]) -> list[str]:
    """Return the tensors kept of a case about layers, in the order in which they are stored."""
    outer = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    count = sum(name.endswith(LAYER_SUFFIXES[0]) for name in merged)
    return outer + [f"model.layers.{at}.{suffix}" for at in range(count) for suffix in LAYER_SUFFIXES]


if __name__ == "__main__":
    main()
