"""The tasks of lm-evaluation-harness, and in-context questions from them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unspoiled.data._spread import spread_evenly
from unspoiled.errors import ConfigError, DataError


def read_task_questions(
    task: str, *, split: Literal["validation", "train"], limit: int, include: Path | None = None
) -> list[str]:
    """Return the questions of a task, as the harness puts them to a model; of a group, those of all of its tasks.

    Args:
        task: The name of a task or group.
        split: Which split to read; not the one that the harness evaluates the task on.
        limit: At most so many, spread evenly over what there is.
        include: A folder with task files beside the harness's own.

    Raises:
        ConfigError: The harness isn't installed, or has no such task.
        DataError: The task's data can't be loaded, it has no such split or is evaluated on it, or its questions are no
            text.
    """
    questions: list[str] = []
    for name, found in open_tasks([task], include=include).items():
        validation = split == "validation"
        if not (found.has_validation_docs() if validation else found.has_training_docs()):
            raise DataError(f"task {name!r} has no {split} split: name a JSONL file of questions, or the other split.")
        names = found.config
        if (names.test_split or names.validation_split) == (
            names.validation_split if validation else names.training_split
        ):
            raise DataError(
                f"task {name!r} is evaluated on its {split} split, which would be shown to the writers of questions: "
                "read its train split, or name a JSONL file of questions."
            )
        texts = [found.doc_to_text(doc) for doc in (found.validation_docs() if validation else found.training_docs())]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"task {name!r} puts no text as its question: name a JSONL file of questions.")
        questions += [text.strip() for text in texts if text.strip()]
    return spread_evenly(questions, limit)


def open_tasks(names: Sequence[str], *, include: Path | None = None) -> dict[str, Any]:
    """Return the harness's tasks of given names by their own names; a group gives all of its tasks.

    The harness's own tasks are indexed, which takes half a minute, only where a name isn't among those of `include`.

    Args:
        names: Tasks or groups.
        include: A folder with task files beside the harness's own.

    Raises:
        ConfigError: The harness isn't installed, or has no such task.
        DataError: A task's data can't be loaded.
    """
    try:
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError as error:
        raise ConfigError(
            f"{names[0]!r} is a task of lm-evaluation-harness, which isn't installed ({error}): "
            "pip install 'unspoiled[eval]'"
        ) from None
    if include is not None and not include.is_dir():
        raise ConfigError(f"{str(include)!r}, the folder of tasks, is no folder: correct the path.")
    folder = None if include is None else str(include)
    manager = TaskManager(include_path=folder, include_defaults=False) if folder else None
    if manager is None or not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    for name in names:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            hint = (
                f"; did you mean {near[0]!r}?" if near else f": `lm-eval ls tasks` lists all {len(manager.all_tasks)}."
            )
            raise ConfigError(f"lm-evaluation-harness has no task {name!r}{hint}")
    found: dict[str, Any] = {}
    for name in names:
        try:
            found |= _leaves(get_task_dict([name], manager))
        except Exception as error:  # whatever datasets raises where a hub can't be reached or a file isn't there
            raise DataError(f"the data of task {name!r} can't be loaded: {error or type(error).__name__}") from error
    return found


def _leaves(tasks: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, found in tasks.items():
        if isinstance(found, Mapping):
            yield from _leaves(found)
        else:
            yield str(name), found
