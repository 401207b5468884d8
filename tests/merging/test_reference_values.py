"""Our engine against mergekit: the same recipe in float32 gives the same weights.

`reference/make.py` asked mergekit; `DIFFERENCES` names the recipes where we differ on purpose.
"""

from pathlib import Path

import pytest
import torch
import yaml
from reference.cases import Case, load_cases, write_inputs

from unspoiled.config import parse_recipe
from unspoiled.errors import UnspoiledError
from unspoiled.merging import MergePlan, Models

DIFFERENCES = {
    "linear/base_unlisted": "a base that isn't listed and has no part in the formula is refused, not merged as a model",
    "karcher/base_unlisted": "the same",
    "task_arithmetic/weights_cancel": "normalize with weights that sum to 0 is refused; mergekit skips the division",
    "layers/modules": "modules are refused by name",
    "layers/more_sources_in_the_last_slice": "the final norm and the head are merged from all sources of the last "
    "slice; mergekit takes only as many as the first slice has",
}
"""Case → why our weights differ from mergekit's, or why we refuse what it merges."""

CASES = load_cases()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("reference"))


def ours(case: Case, inputs: Path) -> dict[str, torch.Tensor]:
    recipe = parse_recipe(yaml.safe_dump(case.recipe, sort_keys=False), source=case.name)
    plan = MergePlan(recipe, Models.open([recipe], inputs))
    return {name: plan.tensors[name].merged() for name in case.expected}


def agree(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_merged_weights_are_mergekits(case: Case, inputs: Path) -> None:
    if case.name not in DIFFERENCES:
        agree(ours(case, inputs), case.expected)
        return
    with pytest.raises((AssertionError, UnspoiledError)):  # a difference that is gone leaves the list
        agree(ours(case, inputs), case.expected)


def test_the_listed_differences_are_cases() -> None:
    assert not DIFFERENCES.keys() - {case.name for case in CASES}
