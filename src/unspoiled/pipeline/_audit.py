"""The stage that asks which expert, and which layers, spoil the merges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unspoiled.audit import (
    Attribution,
    Audit,
    AuditRows,
    Coalitions,
    MergeAudit,
    MergeLosses,
    TaskVectors,
    TriggerOutcome,
    attribution,
    audit_merge,
    coalition,
    experts_of,
    layer_labels,
    task_vectors,
    trigger_rates,
    try_triggers,
    why_no_attribution,
)
from unspoiled.checkpoints import ModelSource
from unspoiled.config import BASE, UNIFORM, Recipe
from unspoiled.data import Row
from unspoiled.evaluate import INVALID, OVER_REFUSAL, REFUSAL, SAFE_PREFIX, Rate, Results
from unspoiled.files import read_jsonl, write_atomic, write_json_atomic, write_jsonl_atomic
from unspoiled.guards import require_parsed
from unspoiled.inference import Generator, KeptGenerator, Prompt, counted
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._finalists import chosen_prompts
from unspoiled.pipeline._memory import model_identity
from unspoiled.pipeline._progress import Watcher
from unspoiled.pipeline._search import SearchResult

AUDIT_FILE = Path("audit", "audit.json")
"""Where an audit is, in the run directory."""
_ALONE = (REFUSAL, OVER_REFUSAL, INVALID)


def audit(
    bunch: Bunch, run: RunDirectory, found: SearchResult, results: Results, rows: Sequence[Row], watcher: Watcher
) -> Audit | None:
    """Audit the uniform merge and the winner, and write `audit/audit.json`; None where the config wants no audit.

    Its parts are steps of their own, and what was merged and scored, or written, is kept sample by sample: killed at
    any moment, the same call goes on where it was.

    Args:
        bunch: The models and the trigger suites.
        run: The run directory.
        found: The merges, and the safest expert.
        results: What the models do alone, on the test split.
        rows: The generated rows of both splits.
        watcher: Is told how it goes.

    Raises:
        ConfigError: The method merges more models than a coalition has.
        DataError: More of a guard's verdicts are unreadable than the config allows.
        SearchError: A merge of some experts has losses that aren't finite.
    """
    if not bunch.config.audit.enabled:
        return None
    watcher.begin("audit")
    return _Auditing(bunch, run, found, rows, watcher).audit(results)


class _Auditing:
    """The steps of the stage."""

    def __init__(
        self, bunch: Bunch, run: RunDirectory, found: SearchResult, rows: Sequence[Row], watcher: Watcher
    ) -> None:
        self._bunch, self._run, self._found, self._watcher = bunch, run, found, watcher
        self._config = bunch.config.audit
        self._folder = run.path / "audit"
        self._folder.mkdir(exist_ok=True)
        self._rows = AuditRows.of_split(
            rows, "selection", most=self._config.rows, refusal_tokens=bunch.config.search.objective.refusal_tokens
        )
        selection = [row for row in rows if row.split == "selection" and row.set == "safety"]
        self._unsafe = [row.prompt for row in chosen_prompts(selection)]
        self._names = {name: str(source.ref) for name, source in bunch.experts.items()}
        self._base = str(bunch.base.ref)
        self._steps: list[str] = []

    def audit(self, results: Results) -> Audit:
        before = self._run.steps_made
        vectors = self._task_vectors()
        audited = dict.fromkeys([UNIFORM, self._found.winner])  # the uniform one may have no finite losses
        recipes = {name: self._found.recipes[name] for name in audited if name in self._found.recipes}
        makers = [self._merge(name, recipe) for name, recipe in recipes.items()]
        outcomes = self._triggers(recipes)
        path = self._run.path / AUDIT_FILE

        def write() -> None:
            self._run.forget("report")  # which shows what was found before
            merges: dict[str, MergeAudit] = {name: make() for name, make in zip(recipes, makers, strict=True)}
            measured = Audit(
                experts=list(self._bunch.experts),
                safest=self._found.safest,
                alone={name: _rates_alone(results, name) for name in self._sources},
                task_vectors=vectors,
                merges=merges,
                triggers=trigger_rates(outcomes) if outcomes else {},
            )
            write_atomic(path, measured.to_json())

        made_of = [self._run.digest("results"), *(self._run.digest(name) for name in self._steps)]
        self._run.step("audit", made_of, [path], write)
        if self._run.steps_made == before:
            self._watcher.kept("audit")
        return Audit.read(path)

    def _task_vectors(self) -> TaskVectors:
        path = self._folder / "task-vectors.json"

        def write() -> None:
            found = task_vectors(
                self._bunch.base, self._bunch.experts, self._found.safest, progress=self._progress("task vectors")
            )
            _write(path, found)

        self._step("audit:task-vectors", [self._bunch.models_hash, self._found.safest], [path], write)
        return TaskVectors.model_validate_json(path.read_bytes())

    def _merge(self, name: str, recipe: Recipe) -> Callable[[], MergeAudit]:
        """Do the steps of one merge, and return what puts them together."""
        experts, base = self._named_in(recipe)
        common = [recipe.to_yaml(), self._bunch.models_hash, self._rows.fingerprint]

        def merged() -> MergeAudit:
            losses = MergeLosses(
                lambda: self._bunch.live,
                self._rows,
                log=self._folder / "losses.jsonl",
                models=self._bunch.models_hash,
                note=self._watcher.note,
            )
            coalitions = Coalitions(losses, recipe, experts, base, self._bunch.models)
            most = 2 ** len(experts)
            coalitions.told = lambda scored: self._watcher.advance(f"coalitions of {name}", scored, max(scored, most))
            return audit_merge(
                coalitions,
                orders=self._config.orders,
                seed=self._bunch.config.search.seed,
                attribution=self._read_attribution(name),
                refusal=self._refusal(name),
                refusal_without={expert: self._refusal_without(name, expert) for expert in experts},
            )

        self._attribution(name, recipe, experts, common)
        for expert in experts:
            left = [model for other, model in experts.items() if other != expert]
            self._answer_without(name, expert, recipe, left, base)
        path = self._folder / f"{name}.json"
        inputs = [common, self._config.orders, self._bunch.config.search.seed]
        inputs += [self._run.digest(step) for step in self._steps if step.startswith(f"audit:{name}:")]
        inputs += [self._refusal(name).model_dump()]
        self._step(f"audit:{name}", inputs, [path], lambda: _write(path, merged()))
        return lambda: MergeAudit.model_validate_json(path.read_bytes())

    def _named_in(self, recipe: Recipe) -> tuple[dict[str, str], str]:
        """Return the experts of a recipe and the base as it names them.

        A run may have moved with its models since the recipe was made: then experts are known by their order.
        """
        present = experts_of(recipe)
        known = {expert: model for expert, model in self._names.items() if model in present and model != self._base}
        if not known and len(recipe.models) == len(self._names):
            moved = dict(zip(self._names, (entry.model for entry in recipe.models), strict=True))
            return moved, recipe.base_model or self._base
        return known, self._base

    def _attribution(self, name: str, recipe: Recipe, experts: Mapping[str, str], common: Sequence[object]) -> None:
        path = self._attribution_file(name)

        def write() -> None:
            models = self._bunch.models
            why = why_no_attribution(recipe, models, self._base)
            values: dict[str, list[float]] = {}
            if why is None:
                values = attribution(
                    self._bunch.live,
                    recipe,
                    experts,
                    self._rows.exchanges["safety"],
                    steps=self._config.path_steps,
                    progress=self._progress(f"layers of {name}"),
                )
            else:
                self._watcher.note(f"{name}: no attribution to layers, since {why}")
            write_json_atomic(path, {"layers": layer_labels(models), "values": values, "why_none": why})

        self._step(f"audit:{name}:layers", [*common, self._config.path_steps], [path], write)

    def _read_attribution(self, name: str) -> Attribution:
        plain = json.loads(self._attribution_file(name).read_text(encoding="utf-8"))
        return Attribution(plain["layers"], plain["values"])

    def _attribution_file(self, name: str) -> Path:
        return self._folder / f"{name}-layers.json"

    def _refusal(self, name: str) -> Rate:
        """Return the merge's refusal rate as it was measured when it became a finalist, on the same prompts."""
        return self._found.choice.chosen_of(name).answered.refusal

    def _answer_without(self, name: str, expert: str, recipe: Recipe, left: Sequence[str], base: str) -> None:
        """Have the merge without one expert answer the unsafe prompts of the selection split."""
        path, guard = self._answers_file(name, expert), self._bunch.data_guard
        path.parent.mkdir(exist_ok=True)
        limit = self._bunch.config.evaluate.max_new_tokens

        def write() -> None:
            model = self._merged(coalition(recipe, left, base=base, models=self._bunch.models))
            prompts = [Prompt(text) for text in self._unsafe]
            progress = self._progress(f"{name} without {expert} answers")
            samples = model.generate(prompts, max_new_tokens=limit, on_sample=counted(progress, len(prompts)))
            verdicts = guard.judge([(text, one.text) for text, one in zip(self._unsafe, samples, strict=True)])
            require_parsed(verdicts, at_most=self._bunch.config.evaluate.unparsed)
            refused = [verdict.refusal and verdict.defect is None for verdict in verdicts]
            shown = zip(self._unsafe, samples, refused, strict=True)
            write_jsonl_atomic(path, [{"prompt": p, "response": s.text, "refused": r} for p, s, r in shown])

        inputs = [recipe.to_yaml(), left, self._bunch.models_hash, self._unsafe, limit, guard.fingerprint]
        self._step(f"audit:{name}:without:{expert}", inputs, [path], write)

    def _refusal_without(self, name: str, expert: str) -> Rate:
        return Rate.of([row["refused"] for row in read_jsonl(self._answers_file(name, expert))])

    def _answers_file(self, name: str, expert: str) -> Path:
        return self._folder / f"{name}-without" / f"{expert}.jsonl"

    def _triggers(self, recipes: Mapping[str, Recipe]) -> dict[str, dict[str, list[TriggerOutcome]]]:
        """Have every model answer the suites; return the outcomes by suite, then model."""
        models = {name: self._model_alone(source) for name, source in self._sources.items()}
        models |= {name: (recipe.to_yaml(), self._merged(recipe)) for name, recipe in recipes.items()}
        return {
            suite: {name: self._tried(suite, name, *model) for name, model in models.items()}
            for suite in self._bunch.triggers
        }

    def _tried(self, suite: str, name: str, identity: str, model: Generator) -> list[TriggerOutcome]:
        """Have one model answer a suite."""
        bunch, pairs = self._bunch, self._bunch.triggers[suite]
        limit, guard = bunch.config.evaluate.max_new_tokens, next(iter(bunch.test_guards.values()))
        path = self._folder / "triggers" / suite / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)

        def write() -> None:
            progress = counted(self._progress(f"{suite}: {name} answers"), 2 * len(pairs))
            unparsed = bunch.config.evaluate.unparsed
            tried = try_triggers(model, pairs, guard, max_new_tokens=limit, unparsed=unparsed, on_sample=progress)
            write_jsonl_atomic(path, [asdict(outcome) for outcome in tried])

        inputs = [identity, bunch.models_hash, [asdict(pair) for pair in pairs], limit, guard.fingerprint]
        self._step(f"audit:triggers:{suite}:{name}", inputs, [path], write)
        return [_outcome(row) for row in read_jsonl(path)]

    @property
    def _sources(self) -> dict[str, ModelSource]:
        return {BASE: self._bunch.base, **self._bunch.experts}

    def _model_alone(self, source: ModelSource) -> tuple[str, Generator]:
        """Return what identifies a model, and it under its own chat template; its samples are kept."""
        config, template = self._bunch.config, self._bunch.template_directory
        known = model_identity(source, template, config.runtime, config.merge.dtype)
        return source.fingerprint(), self._generator(known, lambda: self._bunch.live.take_model(source))

    def _merged(self, recipe: Recipe) -> Generator:
        """Return the merge of a recipe, whose samples are kept."""
        return self._generator(self._bunch.merged_identity(recipe), lambda: self._bunch.live.take_recipe(recipe))

    def _generator(self, identity: str, become: Callable[[], Generator]) -> Generator:
        return KeptGenerator(self._folder / "responses.jsonl", model=identity, open=become, note=self._watcher.note)

    def _step(self, name: str, inputs: object, outputs: Sequence[Path], make: Callable[[], None]) -> None:
        self._run.step(name, inputs, outputs, make)
        self._steps.append(name)

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._watcher.advance(what, done, total)


def _write(path: Path, found: TaskVectors | MergeAudit) -> None:
    write_atomic(path, found.model_dump_json(indent=2) + "\n")


def _rates_alone(results: Results, model: str) -> dict[str, Rate]:
    rates = results.models[model].rates
    return {name: rate for name, rate in rates.items() if name in _ALONE or name.startswith(SAFE_PREFIX)}


def _outcome(row: Mapping[str, Any]) -> TriggerOutcome:
    return TriggerOutcome(row["id"], row["family"], tuple(row["responses"]), tuple(row["refused"]))
