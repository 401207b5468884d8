"""Measuring any models, that need have nothing to do with a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unspoiled.checkpoints import Checkpoint, ModelRef, ModelSource, chat_template, open_model
from unspoiled.config import REFUSAL_RULES, Dtype, EvaluationConfig, GuardConfig, MeasureConfig, RunConfig
from unspoiled.errors import ConfigError, RunDirectoryError
from unspoiled.evaluate import (
    HarnessTask,
    Outcome,
    Results,
    TestSets,
    compare,
    comparisons_csv,
    observed,
    open_harness_tasks,
    results_csv,
    scores,
    unreadable,
)
from unspoiled.files import RunLock, hash_file, write_atomic
from unspoiled.guards import Guard
from unspoiled.pipeline._attempts import Attempts
from unspoiled.pipeline._device import require_device
from unspoiled.pipeline._guards import open_configured
from unspoiled.pipeline._measuring import Candidate, Measuring, declared_licenses, described_settings, software_versions
from unspoiled.pipeline._memory import Memory
from unspoiled.pipeline._progress import Unwatched, Watcher
from unspoiled.pipeline._test_sets import read_test_sets
from unspoiled.report import NOT_TESTED, ReportInputs, side_by_side_rows, write_report

_OURS = frozenset({"evaluation", "results.json", "results.csv", "comparisons.csv", "report.html", "run.lock"})
_THE_BASE = "the base"  # whatever the measured models are called: their names have no spaces
_WEIGHTS: Dtype = "bfloat16"  # the dtype of weights in memory on machines that multiply in it; float32 on others


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        results: The rates and comparisons, as in `results.json`.
        outcomes: By model, what it did on each prompt.
        directory: Where everything is kept.
    """

    results: Results
    outcomes: Mapping[str, Sequence[Outcome]]
    directory: Path


@dataclass(frozen=True)
class _Opened:
    models: Mapping[str, ModelSource]
    base: ModelSource | None
    template: Path | None
    tests: TestSets
    tasks: Sequence[HarnessTask]
    guards: Mapping[str, Guard]


def evaluation_like(run: RunConfig, models: Mapping[str, str], output: Path) -> EvaluationConfig:
    """Return the evaluation of models on a run's test sets, by its guards, measured as the run measures.

    Args:
        run: The run's config; relative paths in it are of its directory.
        models: The models by name.
        output: Where to keep everything.
    """
    how = {name: getattr(run.evaluate, name) for name in MeasureConfig.model_fields}
    folder = run.evaluate.tasks_folder

    known = known_guards(run)
    return EvaluationConfig(
        **{**how, "tasks_folder": None if folder is None else run.locate(folder)},
        models=dict(models),
        base=_located(run, run.bunch.base),
        template=_located(run, run.bunch.experts[run.safety_expert].model),
        unsafe=run.locate(run.evaluate.unsafe),
        harmless=run.locate(run.evaluate.harmless),
        domains={name: run.locate(domain.test) for name, domain in run.domains.items()},
        guards={name: known[name] for name in run.evaluate.guards},
        runtime=run.runtime,
        output=output,
    )


def known_guards(run: RunConfig) -> dict[str, GuardConfig | None]:
    """Return every guard that a run's config can name, with absolute paths; None for the refusal rules."""

    def located(guard: GuardConfig) -> GuardConfig:
        model = _located(run, guard.model) if isinstance(guard.model, str) else guard.model
        policy = None if guard.policy is None else run.locate(guard.policy)
        return guard.model_copy(update={"model": model, "policy": policy})

    return {REFUSAL_RULES: None, **{name: located(guard) for name, guard in run.guards.items()}}


def _located(run: RunConfig, model: str) -> str:
    return str(ModelRef.parse(model, relative_to=run.directory))


def evaluate_models(
    config: EvaluationConfig,
    *,
    against: Sequence[str] = (),
    command: str = "unspoiled evaluate",
    watcher: Watcher | None = None,
) -> Evaluation:
    """Measure models, compare them, and write `results.json` and `report.html`; what was measured before is kept.

    Args:
        config: What to measure, and how.
        against: Compare every model with these alone. Default: every pair.
        command: What the report tells a reader to type.
        watcher: Is told how it goes.

    Raises:
        PreflightError: Something is wrong; the message lists everything that is.
        ConfigError: `against` names no model.
        DataError: A guard's verdicts are unreadable too often.
        RunDirectoryError: Another process works in the output directory, or it holds something else.
    """
    watcher = watcher or Unwatched()
    watcher.begin("evaluate")
    for name in against:
        if name not in config.models:
            raise ConfigError(f"--against {name!r} is none of the models {', '.join(map(repr, config.models))}.")
    _refuse_foreign(config.output)
    opened = _open(config)
    memory = Memory(config.runtime, _WEIGHTS, opened.template)

    def candidate(source: ModelSource) -> Candidate:
        return Candidate(memory.identity(source), lambda: memory.take(source))

    with RunLock(config.output):
        measuring = Measuring(
            config.output / "evaluation",
            opened.tests,
            opened.guards,
            base=None if opened.base is None else candidate(opened.base),
            tasks=opened.tasks,
            gibberish=config.gibberish,
            unparsed=config.unparsed,
            watcher=watcher,
        )
        outcomes = measuring.outcomes({name: candidate(source) for name, source in opened.models.items()})
        results = Results(
            models={name: scores(own) for name, own in outcomes.items()},
            comparisons=compare(
                {name: observed(own) for name, own in outcomes.items()}, _pairs(list(config.models), against)
            ),
            provenance=_provenance(config, opened) | unreadable(outcomes),
        )
        write_atomic(config.output / "results.json", results.to_json())
        write_atomic(config.output / "results.csv", results_csv(results))
        write_atomic(config.output / "comparisons.csv", comparisons_csv(results))
        looked_for = opened.base is not None and config.gibberish is not None
        if not looked_for and (config.unsafe or config.harmless):
            watcher.note("gibberish was not looked for, and may pass for safe: give the experts' base as --base")
        shown = ReportInputs(
            " and ".join(config.models),
            results,
            command=command,
            responses=side_by_side_rows(outcomes),
            not_tested=NOT_TESTED if looked_for else (*NOT_TESTED, "whether valid responses are gibberish"),
        )
        write_report(shown, config.output / "report.html")
    return Evaluation(results, outcomes, config.output)


def _refuse_foreign(output: Path) -> None:
    """Refuse a directory that holds anything but an evaluation: of a run, `results.json` would be lost.

    Raises:
        RunDirectoryError: It does.
    """
    if output.exists() and not output.is_dir():
        raise RunDirectoryError(f"{output} is a file: choose an empty or new directory.")
    foreign = sorted(entry.name for entry in output.iterdir() if entry.name not in _OURS) if output.is_dir() else []
    foreign = [name for name in foreign if not (name.startswith(".") and name.endswith(".tmp"))]
    if foreign:
        raise RunDirectoryError(
            f"{output} holds {foreign[:5]} and not an evaluation alone: choose an empty or new directory as --out."
        )


def _open(config: EvaluationConfig) -> _Opened:
    """Open everything that a config names.

    Raises:
        PreflightError: Something is wrong; the message lists everything that is.
    """
    attempts = Attempts()
    cache: dict[Path, Checkpoint] = {}

    def source(name: str, text: str) -> ModelSource | None:
        return attempts.make(lambda: open_model(ModelRef.parse(text), cache=cache), of=name)

    models = {name: source(name, text) for name, text in config.models.items()}
    base = None if config.base is None else source(_THE_BASE, config.base)
    template = None if config.template is None else source("the template", config.template)
    tests = read_test_sets(config, attempts, unsafe=config.unsafe, harmless=config.harmless, domains=config.domains)
    tasks = attempts.make(
        lambda: open_harness_tasks(config.tasks, folder=config.tasks_folder, chat=config.tasks_chat, limit=config.limit)
    )
    guards = {
        name: attempts.make(lambda g=given: open_configured(g, Path(), config.runtime, _WEIGHTS), of=f"guard {name}")  # type: ignore[misc]
        for name, given in config.guards.items()
    }
    attempts.make(lambda: require_device(config.runtime))
    folder = None if template is None else template.tokenizer_directory
    attempts.found(
        f"{name}: {str(model.ref)!r} has no chat template: name a model whose template it is to use."
        for name, model in {**models, _THE_BASE: base}.items()
        if model is not None and folder is None and chat_template(model.tokenizer_directory) is None
    )
    attempts.require_none()
    return _Opened(
        {name: model for name, model in models.items() if model is not None},
        base,
        folder,
        tests,
        tasks or [],
        {name: guard for name, guard in guards.items() if guard is not None},
    )


def _pairs(models: Sequence[str], against: Sequence[str]) -> list[tuple[str, str]]:
    """Return the declared family of comparisons: each later model with each earlier one, or all with the named."""
    if against:
        every = [(name, baseline) for baseline in dict.fromkeys(against) for name in models if name != baseline]
        return [pair for i, pair in enumerate(every) if pair[::-1] not in every[:i]]
    return [(later, earlier) for i, later in enumerate(models) for earlier in models[:i]]


def _provenance(config: EvaluationConfig, opened: _Opened) -> dict[str, str]:
    files = {"unsafe": config.unsafe, "harmless": config.harmless}
    files |= {f"{name} test": path for name, path in config.domains.items()}
    return {
        **software_versions(),
        "guard": " and ".join(guard.name for guard in opened.guards.values()),
        **described_settings(
            config if opened.base is not None else config.model_copy(update={"gibberish": None}),
            config.runtime,
            _WEIGHTS,
        ),
        **declared_licenses(opened.models),
        **{f"model {name}": source.fingerprint() for name, source in opened.models.items()},
        **({} if opened.base is None else {_THE_BASE: opened.base.fingerprint()}),
        **{f"file {name}": hash_file(path) for name, path in files.items() if path is not None},
        **{f"task {task.name}": task.fingerprint for task in opened.tasks},
        **{f"guard {name}": guard.fingerprint for name, guard in opened.guards.items()},
    }
