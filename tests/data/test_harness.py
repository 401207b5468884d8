"""In-context questions from tasks of lm-evaluation-harness: real local tasks, and what is refused of them."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from unspoiled.data import read_task_questions
from unspoiled.errors import ConfigError, DataError

pytestmark = pytest.mark.slow  # the harness reads its thousands of tasks first

SPLITS = {"train": 12, "validation": 9, "test": 5}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the harness and of datasets
        yield


def task(folder: Path, **changes: Any) -> Path:
    """Write a task with its data; return the folder to include."""
    files = {}
    for split, count in SPLITS.items():
        rows = [{"question": f" What is {i} + 1 in {split}? ", "answer": str(i + 1), "number": i} for i in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = str(folder / f"{split}.jsonl")
    settings: dict[str, Any] = {
        "task": "tiny_sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        **changes,
    }
    (folder / "tasks").mkdir()
    (folder / "tasks" / "tiny.yaml").write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
    return folder / "tasks"


def test_questions_are_the_splits_own_spread_evenly(tmp_path: Path) -> None:
    include = task(tmp_path)
    found = read_task_questions("tiny_sums", split="validation", limit=3, include=include)
    assert found == [f"What is {i} + 1 in validation?" for i in (0, 3, 6)]
    assert len(read_task_questions("tiny_sums", split="train", limit=99, include=include)) == SPLITS["train"]


def test_the_split_that_a_task_is_evaluated_on_is_refused(tmp_path: Path) -> None:
    include = task(tmp_path, test_split=None)  # the harness then evaluates on the validation split
    with pytest.raises(DataError, match="'tiny_sums' is evaluated on its validation split"):
        read_task_questions("tiny_sums", split="validation", limit=3, include=include)
    assert read_task_questions("tiny_sums", split="train", limit=1, include=include) == ["What is 0 + 1 in train?"]


def test_a_task_whose_question_is_a_number_is_refused(tmp_path: Path) -> None:
    """WinoGrande's `doc_to_text` is the index of the right option."""
    with pytest.raises(DataError, match="puts no text as its question"):
        read_task_questions("tiny_sums", split="train", limit=3, include=task(tmp_path, doc_to_text="number"))


def test_an_unknown_task_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task 'tiny_sumz'; did you mean 'tiny_sums'"):
        read_task_questions("tiny_sumz", split="train", limit=3, include=task(tmp_path))


def test_data_that_can_not_be_loaded_is_said(tmp_path: Path) -> None:
    include = task(tmp_path)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match="the data of task 'tiny_sums' can't be loaded"):
        read_task_questions("tiny_sums", split="train", limit=3, include=include)
