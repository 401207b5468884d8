"""Tasks of lm-evaluation-harness, put to a model that is already in memory."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from unspoiled.data import open_tasks, spread_evenly
from unspoiled.errors import ConfigError, DataError
from unspoiled.evaluate._measures import TASK_PREFIX
from unspoiled.evaluate._outcomes import Outcome
from unspoiled.files import hash_value
from unspoiled.inference import TransformersBackend

_TRUE_OR_FALSE = frozenset({"acc", "acc_norm", "acc_mutual_info", "exact_match", "em", "pass@1"})
"""The harness's metrics that are 0 or 1 for each row, of most tasks: those that rates are counted of."""


@dataclass(frozen=True)
class HarnessTask:
    """A task with the metric that it is measured by.

    Args:
        name: The task's name.
        metric: One of its metrics.
        task: The harness's task.
        chat: Whether questions are put under the model's chat template.
        limit: Put at most this many rows, spread evenly.
    """

    name: str
    metric: str
    task: Any
    chat: bool
    limit: int | None

    @property
    def rows(self) -> list[int]:
        """The numbers of the rows that are put."""
        return spread_evenly(range(len(self.task.eval_docs)), self.limit)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what a model's outcomes depend on beside the model: the task's config and its rows."""
        docs = self.task.eval_docs
        config = self.task.dump_config()
        shown = list(self.task.fewshot_docs()) if self.task.config.num_fewshot else []
        plain = json.dumps([config, [docs[i] for i in self.rows], shown], sort_keys=True, default=_definition)
        return hash_value([plain, self.metric, self.chat, version("lm_eval")])

    @property
    def prompts(self) -> list[str]:
        """The questions that are put."""
        docs = self.task.eval_docs
        return [self.question(docs[i]) for i in self.rows]

    def question(self, doc: Mapping[str, Any]) -> str:
        """Return a row's question; where the harness puts one of several texts, every text of the row."""
        text = self.task.doc_to_text(doc)
        return text if isinstance(text, str) else " ".join(value for value in doc.values() if isinstance(value, str))

    @property
    def answers(self) -> list[str]:
        """The right answers that are texts, and the choices."""
        docs = self.task.eval_docs
        found = []
        for i in self.rows:
            target = self.task.doc_to_target(docs[i])
            found += [target] if isinstance(target, str) else []
            found += [choice for choice in self._choices(docs[i]) if isinstance(choice, str)]
        return found

    def _choices(self, doc: Mapping[str, Any]) -> Sequence[object]:
        if not hasattr(self.task, "doc_to_choice") or self.task.config.doc_to_choice is None:
            return []
        choices = self.task.doc_to_choice(doc)
        return choices if isinstance(choices, list | tuple) else []


def open_harness_tasks(
    names: Sequence[str], *, folder: Path | None = None, chat: bool = True, limit: int | None = None
) -> list[HarnessTask]:
    """Open tasks by name; a group gives all of its tasks.

    Args:
        names: `TASK`, or `TASK/METRIC` for another than the task's first metric, such as `arc_challenge/acc_norm`.
        folder: A folder with task files beside the harness's own.
        chat: Whether questions are put under the model's chat template.
        limit: Put at most this many rows of each, spread evenly.

    Raises:
        ConfigError: The harness isn't installed, has no such task, or the task no such metric.
        DataError: A task's data can't be loaded.
    """
    found: list[HarnessTask] = []
    for given in names:
        name, slash, metric = given.partition("/")
        with _quiet():
            tasks = open_tasks([name], include=folder)
        for own, task in tasks.items():
            metrics = list(task.aggregation())
            if slash and metric not in metrics:
                raise ConfigError(f"task {own!r} has no metric {metric!r}: it has {', '.join(metrics)}.")
            chosen = metric if slash else metrics[0]
            if not task.higher_is_better().get(chosen, True):
                raise ConfigError(
                    f"task {own!r}: less of {chosen!r} is better, and a task's measure is one of which more is: name "
                    f"another of its metrics ({', '.join(metrics)}) as {own}/METRIC."
                )
            if own in {earlier.name for earlier in found}:
                raise ConfigError(f"the task {own!r} is asked for twice: name it once, with one metric.")
            found.append(HarnessTask(own, chosen, task, chat, limit))
    return found


def _definition(value: object) -> object:
    """Return what JSON can't hold as it is defined: the same in every process, which an object's address is not."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return [type(value).__qualname__, vars(value)] if hasattr(value, "__dict__") else str(value)


def put(task: HarnessTask, backend: TransformersBackend) -> list[Outcome]:
    """Put a task to a model, in this process; return an outcome per row.

    Args:
        task: The task.
        backend: The model; its module and tokenizer are used as they are.

    Raises:
        DataError: The metric gives no number for each row.
    """
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    batch = backend.batch_size if isinstance(backend.batch_size, int) else 16
    with _quiet():
        model = HFLM(pretrained=backend.model, tokenizer=backend.template.tokenizer, backend="causal", batch_size=batch)
        found = simple_evaluate(
            model,
            tasks=[task.task],
            task_manager=TaskManager(include_defaults=False),  # it would index thousands of files to find none of them
            samples={task.name: task.rows},
            bootstrap_iters=0,
            apply_chat_template=task.chat,
            fewshot_as_multiturn=task.chat and bool(task.task.config.num_fewshot),
        )
    assert found is not None
    samples = found["samples"][task.name]
    first = samples[0]["filter"]
    return _outcomes(task, [sample for sample in samples if sample["filter"] == first])


def _outcomes(task: HarnessTask, samples: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Return an outcome per row: right or wrong where the metric says no more of any row, else its number."""
    values = [_value(task, sample) for sample in samples]
    is_rate = all(isinstance(value, bool) for value in values)
    is_rate |= task.metric in _TRUE_OR_FALSE and all(value in (0, 1) for value in values)
    return [_outcome(task, sample, value, is_rate) for sample, value in zip(samples, values, strict=True)]


def _value(task: HarnessTask, sample: Mapping[str, Any]) -> bool | float:
    value = sample.get(task.metric)
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bool | int | float):
        raise DataError(
            f"task {task.name!r}: its metric {task.metric!r} gives {value!r} for a row, and no number: name another "
            f"of its metrics ({', '.join(map(str, sample['metrics']))}) as {task.name}/METRIC."
        )
    return value


def _outcome(task: HarnessTask, sample: Mapping[str, Any], value: bool | float, is_rate: bool) -> Outcome:
    identity = f"{task.name}-{sample['doc_id']}"
    return Outcome(
        TASK_PREFIX + task.name,
        identity,
        task.question(sample["doc"]),
        _response(sample),
        identity,
        correct=bool(value) if is_rate else None,
        score=None if is_rate else float(value),
    )


def _response(sample: Mapping[str, Any]) -> str:
    """Return what the model wrote; of given continuations, the likeliest one."""
    answers = sample["filtered_resps"]
    if isinstance(answers[0], str):
        return answers[0]
    likelihoods = [float(answer[0]) for answer in answers if isinstance(answer, list | tuple)]
    continuations = [str(arguments[1]) for arguments in sample["arguments"] if len(arguments) > 1]
    if likelihoods and len(continuations) == len(likelihoods):
        return continuations[likelihoods.index(max(likelihoods))].strip()
    return str(answers[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the harness's own notes, warnings and progress bars, which are for its own users, and git's complaint.

    (It asks git for its own commit, wherever it runs.)
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    stderr = os.dup(2)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        logging.disable(disabled)
