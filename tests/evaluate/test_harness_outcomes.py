"""Tasks of the harness: known again in another process, and counted as rates where they are rates."""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from unspoiled.errors import DataError
from unspoiled.evaluate import HarnessTask, Outcome, scored_alike
from unspoiled.evaluate._harness import _outcomes


def loaded(folder: Path, body: str) -> Callable[[Any], str]:
    """Load a function from a file, as another process would: a new object each time."""
    path = folder / f"utils{len(list(folder.iterdir()))}.py"
    path.write_text(f"def shown(doc):\n    return {body}\n")
    spec = importlib.util.spec_from_file_location("utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Any], str] = module.shown
    return found


def fingerprint(**config: object) -> str:
    task = SimpleNamespace(
        eval_docs=[{"q": "a"}], dump_config=lambda: config, config=SimpleNamespace(num_fewshot=0), fewshot_docs=list
    )
    return HarnessTask("t", "acc", task, chat=True, limit=None).fingerprint


def test_a_task_with_functions_is_known_again_in_another_process(tmp_path: Path) -> None:
    def of(body: str) -> str:
        function = loaded(tmp_path, body)
        return fingerprint(fewshot_config={"doc_to_text": function}, filter_list=[partial(function, doc=1), Filter()])

    assert of("doc['q']") == of("doc['q']")
    assert of("doc['q']") != of("doc['q'].upper()")


class Filter:
    def __init__(self) -> None:
        self.pattern = "x"


def outcomes(metric: str, *values: object) -> list[Outcome]:
    task: Any = SimpleNamespace(name="t", metric=metric, question=lambda doc: "Which?")
    samples = [
        {"doc_id": i, "doc": {}, metric: value, "metrics": [metric], "filtered_resps": ["x"], "arguments": []}
        for i, value in enumerate(values)
    ]
    return _outcomes(task, samples)


@pytest.mark.parametrize(
    ("metric", "values", "correct", "scores"),
    [
        ("acc", [1.0, 0], [True, False], [None, None]),
        ("acc", [np.float64(0.25), 1.0], [None, None], [0.25, 1.0]),  # a share of probability, as truthfulqa_mc2 has
        ("prompt_level_strict_acc", [np.bool_(True), False], [True, False], [None, None]),
        ("f1", [0.0, 1.0], [None, None], [0.0, 1.0]),
    ],
)
def test_rows_that_are_right_or_wrong_make_a_rate(
    metric: str, values: list[object], correct: list[bool | None], scores: list[float | None]
) -> None:
    found = outcomes(metric, *values)
    assert [o.correct for o in found] == correct
    assert [o.score for o in found] == scores


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match=r"its metric 'acc' gives \[1\] for a row, and no number: name another"):
        outcomes("acc", [1])


def test_a_task_is_scored_alike_for_all_models() -> None:
    by_model = scored_alike({"a": outcomes("acc", 0.0, 1.0), "b": outcomes("acc", 0.5, 1.0)})
    assert [(o.correct, o.score) for o in by_model["a"]] == [(None, 0.0), (None, 1.0)]
    alone = {"a": outcomes("acc", 0.0, 1.0)}
    assert scored_alike(alone) == alone
