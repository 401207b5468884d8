"""Open the models and data that a config names, and find everything that is wrong before any work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unspoiled.audit import read_trigger_suite
from unspoiled.checkpoints import (
    Checkpoint,
    ModelRef,
    ModelSource,
    PreflightReport,
    chat_template,
    open_model,
    preflight,
)
from unspoiled.config import BASE, QUESTIONER, TAXONOMIES, DomainConfig, RunConfig, ServedModel, TaskExamples
from unspoiled.data import (
    EXAMPLES_PER_REQUEST,
    Category,
    Examples,
    Templates,
    read_examples,
    read_task_questions,
    read_taxonomy,
    require_known_languages,
)
from unspoiled.errors import DataError
from unspoiled.evaluate import HarnessTask, open_harness_tasks
from unspoiled.inference import LiveBunch, load_chat_template
from unspoiled.merging import DTYPES, Models
from unspoiled.pipeline._askers import BENIGN_QUESTIONER, Asker
from unspoiled.pipeline._attempts import Attempts
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._device import require_device
from unspoiled.pipeline._guards import open_guards
from unspoiled.pipeline._memory import load_live
from unspoiled.pipeline._space import require_mergeable, require_method, space_of
from unspoiled.pipeline._test_sets import read_test_sets
from unspoiled.pipeline._trackers import require_trackers
from unspoiled.search import require_storage


def open_bunch(config: RunConfig) -> Bunch:
    """Open every model and data file that a config names, and check that they fit together.

    Raises:
        PreflightError: Something is wrong; the message lists everything that is.
    """
    attempts = Attempts()
    sources = _open_models(config, attempts)
    examples = {name: attempts.make(lambda d=d: _read_examples(config, d)) for name, d in config.domains.items()}  # type: ignore[misc]
    tests = read_test_sets(
        config.evaluate,
        attempts,
        unsafe=config.locate(config.evaluate.unsafe),
        harmless=config.locate(config.evaluate.harmless),
        domains={name: config.locate(domain.test) for name, domain in config.domains.items()},
    )
    tasks = _open_tasks(config, attempts)
    suites = {
        name: attempts.make(lambda path=path: read_trigger_suite(config.locate(path)))  # type: ignore[misc]
        for name, path in config.audit.triggers.items()
    }
    categories = attempts.make(lambda: taxonomy_of(config))
    templates = attempts.make(lambda: templates_of(config))
    guards = open_guards(config, attempts)
    if languages := config.generate.languages:
        attempts.make(lambda: require_known_languages(languages), of="generate")
    attempts.make(lambda: require_device(config.runtime))
    attempts.make(lambda: require_trackers(config.runtime.trackers))
    if (storage := config.runtime.storage) is not None:
        attempts.make(lambda: require_storage(storage))
    experts = {name: sources[name] for name in config.bunch.experts if name in sources}
    attempts.found(_repeated(experts))
    report = _check_merge(config, sources, experts, attempts)
    attempts.require_none()
    assert report is not None
    assert categories is not None
    assert templates is not None
    return Bunch(
        config,
        sources[BASE],
        experts,
        questioner=_asker(QUESTIONER, config.generate.questioner, sources),
        benign_questioner=_asker(BENIGN_QUESTIONER, config.generate.benign_questioner, sources),
        guards=guards,
        categories=categories,
        templates=templates,
        examples={name: found for name, found in examples.items() if found is not None},
        tests=tests,
        tasks=tasks,
        report=report,
        triggers={name: suite for name, suite in suites.items() if suite is not None},
    )


def open_live(config: RunConfig) -> LiveBunch:
    """Open the base and the experts of a config that was checked before, and load them into memory: a worker's share.

    Raises:
        PreflightError: A model can't be opened on this machine.
    """
    attempts = Attempts()
    sources = _open_models(config, attempts)
    attempts.require_none("on a worker's machine")
    used = [sources[BASE], *(sources[name] for name in config.bunch.experts)]
    template = sources[config.safety_expert].tokenizer_directory
    return load_live(
        config.runtime,
        config.merge.dtype,
        Models({str(source.ref): source for source in used}),
        sources[BASE],
        template,
    )


def model_names(config: RunConfig) -> dict[str, str]:
    """Return every model that a config names and that is opened here, by its role; served ones are elsewhere."""
    named = {BASE: config.bunch.base}
    named |= {name: expert.model for name, expert in config.bunch.experts.items()}
    askers = {QUESTIONER: config.generate.questioner, BENIGN_QUESTIONER: config.generate.benign_questioner}
    return named | {name: text for name, text in askers.items() if isinstance(text, str)}


def taxonomy_of(config: RunConfig) -> list[Category]:
    """Return the harm categories that a config names."""
    name = config.generate.taxonomy
    return read_taxonomy(name if name in TAXONOMIES else config.locate(name))


def templates_of(config: RunConfig) -> Templates:
    """Return the texts of requests that a config names."""
    folder = config.generate.templates
    return Templates(None if folder is None else config.locate(folder))


def _open_models(config: RunConfig, attempts: Attempts) -> dict[str, ModelSource]:
    cache: dict[Path, Checkpoint] = {}
    tokenizers: set[Path] = set()

    def open_one(name: str, text: str) -> ModelSource:
        source = open_model(ModelRef.parse(text, relative_to=config.directory), cache=cache)
        directory = source.tokenizer_directory
        asked = name in {QUESTIONER, BENIGN_QUESTIONER, config.safety_expert}
        if (asked or chat_template(directory) is not None) and directory not in tokenizers:
            load_chat_template(directory)
            tokenizers.add(directory)
        return source

    found = {n: attempts.make(lambda n=n, t=t: open_one(n, t), of=n) for n, t in model_names(config).items()}  # type: ignore[misc]
    return {name: source for name, source in found.items() if source is not None}


def _check_merge(
    config: RunConfig, sources: Mapping[str, ModelSource], experts: Mapping[str, ModelSource], attempts: Attempts
) -> PreflightReport | None:
    """Check that the experts fit the base and can be merged as the search will merge them."""
    if BASE not in sources:
        attempts.make(lambda: require_method(config))
        return None
    base = sources[BASE]
    report = preflight(base, experts, output=config.output_directory.parent, dtype=DTYPES[config.merge.dtype])
    attempts.found(report.problems)
    space = attempts.make(lambda: space_of(config, base, experts))
    if space is not None and not attempts.problems:
        models = Models({str(source.ref): source for source in [base, *experts.values()]})
        attempts.make(lambda: require_mergeable(space, models))
    return report


def _asker(role: str, model: str | ServedModel | None, sources: Mapping[str, ModelSource]) -> Asker:
    if isinstance(model, ServedModel):
        return Asker(role, model)
    name = BASE if model is None else role
    return Asker(name, sources[name])


def _repeated(experts: Mapping[str, ModelSource]) -> list[str]:
    """Return a problem for every expert that is the same model as an earlier one."""
    first: dict[str, str] = {}
    problems = []
    for name, source in experts.items():
        if (earlier := first.setdefault(str(source.ref), name)) != name:
            problems.append(f"expert {name!r} is the same model as {earlier!r}, {str(source.ref)!r}: name it once.")
    return problems


def _read_examples(config: RunConfig, domain: DomainConfig) -> Examples:
    if isinstance(domain.examples, TaskExamples):
        task = domain.examples
        include = None if task.include is None else config.locate(task.include)
        found = Examples(tuple(read_task_questions(task.task, split=task.split, limit=task.limit, include=include)))
        where = f"task {task.task!r}"
    else:
        path = config.locate(domain.examples)
        found, where = read_examples(path), str(path)
    if len(found.prompts) < EXAMPLES_PER_REQUEST:
        raise DataError(f"{where}: {len(found.prompts)} in-context examples: give at least {EXAMPLES_PER_REQUEST}.")
    return found


def _open_tasks(config: RunConfig, attempts: Attempts) -> list[HarnessTask]:
    how = config.evaluate
    if not how.tasks:
        return []
    folder = None if how.tasks_folder is None else config.locate(how.tasks_folder)
    opened = attempts.make(
        lambda: open_harness_tasks(how.tasks, folder=folder, chat=how.tasks_chat, limit=how.limit), of="evaluate.tasks"
    )
    return opened or []
