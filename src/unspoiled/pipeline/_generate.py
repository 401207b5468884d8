"""The stage that makes D_safety, D_expert and D_benign with the models of the bunch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import get_args

from unspoiled.checkpoints import ModelSource, chat_template
from unspoiled.config import BASE
from unspoiled.data import (
    Answers,
    Asked,
    Drawing,
    Question,
    Row,
    SetName,
    Split,
    Tally,
    TemplateRefusals,
    Writer,
    ask_benign_questions,
    ask_domain_questions,
    ask_unsafe_questions,
    benign_rows,
    expert_rows,
    read_rows,
    require_apart,
    require_no_leak,
    safety_rows,
    shares_agreeing,
    write_dropped,
    write_rows,
)
from unspoiled.errors import DataError
from unspoiled.inference import Generator, Sample
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._data_card import write_data_card
from unspoiled.pipeline._data_sets import BENIGN, EXPERT, LONGEST_REPLY, SAFETY, data_sets, dropped_files
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._progress import Watcher
from unspoiled.pipeline._writing import Writing


def generate(bunch: Bunch, run: RunDirectory, watcher: Watcher) -> list[Row]:
    """Make D_safety and D_expert (arXiv 2406.14563) and D_benign, or read them if they are there.

    The questioner asks by category and every expert answers; the guard marks the refusals, of which one is
    drawn at random. Each domain's expert writes questions of its domain and answers them. The base writes harmless
    questions, and every model answers them. What repeats a question or a test prompt, is degenerate or cut off, is
    dropped and counted. Killed at any moment, the same call goes on where it was, to the sample.

    Returns:
        The rows of all sets, search and selection split together.

    Raises:
        DataError: A model's output is unusable, a guard's unreadable, a set or split comes out empty, or a test prompt
            leaked in.
    """
    stage = _Generation(bunch, run, watcher)
    watcher.begin("generate")
    before = run.steps_made
    stage.safety()
    for domain, expert in bunch.config.domain_experts.items():
        stage.domain(domain, expert)
    if bunch.config.generate.benign_questions:
        stage.benign()
    rows = _read_sets(bunch, run)
    require_no_leak([row.prompt for row in rows], bunch.held_out)
    search, selection = ([row.prompt for row in rows if row.split == split] for split in get_args(Split))
    require_apart(search, selection)
    write_data_card(bunch, run, rows, tallies(bunch, run))
    if run.steps_made == before:
        watcher.kept("generate")
    return rows


def tallies(bunch: Bunch, run: RunDirectory) -> dict[str, Tally]:
    """Return what became of the questions, by data set: requests, malformed, duplicates, ..., kept."""
    return {
        title: Tally.read(run.record(f"questions:{name}")).followed_by(Tally.read(run.record(f"dataset:{name}")))
        for name, title in data_sets(bunch).items()
    }


def _read_sets(bunch: Bunch, run: RunDirectory) -> list[Row]:
    """Return the rows of all sets, none of which may lack anything that the search needs."""
    rows: list[Row] = []
    for name, title in data_sets(bunch).items():
        is_domain = name in bunch.config.domain_experts
        own = read_rows(run.path / "data" / (f"expert-{name}.jsonl" if is_domain else f"{name}.jsonl"))
        if not own and is_domain:  # the other domains' rows would hide that nothing speaks for this one
            raise DataError(
                f"the domain {name!r} has no row left: raise generate.expert_questions, or generate.max_new_tokens "
                f"if its answers were cut off. Yields: {dict(tallies(bunch, run)[title].total)}"
            )
        rows += own
    kinds = [SAFETY, EXPERT, *([BENIGN] if bunch.config.generate.benign_questions else [])]
    for kind in kinds:
        for split in ("search", "selection"):
            if not any(row.set == kind and row.split == split for row in rows):
                counts = {title: dict(tally.total) for title, tally in tallies(bunch, run).items()}
                raise DataError(
                    f"D_{kind} has no row in the {split} split: raise generate.{kind}_questions, or change "
                    f"generate.selection_share. Yields: {counts}"
                )
    return rows


class _Generation:
    """The steps of the stage, each with its file in the run directory."""

    def __init__(self, bunch: Bunch, run: RunDirectory, watcher: Watcher) -> None:
        self._bunch, self._run = bunch, run
        self._config = bunch.config.generate
        self._writing = Writing(bunch, run, watcher)
        self._folder = run.path / "data"
        self._hashes = {BASE: bunch.base.fingerprint()}
        self._hashes |= {name: source.fingerprint() for name, source in bunch.experts.items()}
        askers = {asker.name: asker.fingerprint() for asker in (bunch.questioner, bunch.benign_questioner)}
        self._drawing = Drawing(self._config.seed, self._config.selection_share, self._hashes | askers)

    def safety(self) -> None:
        """Make `safety.jsonl`."""
        bunch, config = self._bunch, self._config
        names = [category.name for category in bunch.categories]
        asker = bunch.questioner

        def ask(generator: Generator) -> Asked:
            return ask_unsafe_questions(
                self._writer(generator, asker.name, SAFETY),
                self._writing.curator(),
                bunch.templates,
                categories=names,
                count=config.safety_questions,
                progress=self._writing.progress("unsafe questions"),
            )

        inputs = [names, config.safety_questions]
        questions = self._writing.questions(
            SAFETY, SAFETY, inputs, asker.fingerprint(), lambda: bunch.open_asker(asker), ask
        )
        answers = [self._answers(SAFETY, name, source, questions) for name, source in bunch.experts.items()]
        fallback = None
        if config.fallback == "templates":
            fallback = TemplateRefusals(bunch.templates.refusals, bunch.categories)

        def choose() -> tuple[list[Row], Tally]:
            rows, tally = safety_rows(
                questions, answers, self._drawing, target=config.target, fallback=fallback, guard=bunch.data_guard
            )
            if not rows:
                raise DataError(
                    f"no expert refused any of {len(questions)} unsafe questions, so there is nothing to learn "
                    "refusals from: add an aligned expert to the bunch, or take refusals from templates with "
                    "`generate.fallback: templates`."
                )
            return rows, tally

        extra = [config.target, None if fallback is None else fallback.fingerprint]
        self._data_set(SAFETY, "safety.jsonl", list(bunch.experts), extra, choose)

    def domain(self, domain: str, expert: str) -> None:
        """Make `expert-DOMAIN.jsonl`."""
        bunch, config = self._bunch, self._config
        source = bunch.experts[expert]
        count = -(-config.expert_questions // len(bunch.config.domain_experts))
        description = bunch.config.domains[domain].description or domain
        examples = bunch.examples[domain]

        def ask(generator: Generator) -> Asked:
            return ask_domain_questions(
                self._writer(generator, expert, EXPERT),
                self._writing.curator(),
                bunch.templates,
                domain=domain,
                description=description,
                examples=examples.prompts,
                count=count,
                progress=self._writing.progress(f"{domain} questions"),
            )

        questions = self._writing.questions(
            domain,
            EXPERT,
            [description, count, examples.prompts],
            source.fingerprint(),
            lambda: bunch.open_writer(source),
            ask,
        )
        how = config.consistency
        shares: list[float] = []
        if examples.choices:
            samples, shares = self._writing.chosen(domain, expert, source, questions, examples.choices)
        else:
            samples = self._writing.answers(domain, expert, source, questions)
            if how is not None:
                again = self._writing.answers_again(domain, expert, source, questions, how)
                shares = shares_agreeing(samples, again)
        answers = self._judged(domain, expert, questions, samples)

        def pair() -> tuple[list[Row], Tally]:
            least_share = 0.0 if how is None else how.agreement
            return expert_rows(questions, answers, self._drawing, shares=shares, least_share=least_share)

        extra = [examples.choices, None if how is None else how.model_dump()]
        self._data_set(domain, f"expert-{domain}.jsonl", [expert], extra, pair)

    def benign(self) -> None:
        """Make `benign.jsonl`."""
        bunch, config = self._bunch, self._config
        names = [category.name for category in bunch.categories]
        asker = bunch.benign_questioner

        def ask(generator: Generator) -> Asked:
            return ask_benign_questions(
                self._writer(generator, asker.name, BENIGN),
                self._writing.curator(),
                bunch.templates,
                categories=names,
                count=config.benign_questions,
                progress=self._writing.progress("harmless questions"),
            )

        inputs = [names, config.benign_questions]
        questions = self._writing.questions(
            BENIGN, BENIGN, inputs, asker.fingerprint(), lambda: bunch.open_asker(asker), ask
        )
        models = {BASE: bunch.base, **bunch.experts}
        answers = [self._answers(BENIGN, name, source, questions) for name, source in models.items()]
        chats = chat_template(bunch.base.tokenizer_directory) is not None  # a pretrained base only continues texts
        preferred = [bunch.config.safety_expert, *([BASE] if chats else [])]

        def choose() -> tuple[list[Row], Tally]:
            return benign_rows(
                questions, answers, self._drawing, preferred=preferred, judged_content=bunch.data_guard.judges_content
            )

        self._data_set(BENIGN, "benign.jsonl", list(models), [preferred], choose)

    def _writer(self, generator: Generator, name: str, kind: SetName) -> Writer:
        return Writer(generator, name, self._config.seed, LONGEST_REPLY[kind])

    def _answers(self, name: str, model: str, source: ModelSource, questions: Sequence[Question]) -> Answers:
        """Return a model's answers to the questions of a data set, judged."""
        return self._judged(name, model, questions, self._writing.answers(name, model, source, questions))

    def _judged(self, name: str, model: str, questions: Sequence[Question], samples: Sequence[Sample]) -> Answers:
        verdicts = self._writing.verdicts(name, model, questions, samples)
        return Answers(model, self._hashes[model], samples, verdicts)

    def _data_set(
        self,
        name: str,
        file: str,
        models: Sequence[str],
        extra: Sequence[object],
        choose: Callable[[], tuple[list[Row], Tally]],
    ) -> None:
        """Write a data set of what its models answered.

        Args:
            name: The data set's name.
            file: The file's name.
            models: Whose answers, judged, it is made of.
            extra: What it depends on beside these, the seed and the splits.
            choose: Makes the rows.
        """
        path, listed = self._folder / file, dropped_files(self._folder, name)[1]

        def make() -> Mapping[str, object]:
            chosen, tally = choose()
            rows, quoting = self._writing.curator().check_responses(chosen)
            for dropped in quoting:
                tally.count(dropped.reason, dropped.group)
                tally.count("kept", dropped.group, -1)
            write_dropped(listed, quoting)
            write_rows(path, rows)
            return tally.plain()

        judged = [self._run.digest(f"verdicts:{name}:{model}") for model in models]
        config = self._config
        self._run.step(f"dataset:{name}", [judged, config.seed, config.selection_share, *extra], [path, listed], make)
