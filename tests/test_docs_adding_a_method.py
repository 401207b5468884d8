"""The example of docs/adding-a-method.md is a method that works: registered and merged in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from command import environment
from tiny import Bunch, tiny_expert
from unspoiled.config import parse_recipe

PAGE = Path(__file__).parents[1] / "docs" / "adding-a-method.md"

MERGE = """
import inspect
import sys
from pathlib import Path

from unspoiled.config import read_recipe
import torch

from unspoiled.merging import MergePlan, Models, get_method, merge_to_directory

registered = get_method("median_of_the_docs")
assert "arXiv" in registered.paper
for parameter in registered.parameters:
    assert parameter.argument in (inspect.getdoc(registered.merge) or "")
recipe = read_recipe(sys.argv[1])
models = Models.open([recipe], Path.cwd())
merge_to_directory(recipe, models, Path(sys.argv[2]))
tensor = MergePlan(recipe, models).tensors["model.norm.weight"]
found = tensor.coefficient_gradients(torch.ones(tensor.shape), {"weight", "lambda_"})
assert len(found["weight"]) == 3
assert found["lambda_"]
"""


def block(language: str, start: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (one,) = [text for text in found if text.startswith(start)]
    return one


def test_the_example_merges_by_the_median(bunch: Bunch, tmp_path: Path) -> None:
    """Of three full checkpoints, the third with half its weight, as the page's recipe has it."""
    another, third = (tiny_expert(bunch.base, tmp_path / str(seed), seed=seed) for seed in (5, 6))
    method = block("python", '"""Median').replace('"median"', '"median_of_the_docs"')
    (tmp_path / "merge.py").write_text(method + MERGE)
    recipe = parse_recipe(block("yaml", "merge_method: median"), PAGE.name)
    models = [entry.model for entry in recipe.models]
    names = {"models/base": str(bunch.base), **dict(zip(models, map(str, (bunch.full, another, third)), strict=True))}
    changed = {"merge_method": "median_of_the_docs", "dtype": "float32"}
    (tmp_path / "recipe.yaml").write_text(recipe.with_models(names).model_copy(update=changed).to_yaml())
    command = [sys.executable, "merge.py", "recipe.yaml", "merged"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    base, merged, *experts = (
        load_file(path / "model.safetensors") for path in (bunch.base, tmp_path / "merged", bunch.full, another, third)
    )
    for name, tensor in base.items():
        deltas = [w * (expert[name] - tensor) for w, expert in zip((1, 1, 0.5), experts, strict=True)]
        torch.testing.assert_close(merged[name], tensor + 1.2 * torch.stack(deltas).median(dim=0).values)


def test_the_test_row_has_a_value_for_each_of_the_three_models() -> None:
    row: dict[str, object] = {}
    exec(block("python", "PER_MODEL"), row)
    assert row["PER_MODEL"] == {"median": [{}, {}, {"weight": 0.5}]}
