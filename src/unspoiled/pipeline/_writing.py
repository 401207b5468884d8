"""What models write for the data sets and what guards say of it, kept sample by sample in the run directory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unspoiled.checkpoints import ModelSource
from unspoiled.config import ConsistencyConfig
from unspoiled.data import Asked, Curator, Question, SetName, write_dropped
from unspoiled.files import hash_value, read_jsonl, write_jsonl_atomic
from unspoiled.guards import KeptGuard, Verdict, read_verdict, require_parsed
from unspoiled.inference import Exchange, Generator, KeptGenerator, Prompt, Sample, counted
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._data_sets import dropped_files
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._progress import Watcher


class Writing:
    """The questions, answers and verdicts of a run.

    Below `data/`: `questions/` and what was dropped of them in `dropped/`, `answers/`, `verdicts/`; and in `replies/`,
    every reply to a request for questions as it was written.
    """

    def __init__(self, bunch: Bunch, run: RunDirectory, watcher: Watcher) -> None:
        self._bunch, self._run, self._watcher = bunch, run, watcher
        self._config = bunch.config.generate
        # By all sets so far: what nearly repeats one of them is dropped.
        self._asked: dict[SetName, list[Question]] = {}
        self._asked_by: list[str] = []  # the digests of the steps that asked them
        self._folder = run.path / "data"
        for name in ("questions", "dropped", "answers", "verdicts", "replies"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)

    def curator(self) -> Curator:
        """Return what drops questions that repeat those of the sets before, a test prompt or an example."""
        shown = [text for examples in self._bunch.examples.values() for text in examples.prompts]
        bunch = self._bunch
        curator = Curator(bunch.test_prompts, shown, self._config.languages, answers=bunch.test_answers)
        for name, questions in self._asked.items():
            curator.remember(questions, name)
        return curator

    def questions(
        self,
        name: str,
        kind: SetName,
        inputs: Sequence[object],
        identity: str,
        open_model: Callable[[], Generator],
        ask: Callable[[Generator], Asked],
    ) -> list[Question]:
        """Have a model write the questions of a data set.

        Args:
            name: The data set's name.
            kind: Which set it is, or is a part of.
            inputs: What the questions depend on beside the model, the texts of requests, the seed, the earlier sets and
                the test prompts.
            identity: A hash of the model.
            open_model: Returns the model; called when it has to write.
            ask: Puts the requests to it.
        """
        step, path = f"questions:{name}", self._folder / "questions" / f"{name}.jsonl"
        dropped = dropped_files(self._folder, name)[0]

        def make() -> Mapping[str, object]:
            asked = ask(self._kept(self._folder / "replies" / f"{name}.jsonl", identity, open_model))
            write_dropped(dropped, asked.dropped)
            write_jsonl_atomic(path, [asdict(question) for question in asked.questions])
            return asked.tally.plain()

        common = [self._config.seed, self._config.languages, self._bunch.templates.fingerprint, self._asked_by]
        tests = hash_value(self._bunch.test_prompts)
        self._run.step(step, [identity, *inputs, common, tests], [path, dropped], make)
        questions = [Question(**row) for row in read_jsonl(path)]
        self._asked.setdefault(kind, []).extend(questions)
        self._asked_by.append(self._run.digest(step))
        return questions

    def answers(self, name: str, model: str, source: ModelSource, questions: Sequence[Question]) -> list[Sample]:
        """Have a model answer the questions of a data set greedily."""
        path = self._folder / "answers" / f"{name}+{model}.jsonl"  # "-" would make one name of a-b by c and a by b-c
        inputs = [self._run.digest(f"questions:{name}"), source.fingerprint(), self._config.max_new_tokens]

        def make(generator: Generator) -> list[Sample]:
            return generator.generate(
                [Prompt(question.text) for question in questions],
                max_new_tokens=self._config.max_new_tokens,
                on_sample=counted(self.progress(f"{model} answers {name}"), len(questions)),
            )

        return self._samples(f"answers:{name}:{model}", inputs, path, source, [q.text for q in questions], make)

    def answers_again(
        self, name: str, model: str, source: ModelSource, questions: Sequence[Question], how: ConsistencyConfig
    ) -> list[list[Sample]]:
        """Have a model answer the questions of a data set several times, sampled; return each question's answers."""
        path = self._folder / "answers" / f"{name}+{model}+again.jsonl"
        asked = [question.text for question in questions for _ in range(how.samples)]
        inputs = [
            self._run.digest(f"questions:{name}"), source.fingerprint(), self._config.max_new_tokens,
            self._config.seed, how.samples, how.temperature,
        ]  # fmt: skip

        def make(generator: Generator) -> list[Sample]:
            return generator.generate(
                [Prompt(text) for text in asked],
                max_new_tokens=self._config.max_new_tokens,
                temperature=how.temperature,
                seed=self._config.seed,
                on_sample=counted(self.progress(f"{model} answers {name} again"), len(asked)),
            )

        samples = self._samples(f"answers:{name}:{model}:again", inputs, path, source, asked, make)
        return [samples[i : i + how.samples] for i in range(0, len(samples), how.samples)]

    def chosen(
        self, name: str, model: str, source: ModelSource, questions: Sequence[Question], choices: Sequence[str]
    ) -> tuple[list[Sample], list[float]]:
        """Have a model answer the questions of a data set by the likeliest of given choices.

        Returns:
            The answers, and the probability of each among the choices, from 0 to 1.
        """
        path = self._folder / "answers" / f"{name}+{model}.jsonl"
        asked = [Prompt(question.text) for question in questions]

        def make() -> None:
            scorer = self._bunch.live.take_model(source)
            scores = scorer.score([Exchange(prompt, choice) for prompt in asked for choice in choices])
            rows = []
            for i, question in enumerate(questions):
                own = scores[i * len(choices) : (i + 1) * len(choices)]
                best = max(range(len(choices)), key=lambda k: own[k].log_likelihood)
                share = 1 / sum(math.exp(score.log_likelihood - own[best].log_likelihood) for score in own)
                sample = Sample(choices[best], own[best].tokens, True)
                rows.append({"prompt": question.text, **asdict(sample), "probability": share})
            write_jsonl_atomic(path, rows)

        inputs = [self._run.digest(f"questions:{name}"), source.fingerprint(), choices]
        self._run.step(f"answers:{name}:{model}", inputs, [path], make)
        found = read_jsonl(path)
        return [_sample(row) for row in found], [row["probability"] for row in found]

    def verdicts(
        self, name: str, model: str, questions: Sequence[Question], samples: Sequence[Sample]
    ) -> list[Verdict]:
        """Have the guard judge a model's answers to the questions of a data set.

        Raises:
            DataError: More of its verdicts are unreadable than `generate.unparsed` allows.
        """
        path = self._folder / "verdicts" / f"{name}+{model}.jsonl"
        guard = self._bunch.data_guard

        def make() -> None:
            log = _log_of(path)
            verdicts = KeptGuard(guard, log, note=self._watcher.note).judge(
                [(question.text, sample.text) for question, sample in zip(questions, samples, strict=True)],
                progress=self.progress(f"{self._config.guard} judges {model}, {name}"),
            )
            require_parsed(verdicts, at_most=self._config.unparsed)
            write_jsonl_atomic(path, [asdict(verdict) for verdict in verdicts])
            log.unlink(missing_ok=True)

        inputs = [self._run.digest(f"answers:{name}:{model}"), guard.fingerprint, self._config.unparsed]
        self._run.step(f"verdicts:{name}:{model}", inputs, [path], make)
        return [read_verdict(row) for row in read_jsonl(path)]

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Return what tells the watcher how far a part of the stage is."""
        return lambda done, total: self._watcher.advance(what, done, total)

    def _kept(self, log: Path, identity: str, open_model: Callable[[], Generator]) -> KeptGenerator:
        return KeptGenerator(log, model=identity, open=open_model, note=self._watcher.note)

    def _samples(
        self,
        step: str,
        inputs: Sequence[object],
        path: Path,
        source: ModelSource,
        asked: Sequence[str],
        make: Callable[[Generator], list[Sample]],
    ) -> list[Sample]:
        def write() -> None:
            log = _log_of(path)
            samples = make(self._kept(log, source.fingerprint(), lambda: self._bunch.open_writer(source)))
            rows = [{"prompt": text, **asdict(sample)} for text, sample in zip(asked, samples, strict=True)]
            write_jsonl_atomic(path, rows)
            log.unlink(missing_ok=True)

        self._run.step(step, inputs, [path], write)
        return [_sample(row) for row in read_jsonl(path)]


def _sample(row: Mapping[str, Any]) -> Sample:
    return Sample(row["text"], row["tokens"], row["finished"])


def _log_of(path: Path) -> Path:
    """Return where the samples or verdicts of a file are kept until it is whole."""
    return path.with_name(f"{path.stem}.unfinished.jsonl")
