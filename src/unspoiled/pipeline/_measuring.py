"""Measuring models one after another, with everything kept: a second guard or metric costs no generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from unspoiled import __version__
from unspoiled.checkpoints import ModelSource, declared_license
from unspoiled.config import Dtype, MeasureConfig, RuntimeConfig
from unspoiled.errors import DataError
from unspoiled.evaluate import (
    Answer,
    HarnessTask,
    Outcome,
    TestSets,
    answer,
    base_scores,
    judge,
    put,
    read_outcomes,
    require_same_prompts,
    scored_alike,
    write_outcomes,
)
from unspoiled.guards import Guard, KeptGuard
from unspoiled.inference import KeptGenerator, KeptScorer, ResponseScore, TransformersBackend
from unspoiled.pipeline._device import compute_dtype
from unspoiled.pipeline._progress import Watcher

RESPONSES, SCORES, VERDICTS, TASKS = "responses.jsonl", "scores.jsonl", "verdicts.jsonl", "tasks"
_KEPT = "kept"


@dataclass(frozen=True)
class Candidate:
    """A model to measure.

    Args:
        identity: A hash of all that its answers depend on: weights, tokenizer, chat template, arithmetic.
        open: Returns it in memory; called only if something of it is not kept yet, and again after other models took
            the memory.
    """

    identity: str
    open: Callable[[], TransformersBackend]


def described_settings(how: MeasureConfig, runtime: RuntimeConfig, weights: Dtype) -> dict[str, str]:
    """Return, for the provenance, how models are measured: numbers measured otherwise can't be compared.

    Args:
        how: The settings.
        runtime: The machine.
        weights: The dtype of the weights.
    """
    sampled = f"temperature {how.temperature:g}, {how.seeds} a prompt" if how.temperature else "greedy"
    unlikely = "not looked for" if how.gibberish is None else f"beyond {how.gibberish:g} nats per token"
    return {
        "measured: longest response": f"{how.max_new_tokens} tokens",
        "measured: rows of a set": "all" if how.limit is None else f"at most {how.limit}",
        "measured: responses": sampled,
        "measured: gibberish": unlikely,
        "measured: arithmetic": compute_dtype(runtime, weights),
        **({"measured: tasks": "under the chat template" if how.tasks_chat else "bare"} if how.tasks else {}),
    }


def software_versions() -> dict[str, str]:
    """Return the versions that numbers depend on, by package."""
    return {"unspoiled": __version__, "torch": torch.__version__, "transformers": transformers.__version__}


def declared_licenses(models: Mapping[str, ModelSource]) -> dict[str, str]:
    """Return, for the provenance, the licences that models' own cards state; models without are left out."""
    found = {name: declared_license(source) for name, source in models.items()}
    return {f"license {name}": stated for name, stated in found.items() if stated is not None}


class Measuring:
    """Measures models on test sets, and keeps what they write and hold likely, and what guards say of it.

    In the folder: `NAME.jsonl`, every model's outcomes; and what they are made of in `kept/`: `responses.jsonl`,
    `scores.jsonl` and `verdicts.jsonl`, each record known by a hash of the model or guard, the prompt, and the
    settings; `tasks/` with the harness's outcomes by such a hash.

    Args:
        folder: Where; made if it isn't there.
        tests: The test sets.
        guards: The judges, by name.
        base: The model under which gibberish is unlikely; None leaves gibberish out.
        tasks: Tasks of lm-evaluation-harness.
        gibberish: The limit in nats per token; None leaves it out.
        unparsed: Share of a guard's verdicts that may be unreadable, from 0 to 1.
        watcher: Is told how it goes.
    """

    def __init__(
        self,
        folder: Path,
        tests: TestSets,
        guards: Mapping[str, Guard],
        *,
        base: Candidate | None,
        tasks: Sequence[HarnessTask],
        gibberish: float | None,
        unparsed: float,
        watcher: Watcher,
    ) -> None:
        self._folder, self._kept = folder, folder / _KEPT
        self._tests, self._watcher = tests, watcher
        self._guards = {
            name: KeptGuard(guard, self._kept / VERDICTS, note=watcher.note) for name, guard in guards.items()
        }
        self._base, self._tasks = base, tasks
        self._gibberish, self._unparsed = gibberish, unparsed
        self._kept.mkdir(parents=True, exist_ok=True)

    def outcomes(self, models: Mapping[str, Candidate]) -> dict[str, list[Outcome]]:
        """Measure models, and write their outcomes to `NAME.jsonl`; return them by name.

        Every model answers first, then the base says how likely the answers are, then the guards judge: so each is in
        memory once.

        Raises:
            DataError: A guard's verdicts are unreadable too often, or a log is damaged.
        """
        answers: dict[str, list[Answer]] = {}
        scored: dict[str, list[Outcome]] = {}
        for name, model in models.items():
            answers[name] = self._answers(name, model)
            scored[name] = [outcome for task in self._tasks for outcome in self._of_task(name, model, task)]
        scored = scored_alike(scored)
        likely = {name: self._likely(name, own) for name, own in answers.items()}
        found = {}
        for name, own in answers.items():
            judged = judge(
                own,
                self._guards,
                base=likely[name],
                gibberish=self._gibberish,
                unparsed=self._unparsed,
                progress=lambda guard, done, total, name=name: self._watcher.advance(  # type: ignore[misc]
                    f"{guard} judges {name}", done, total
                ),
            )
            found[name] = [*judged, *scored[name]]
            write_outcomes(self._folder / f"{name}.jsonl", found[name])
        require_same_prompts(found)
        return found

    def _answers(self, name: str, model: Candidate) -> list[Answer]:
        opened: list[TransformersBackend] = []

        def open_once() -> TransformersBackend:
            if not opened:
                self._watcher.advance(f"opening {name}", 0, 1)
                opened.append(model.open())
            return opened[0]

        note = self._watcher.note
        try:
            return answer(
                KeptGenerator(self._kept / RESPONSES, model=model.identity, open=open_once, note=note),
                KeptScorer(self._kept / SCORES, model=model.identity, open=open_once, note=note),
                self._tests,
                progress=lambda what, done, total: self._watcher.advance(f"{name}: {what}", done, total),
            )
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    def _of_task(self, name: str, model: Candidate, task: HarnessTask) -> list[Outcome]:
        path = self._kept / TASKS / f"{task.name}-{model.identity[:16]}-{task.fingerprint[:16]}.jsonl"
        if not path.exists():
            self._watcher.advance(f"{name}: {task.name}", 0, len(task.rows))
            path.parent.mkdir(exist_ok=True)
            write_outcomes(path, put(task, model.open()))
        return read_outcomes(path)

    def _likely(self, name: str, answers: Sequence[Answer]) -> list[ResponseScore | None] | None:
        if self._base is None or self._gibberish is None:
            return None
        log = self._kept / SCORES
        scorer = KeptScorer(log, model=self._base.identity, open=self._base.open, note=self._watcher.note)
        self._watcher.advance(f"how likely {name}'s texts are", 0, len(answers))
        return base_scores(scorer, answers)
