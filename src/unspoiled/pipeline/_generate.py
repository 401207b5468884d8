"""The stage that makes D_safety, D_expert and D_benign with the models of the bunch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from unspoiled.checkpoints import ModelSource, chat_template
from unspoiled.data import (
    Asked,
    Question,
    Row,
    ask_benign_questions,
    ask_domain_questions,
    ask_unsafe_questions,
    benign_rows,
    curate_questions,
    expert_rows,
    read_rows,
    require_no_leak,
    safety_rows,
    write_rows,
)
from unspoiled.errors import DataError
from unspoiled.files import read_jsonl, write_jsonl_atomic
from unspoiled.inference import Prompt, Sample, TransformersBackend, counted
from unspoiled.pipeline._bunch import BASE, BENIGN_QUESTIONER, QUESTIONER, Bunch, taxonomy_of
from unspoiled.pipeline._directory import Counts, RunDirectory
from unspoiled.pipeline._progress import Watcher

SAFETY, EXPERT, BENIGN = "safety", "expert", "benign"


def generate(bunch: Bunch, run: RunDirectory, watcher: Watcher) -> list[Row]:
    """Make D_safety and D_expert (arXiv 2406.14563) and D_benign, or read them if they are there.

    The questioner asks by category and every expert answers; the guard marks the refusals, of which one is
    drawn at random. Each domain's expert writes questions of its domain and answers them. The base writes harmless
    questions, and every model answers them. What repeats a question or a test prompt, is degenerate or cut off, is
    dropped and counted.

    Returns:
        The rows of all sets, search and selection split together.

    Raises:
        DataError: A model's output is unusable, a set or split comes out empty, or a test prompt leaked in.
    """
    stage = _Generation(bunch, run, watcher)
    watcher.begin("generate")
    worked = stage.safety()
    for domain, expert in bunch.config.domain_experts.items():
        worked |= stage.domain(domain, expert)
    kinds = [SAFETY, EXPERT]
    if bunch.config.generate.benign_questions:
        worked |= stage.benign()
        kinds.append(BENIGN)
    if not worked:
        watcher.kept("generate")
    rows = [*read_rows(stage.folder / "safety.jsonl")]
    for domain in bunch.config.domain_experts:
        own = read_rows(stage.folder / f"expert-{domain}.jsonl")
        if not own:  # the other domains' rows would hide that nothing speaks for this one
            raise DataError(
                f"the domain {domain!r} has no row left: raise generate.expert_questions, or generate.max_new_tokens "
                f"if its answers were cut off. Yields: {yields(bunch, run)[f'D_expert ({domain})']}"
            )
        rows += own
    if BENIGN in kinds:
        rows += read_rows(stage.folder / "benign.jsonl")
    require_no_leak([row.prompt for row in rows], bunch.test_index)
    for kind in kinds:
        for split in ("search", "selection"):
            if not any(row.set == kind and row.split == split for row in rows):
                raise DataError(
                    f"D_{kind} has no row in the {split} split: raise generate.{kind}_questions, or change "
                    f"generate.selection_share. Yields: {yields(bunch, run)}"
                )
    return rows


def yields(bunch: Bunch, run: RunDirectory) -> dict[str, dict[str, int]]:
    """Return what became of the questions, by data set: requests, malformed, duplicates, ..., kept."""
    found = {"D_safety": {**run.counts("questions:safety"), **run.counts("dataset:safety")}}
    for domain in bunch.config.domain_experts:
        found[f"D_expert ({domain})"] = {
            **run.counts(f"questions:{domain}"),
            **run.counts(f"dataset:{domain}"),
        }
    if bunch.config.generate.benign_questions:
        found["D_benign"] = {**run.counts("questions:benign"), **run.counts("dataset:benign")}
    return found


class _Generation:
    """The steps of the stage, each with its file in the run directory."""

    def __init__(self, bunch: Bunch, run: RunDirectory, watcher: Watcher) -> None:
        self._bunch, self._run, self._watcher = bunch, run, watcher
        self._config = bunch.config.generate
        self._asked: list[Question] = []  # by all sets so far: what nearly repeats one of them is dropped
        self._asked_by: list[str] = []  # the digests of the steps that asked them
        self.folder = run.path / "data"
        (self.folder / "questions").mkdir(parents=True, exist_ok=True)
        (self.folder / "answers").mkdir(exist_ok=True)

    def safety(self) -> bool:
        """Make `safety.jsonl`; return whether there was anything to do."""
        config, bunch = self._config, self._bunch

        def ask() -> Asked:
            questioner = bunch.bunch_of(bunch.questioner).take_model(bunch.questioner)
            return ask_unsafe_questions(
                questioner,
                name=QUESTIONER,
                categories=taxonomy_of(bunch.config),
                count=config.safety_questions,
                seed=config.seed,
                progress=self._progress("unsafe questions"),
            )

        questions_step = "questions:safety"
        inputs = [bunch.questioner.fingerprint(), taxonomy_of(bunch.config), config.safety_questions, config.seed]
        worked, questions = self._questions(questions_step, inputs, self.folder / "questions" / "safety.jsonl", ask)
        answers: dict[str, list[Sample]] = {}
        for name, source in bunch.experts.items():
            done, answers[name] = self._answers(questions_step, "safety", name, source, questions)
            worked |= done
        output = self.folder / "safety.jsonl"

        def choose() -> Counts:
            rows, counts = safety_rows(
                questions, answers, bunch.guard, seed=config.seed, selection_share=config.selection_share
            )
            if not rows:
                raise DataError(
                    f"no expert refused any of {len(questions)} unsafe questions, so there is nothing to learn "
                    "refusals from: add an aligned expert to the bunch."
                )
            write_rows(output, rows)
            return counts

        inputs = [self._run.digest(f"answers:safety:{name}") for name in answers]
        return worked | self._run.step(
            "dataset:safety", [*inputs, bunch.guard.name, config.selection_share], [output], choose
        )

    def domain(self, domain: str, expert: str) -> bool:
        """Make `expert-DOMAIN.jsonl`; return whether there was anything to do."""
        config, bunch = self._config, self._bunch
        domains = list(bunch.config.domain_experts)
        count = -(-config.expert_questions // len(domains))
        description = bunch.config.domains[domain].description or domain

        def ask() -> Asked:
            return ask_domain_questions(
                bunch.live.take_model(bunch.experts[expert]),
                name=expert,
                domain=domain,
                description=description,
                examples=bunch.examples[domain],
                count=count,
                seed=config.seed,
                progress=self._progress(f"{domain} questions"),
            )

        questions_step = f"questions:{domain}"
        path = self.folder / "questions" / f"{domain}.jsonl"
        worked, questions = self._questions(
            questions_step,
            [bunch.experts[expert].fingerprint(), description, count, config.seed, bunch.examples[domain]],
            path,
            ask,
        )
        done, answers = self._answers(questions_step, domain, expert, bunch.experts[expert], questions)
        output = self.folder / f"expert-{domain}.jsonl"

        def pair() -> Counts:
            rows, counts = expert_rows(questions, answers, selection_share=config.selection_share)
            write_rows(output, rows)
            return counts

        inputs = [self._run.digest(f"answers:{domain}:{expert}"), config.selection_share]
        return worked | done | self._run.step(f"dataset:{domain}", inputs, [output], pair)

    def benign(self) -> bool:
        """Make `benign.jsonl`; return whether there was anything to do."""
        config, bunch = self._config, self._bunch
        writer = BASE if config.benign_questioner is None else BENIGN_QUESTIONER
        step = "questions:benign"

        def ask() -> Asked:
            return ask_benign_questions(
                bunch.bunch_of(bunch.benign_questioner).take_model(bunch.benign_questioner),
                name=writer,
                categories=taxonomy_of(bunch.config),
                count=config.benign_questions,
                seed=config.seed,
                progress=self._progress("harmless questions"),
            )

        inputs = [
            bunch.benign_questioner.fingerprint(), taxonomy_of(bunch.config), config.benign_questions, config.seed,
        ]  # fmt: skip
        worked, questions = self._questions(step, inputs, self.folder / "questions" / "benign.jsonl", ask)
        answers: dict[str, list[Sample]] = {}
        for name, source in {BASE: bunch.base, **bunch.experts}.items():
            done, answers[name] = self._answers(step, BENIGN, name, source, questions)
            worked |= done
        output = self.folder / "benign.jsonl"
        chats = chat_template(bunch.base.tokenizer_directory) is not None  # a pretrained base only continues texts
        preferred = [bunch.config.safety_expert, *([BASE] if chats else [])]

        def choose() -> Counts:
            rows, counts = benign_rows(
                questions,
                answers,
                bunch.guard,
                preferred=preferred,
                seed=config.seed,
                selection_share=config.selection_share,
            )
            write_rows(output, rows)
            return counts

        before = [self._run.digest(f"answers:benign:{name}") for name in answers]
        inputs = [*before, bunch.guard.name, preferred, config.seed, config.selection_share]
        return worked | self._run.step("dataset:benign", inputs, [output], choose)

    def _questions(
        self, step: str, inputs: object, path: Path, ask: Callable[[], Asked]
    ) -> tuple[bool, list[Question]]:
        def make() -> Counts:
            asked = ask()
            earlier = [question.text for question in self._asked]
            questions, dropped = curate_questions(asked.questions, self._bunch.test_index, earlier)
            write_jsonl_atomic(path, [asdict(question) for question in questions])
            return asked.yields + Counter({name: n for name, n in dropped.items() if n})

        worked = self._run.step(step, [inputs, self._asked_by], [path], make)
        questions = [Question(**row) for row in read_jsonl(path)]
        self._asked += questions
        self._asked_by.append(self._run.digest(step))
        return worked, questions

    def _answers(
        self, after: str, group: str, name: str, source: ModelSource, questions: Sequence[Question]
    ) -> tuple[bool, list[Sample]]:
        path = self.folder / "answers" / f"{group}+{name}.jsonl"  # "-" would make one name of a-b by c and a by b-c

        def make() -> None:
            backend: TransformersBackend = self._bunch.live.take_model(source)
            samples = backend.generate(
                [Prompt(question.text) for question in questions],
                max_new_tokens=self._config.max_new_tokens,
                on_sample=counted(self._progress(f"{name} answers {group}"), len(questions)),
            )
            rows = [{"prompt": q.text, **asdict(sample)} for q, sample in zip(questions, samples, strict=True)]
            write_jsonl_atomic(path, rows)

        inputs = [self._run.digest(after), source.fingerprint(), self._config.max_new_tokens]
        worked = self._run.step(f"answers:{group}:{name}", inputs, [path], make)
        samples = [Sample(row["text"], row["tokens"], row["finished"]) for row in read_jsonl(path)]
        return worked, samples

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._watcher.advance(what, done, total)
