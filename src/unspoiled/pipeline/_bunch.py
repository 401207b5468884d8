"""The bunch of a run, opened and checked: every problem is found before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from unspoiled.checkpoints import Checkpoint, ModelRef, ModelSource, PreflightReport, open_model, preflight
from unspoiled.config import RunConfig
from unspoiled.data import PromptIndex, read_taxonomy, read_test_prompts
from unspoiled.errors import PreflightError, UnspoiledError
from unspoiled.evaluate import TestSets
from unspoiled.files import hash_file, hash_value
from unspoiled.guards import Guard, RefusalRules
from unspoiled.inference import LiveBunch, load_chat_template
from unspoiled.merging import DTYPES, Models
from unspoiled.search import SearchSpace

BASE, QUESTIONER = "base", "questioner"


@dataclass(frozen=True)
class Bunch:
    """The opened models and data of a run.

    Args:
        config: The run's config.
        base: The common ancestor.
        experts: The experts by name.
        questioner: The model that writes unsafe questions.
        examples: In-context questions by domain.
        tests: The test sets.
        report: What preflight found, free of problems.
    """

    config: RunConfig
    base: ModelSource
    experts: Mapping[str, ModelSource]
    questioner: ModelSource
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
        search = self.config.search
        return SearchSpace(
            method=search.method,
            base=str(self.base.ref),
            experts={name: str(source.ref) for name, source in self.experts.items()},
            layers=self.models.layer_count,
            granularity=search.granularity,
            groups=search.layer_groups,
            bounds=search.bounds,
            dtype=self.config.merge.dtype,
        )

    @cached_property
    def models_hash(self) -> str:
        """A content hash of the base and the experts."""
        return hash_value({name: source.fingerprint() for name, source in {BASE: self.base, **self.experts}.items()})

    @cached_property
    def test_index(self) -> PromptIndex:
        """The test prompts, to keep generated data apart from them."""
        return PromptIndex(self.tests.prompts)

    @property
    def template_directory(self) -> Path:
        """Where the merged model's tokenizer and chat template come from: the safety expert."""
        return self.experts[self.config.safety_expert].tokenizer_directory

    def questioner_bunch(self) -> LiveBunch:
        """Return a bunch that can become the questioner: this one's memory if the architectures agree."""
        shapes = {name: info.shape for name, info in self.questioner.tensors.items()}
        if shapes == dict(self.models.output.shapes):
            return self.live
        return self._load(Models({str(self.questioner.ref): self.questioner}), self.questioner)

    def fingerprints(self) -> dict[str, str]:
        """Return a content hash per model and per data file of the run."""
        config = self.config
        models = {BASE: self.base, **self.experts, QUESTIONER: self.questioner}
        files = {"unsafe": config.evaluate.unsafe, "harmless": config.evaluate.harmless}
        for name, domain in config.domains.items():
            files |= {f"{name} examples": domain.examples, f"{name} test": domain.test}
        if config.generate.taxonomy != "beavertails":
            files["taxonomy"] = Path(config.generate.taxonomy)
        return {f"model {name}": source.fingerprint() for name, source in models.items()} | {
            f"file {name}": hash_file(config.locate(path)) for name, path in files.items()
        }

    def _load(self, models: Models, reference: ModelSource) -> LiveBunch:
        runtime = self.config.runtime
        cuda = torch.cuda.is_available()
        return LiveBunch(
            models,
            reference,
            merged_template=self.template_directory,
            dtype=DTYPES[self.config.merge.dtype],
            device=("cuda" if cuda else "cpu") if runtime.device == "auto" else runtime.device,
            batch_size=runtime.batch_size,
        )


def open_bunch(config: RunConfig) -> Bunch:
    """Open every model and data file that a config names, and check that they fit together.

    Raises:
        PreflightError: Something is wrong; the message lists everything that is.
    """
    problems: list[str] = []
    cache: dict[Path, Checkpoint] = {}
    tokenizers: set[Path] = set()
    named = {BASE: config.bunch.base}
    named |= {name: expert.model for name, expert in config.bunch.experts.items()}
    named[QUESTIONER] = config.generate.questioner
    sources: dict[str, ModelSource] = {}
    for name, text in named.items():
        try:
            source = open_model(ModelRef.parse(text, relative_to=config.directory), cache=cache)
            if source.tokenizer_directory not in tokenizers:
                load_chat_template(source.tokenizer_directory)
                tokenizers.add(source.tokenizer_directory)
            sources[name] = source
        except UnspoiledError as error:
            problems.append(f"{name}: {error}")
    examples: dict[str, list[str]] = {}
    tests: TestSets | None = None
    try:
        examples = {
            name: [row.prompt for row in read_test_prompts(config.locate(domain.examples), answers=False)]
            for name, domain in config.domains.items()
        }
        tests = _read_tests(config)
        read_taxonomy(_taxonomy(config))
    except UnspoiledError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{error.filename}: {error.strerror}. Check the path in the config.")
    experts = {name: sources[name] for name in config.bunch.experts if name in sources}
    report: PreflightReport | None = None
    if BASE in sources:
        report = preflight(
            sources[BASE], experts, output=config.output_directory.parent, dtype=DTYPES[config.merge.dtype]
        )
        problems += report.problems
    if problems or report is None or tests is None:
        raise PreflightError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} before any work:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
        )
    return Bunch(config, sources[BASE], experts, sources[QUESTIONER], examples, tests, report)


def taxonomy_of(config: RunConfig) -> list[str]:
    """Return the harm categories that a config names."""
    return read_taxonomy(_taxonomy(config))


def _taxonomy(config: RunConfig) -> str | Path:
    name = config.generate.taxonomy
    return name if name == "beavertails" else config.locate(name)


def _read_tests(config: RunConfig) -> TestSets:
    limit = config.evaluate.limit
    return TestSets(
        unsafe=read_test_prompts(config.locate(config.evaluate.unsafe), answers=False, limit=limit),
        harmless=read_test_prompts(config.locate(config.evaluate.harmless), answers=False, limit=limit),
        domains={
            name: read_test_prompts(config.locate(domain.test), answers=True, limit=limit)
            for name, domain in config.domains.items()
        },
        max_new_tokens=config.evaluate.max_new_tokens,
    )
