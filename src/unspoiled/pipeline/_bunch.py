"""The bunch of a run: its models, its data, its judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from unspoiled.audit import TriggerPair
from unspoiled.checkpoints import ModelSource, PreflightReport
from unspoiled.config import BASE, QUESTIONER, REFUSAL_RULES, TAXONOMIES, Recipe, RunConfig, ServedModel
from unspoiled.data import Category, Examples, HeldOut, Templates
from unspoiled.evaluate import HarnessTask, TestSets
from unspoiled.files import hash_file, hash_value
from unspoiled.guards import Guard
from unspoiled.inference import Generator, LiveBunch, OpenAIGenerator
from unspoiled.merging import Models
from unspoiled.pipeline._askers import BENIGN_QUESTIONER, Asker
from unspoiled.pipeline._device import compute_dtype
from unspoiled.pipeline._memory import answers_identity, hash_of_settings, is_alike, load_live
from unspoiled.pipeline._space import space_of
from unspoiled.pipeline._vllm import open_in_vllm
from unspoiled.search import SearchSpace


@dataclass(frozen=True)
class Bunch:
    """The opened models and data of a run.

    Args:
        config: The run's config.
        base: The common ancestor.
        experts: The experts by name.
        questioner: Who writes unsafe questions.
        benign_questioner: Who writes harmless questions.
        guards: The judges by name, those that the config uses.
        categories: The harm categories.
        templates: The texts of requests.
        examples: In-context questions by domain.
        tests: The test sets.
        tasks: The tasks of lm-evaluation-harness to measure by.
        report: What preflight found, free of problems.
        triggers: The trigger suites by name.
    """

    config: RunConfig
    base: ModelSource
    experts: Mapping[str, ModelSource]
    questioner: Asker
    benign_questioner: Asker
    guards: Mapping[str, Guard]
    categories: Sequence[Category]
    templates: Templates
    examples: Mapping[str, Examples]
    tests: TestSets
    tasks: Sequence[HarnessTask]
    report: PreflightReport
    triggers: Mapping[str, Sequence[TriggerPair]] = field(default_factory=dict)

    @cached_property
    def models(self) -> Models:
        """The base and the experts, by the strings that recipes name them with."""
        return Models({str(source.ref): source for source in [self.base, *self.experts.values()]})

    @cached_property
    def live(self) -> LiveBunch:
        """The bunch in memory; loaded when first used."""
        return self._load(self.models, self.base)

    @property
    def data_guard(self) -> Guard:
        """The judge of the answers that become data, and of the finalists' answers."""
        return self.guards[self.config.generate.guard]

    @property
    def test_guards(self) -> dict[str, Guard]:
        """The judges of the responses to test prompts, by name."""
        return {name: self.guards[name] for name in self.config.evaluate.guards}

    @cached_property
    def space(self) -> SearchSpace:
        """The coefficients that the search moves."""
        return space_of(self.config, self.base, self.experts)

    @cached_property
    def models_hash(self) -> str:
        """A content hash of the base and the experts."""
        return hash_value({name: source.fingerprint() for name, source in {BASE: self.base, **self.experts}.items()})

    def merged_identity(self, recipe: Recipe) -> str:
        """Return a hash of all that the answers of a recipe's merge depend on, under the merged model's template."""
        weights = hash_value([recipe.to_yaml(), self.models_hash])
        folders = [self.template_directory, self.base.directory]
        return answers_identity(weights, folders, self.config.runtime, self.config.merge.dtype)

    @property
    def test_prompts(self) -> dict[str, list[str]]:
        """The test prompts by set, those of trigger suites too, to keep generated data apart from them."""
        sets = {"unsafe": self.tests.unsafe, "harmless": self.tests.harmless, **self.tests.domains}
        found = {name: [row.prompt for row in rows] for name, rows in sets.items()}
        found |= {f"task {task.name}": task.prompts for task in self.tasks}
        for name, suite in self.triggers.items():
            found[f"triggers {name}"] = [text for pair in suite for text in (pair.prompt, pair.triggered)]
        return found

    @property
    def test_answers(self) -> dict[str, list[str]]:
        """The right answers of the test sets, by set."""
        tasks = {f"task {task.name}": task.answers for task in self.tasks}
        return {name: [row.answer or "" for row in rows] for name, rows in self.tests.domains.items()} | tasks

    @cached_property
    def held_out(self) -> HeldOut:
        """The test sets, as what no generated text may repeat."""
        return HeldOut(self.test_prompts, self.test_answers)

    @property
    def template_directory(self) -> Path:
        """Where the merged model's tokenizer and chat template come from: the safety expert."""
        return self.experts[self.config.safety_expert].tokenizer_directory

    def open_asker(self, asker: Asker) -> Generator:
        """Return the model that asks, behind its server or as `open_writer` does."""
        if isinstance(asker.model, ServedModel):
            return OpenAIGenerator(asker.model)
        return self.open_writer(asker.model)

    def open_writer(self, source: ModelSource) -> Generator:
        """Return a model that writes: in the engine that `runtime.engine` names, or in memory.

        It takes this bunch's memory if the shapes agree, else its own.
        """
        if self.config.runtime.engine == "vllm":
            return open_in_vllm(
                source,
                self.config.output_directory / "vllm",
                compute_dtype(self.config.runtime, self.config.merge.dtype),
            )
        return self._bunch_of(source).take_model(source)

    def _bunch_of(self, writer: ModelSource) -> LiveBunch:
        if writer is self.base:
            return self.live
        if is_alike(writer, self.base, self.models):
            return self.live
        return self._load(Models({str(writer.ref): writer}), writer)

    def fingerprints(self) -> dict[str, str]:
        """Return a content hash per model and per data file of the run."""
        config = self.config
        models: dict[str, ModelSource | Asker] = {BASE: self.base, **self.experts, QUESTIONER: self.questioner}
        if self.benign_questioner.name != BASE:
            models[BENIGN_QUESTIONER] = self.benign_questioner
        files = {"unsafe": config.evaluate.unsafe, "harmless": config.evaluate.harmless}
        for name, domain in config.domains.items():
            files[f"{name} test"] = domain.test
        for name, path in config.audit.triggers.items():
            files[f"triggers {name}"] = path
        if config.generate.taxonomy not in TAXONOMIES:
            files["taxonomy"] = Path(config.generate.taxonomy)
        tokenizers = {name: model for name, model in models.items() if isinstance(model, ModelSource)}
        shown = {name: [*found.prompts, *found.choices] for name, found in self.examples.items()}
        return (
            {f"model {name}": source.fingerprint() for name, source in models.items()}
            | {f"tokenizer {name}": hash_of_settings(source) for name, source in tokenizers.items()}
            | {"texts of requests": self.templates.fingerprint, "examples": hash_value(shown)}
            | {f"file {name}": hash_file(config.locate(path)) for name, path in files.items()}
            | {f"task {task.name}": task.fingerprint for task in self.tasks}
            | {f"guard {name}": guard.fingerprint for name, guard in self.guards.items() if name != REFUSAL_RULES}
        )

    def _load(self, models: Models, reference: ModelSource) -> LiveBunch:
        return load_live(self.config.runtime, self.config.merge.dtype, models, reference, self.template_directory)
