"""The bunch of a run, opened and checked: every problem is found before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch

from unspoiled.checkpoints import (
    Checkpoint,
    ModelRef,
    ModelSource,
    PreflightReport,
    chat_template,
    open_model,
    preflight,
)
from unspoiled.config import DomainConfig, RunConfig
from unspoiled.data import EXAMPLES_PER_REQUEST, PromptIndex, TestPrompt, read_taxonomy, read_test_prompts
from unspoiled.errors import ConfigError, DataError, PreflightError, UnspoiledError
from unspoiled.evaluate import TestSets
from unspoiled.files import hash_file, hash_value
from unspoiled.guards import Guard, RefusalRules
from unspoiled.inference import LiveBunch, load_chat_template
from unspoiled.merging import DTYPES, Models
from unspoiled.pipeline._space import require_mergeable, space_of
from unspoiled.search import SearchSpace, require_storage

BASE, QUESTIONER, BENIGN_QUESTIONER = "base", "questioner", "benign questioner"
_NO_ARCHITECTURE = frozenset(
    {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
    | {"bos_token_id", "eos_token_id", "pad_token_id"}
)
Made = TypeVar("Made")


@dataclass(frozen=True)
class Bunch:
    """The opened models and data of a run.

    Args:
        config: The run's config.
        base: The common ancestor.
        experts: The experts by name.
        questioner: The model that writes unsafe questions.
        benign_questioner: The model that writes harmless questions.
        examples: In-context questions by domain.
        tests: The test sets.
        report: What preflight found, free of problems.
    """

    config: RunConfig
    base: ModelSource
    experts: Mapping[str, ModelSource]
    questioner: ModelSource
    benign_questioner: ModelSource
    examples: Mapping[str, list[str]]
    tests: TestSets
    report: PreflightReport

    @cached_property
    def models(self) -> Models:
        """The base and the experts, by the strings that recipes name them with."""
        return Models({str(source.ref): source for source in [self.base, *self.experts.values()]})

    @cached_property
    def live(self) -> LiveBunch:
        """The bunch in memory; loaded when first used."""
        return self._load(self.models, self.base)

    @cached_property
    def guard(self) -> Guard:
        """The judge of answers."""
        return RefusalRules()

    @cached_property
    def space(self) -> SearchSpace:
        """The coefficients that the search moves."""
        return space_of(self.config, self.base, self.experts)

    @cached_property
    def models_hash(self) -> str:
        """A content hash of the base and the experts."""
        return hash_value({name: source.fingerprint() for name, source in {BASE: self.base, **self.experts}.items()})

    @cached_property
    def test_index(self) -> PromptIndex:
        """The test prompts, to keep generated data apart from them."""
        return PromptIndex(row.prompt for row in self.tests.rows)

    @property
    def template_directory(self) -> Path:
        """Where the merged model's tokenizer and chat template come from: the safety expert."""
        return self.experts[self.config.safety_expert].tokenizer_directory

    def bunch_of(self, writer: ModelSource) -> LiveBunch:
        """Return a bunch that can become a questioner: this one's memory if the architectures agree."""
        if writer is self.base:
            return self.live
        shapes = {name: info.shape for name, info in writer.tensors.items()}
        if _architecture(writer) == _architecture(self.base) and shapes == dict(self.models.output.shapes):
            return self.live
        return self._load(Models({str(writer.ref): writer}), writer)

    def fingerprints(self) -> dict[str, str]:
        """Return a content hash per model and per data file of the run."""
        config = self.config
        models = {BASE: self.base, **self.experts, QUESTIONER: self.questioner}
        if self.benign_questioner is not self.base:
            models[BENIGN_QUESTIONER] = self.benign_questioner
        files = {"unsafe": config.evaluate.unsafe, "harmless": config.evaluate.harmless}
        for name, domain in config.domains.items():
            files |= {f"{name} examples": domain.examples, f"{name} test": domain.test}
        if config.generate.taxonomy != "beavertails":
            files["taxonomy"] = Path(config.generate.taxonomy)
        return {f"model {name}": source.fingerprint() for name, source in models.items()} | {
            f"file {name}": hash_file(config.locate(path)) for name, path in files.items()
        }

    def _load(self, models: Models, reference: ModelSource) -> LiveBunch:
        return _load(self.config, models, reference, self.template_directory)


def _load(config: RunConfig, models: Models, reference: ModelSource, template: Path) -> LiveBunch:
    """Return models in memory, as the config says what for a machine this is."""
    wanted = config.runtime.device
    device = ("cuda" if on_gpu(wanted) else "cpu") if wanted == "auto" else wanted
    return LiveBunch(
        models,
        reference,
        merged_template=template,
        dtype=DTYPES[config.merge.dtype],
        device=device,
        batch_size=config.runtime.batch_size,
    )


def on_gpu(device: str) -> bool:
    """Say whether `runtime.device` means a GPU on this machine."""
    return torch.cuda.is_available() if device == "auto" else device.startswith("cuda")


def open_live(config: RunConfig) -> LiveBunch:
    """Open the base and the experts of a config that was checked before, and load them into memory: a worker's share.

    Raises:
        PreflightError: A model can't be opened on this machine.
    """
    problems: list[str] = []
    sources = _open_models(config, problems)
    if problems:
        raise PreflightError("on a worker's machine:\n" + "\n".join(f"  - {problem}" for problem in problems))
    used = [sources[BASE], *(sources[name] for name in config.bunch.experts)]
    template = sources[config.safety_expert].tokenizer_directory
    return _load(config, Models({str(source.ref): source for source in used}), sources[BASE], template)


def open_bunch(config: RunConfig) -> Bunch:
    """Open every model and data file that a config names, and check that they fit together.

    Raises:
        PreflightError: Something is wrong; the message lists everything that is.
    """
    problems: list[str] = []
    sources = _open_models(config, problems)
    examples = {name: _attempt(problems, lambda d=d: _read_examples(config, d)) for name, d in config.domains.items()}  # type: ignore[misc]
    tests = _read_tests(config, problems)
    _attempt(problems, lambda: taxonomy_of(config))
    _attempt(problems, lambda: _require_device(config.runtime.device))
    if (storage := config.runtime.storage) is not None:
        _attempt(problems, lambda: require_storage(storage))
    experts = {name: sources[name] for name in config.bunch.experts if name in sources}
    problems += _repeated(experts)
    report: PreflightReport | None = None
    if BASE in sources:
        report = preflight(
            sources[BASE], experts, output=config.output_directory.parent, dtype=DTYPES[config.merge.dtype]
        )
        problems += report.problems
        space = _attempt(problems, lambda: space_of(config, sources[BASE], experts))
        if space is not None and not problems:
            models = Models({str(source.ref): source for source in [sources[BASE], *experts.values()]})
            _attempt(problems, lambda: require_mergeable(space, models))
    if problems or report is None or tests is None:
        raise PreflightError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} before any work:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
        )
    shown = {name: prompts or [] for name, prompts in examples.items()}
    benign_questioner = sources.get(BENIGN_QUESTIONER, sources[BASE])
    return Bunch(config, sources[BASE], experts, sources[QUESTIONER], benign_questioner, shown, tests, report)


def _attempt(problems: list[str], make: Callable[[], Made]) -> Made | None:
    """Return what `make` returns; if it fails, add what is wrong to the problems and return None."""
    try:
        return make()
    except UnspoiledError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{error.filename}: {error.strerror}. Check the path in the config.")
    return None


def _architecture(source: ModelSource) -> dict[str, object]:
    """Return what a model's config says of its computation, and not of its file or its tokens."""
    return {k: v for k, v in source.checkpoint.config.items() if k not in _NO_ARCHITECTURE}


def _open_models(config: RunConfig, problems: list[str]) -> dict[str, ModelSource]:
    cache: dict[Path, Checkpoint] = {}
    tokenizers: set[Path] = set()
    named = {BASE: config.bunch.base}
    named |= {name: expert.model for name, expert in config.bunch.experts.items()}
    named[QUESTIONER] = config.generate.questioner
    if config.generate.benign_questioner is not None:
        named[BENIGN_QUESTIONER] = config.generate.benign_questioner
    sources: dict[str, ModelSource] = {}
    for name, text in named.items():
        try:
            source = open_model(ModelRef.parse(text, relative_to=config.directory), cache=cache)
            directory = source.tokenizer_directory
            needs_template = (
                name in {QUESTIONER, BENIGN_QUESTIONER, config.safety_expert} or chat_template(directory) is not None
            )
            if needs_template and directory not in tokenizers:
                load_chat_template(directory)
                tokenizers.add(directory)
            sources[name] = source
        except UnspoiledError as error:
            problems.append(f"{name}: {error}")
    return sources


def _repeated(experts: Mapping[str, ModelSource]) -> list[str]:
    """Return a problem for every expert that is the same model as an earlier one."""
    first: dict[str, str] = {}
    problems = []
    for name, source in experts.items():
        if (earlier := first.setdefault(str(source.ref), name)) != name:
            problems.append(f"expert {name!r} is the same model as {earlier!r}, {str(source.ref)!r}: name it once.")
    return problems


def _require_device(device: str) -> None:
    """Check that torch knows a device and this machine has it."""
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # torch raises all three
        reason = str(error).splitlines()[0]
        raise ConfigError(f"runtime.device: torch can't use {device!r} here ({reason}): write auto or cpu.") from None


def taxonomy_of(config: RunConfig) -> list[str]:
    """Return the harm categories that a config names."""
    return read_taxonomy(_taxonomy(config))


def _taxonomy(config: RunConfig) -> str | Path:
    name = config.generate.taxonomy
    return name if name == "beavertails" else config.locate(name)


def _read_examples(config: RunConfig, domain: DomainConfig) -> list[str]:
    path = config.locate(domain.examples)
    prompts = [row.prompt for row in read_test_prompts(path, answers=False)]
    if len(prompts) < EXAMPLES_PER_REQUEST:
        raise DataError(f"{path}: {len(prompts)} in-context examples: give at least {EXAMPLES_PER_REQUEST}.")
    return prompts


def _read_tests(config: RunConfig, problems: list[str]) -> TestSets | None:
    def read(path: Path, *, answers: bool) -> list[TestPrompt] | None:
        limit = config.evaluate.limit
        return _attempt(problems, lambda: read_test_prompts(config.locate(path), answers=answers, limit=limit))

    unsafe, harmless = read(config.evaluate.unsafe, answers=False), read(config.evaluate.harmless, answers=False)
    domains = {name: read(domain.test, answers=True) for name, domain in config.domains.items()}
    found = {name: rows for name, rows in domains.items() if rows is not None}
    if unsafe is None or harmless is None or len(found) < len(domains):
        return None
    return TestSets(unsafe, harmless, found, max_new_tokens=config.evaluate.max_new_tokens)
