"""The stages that write the merged checkpoint and measure it beside the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import transformers

from unspoiled import __version__
from unspoiled.checkpoints import ModelRef, ModelSource, open_model, write_manifest
from unspoiled.config import Recipe
from unspoiled.evaluate import (
    Outcome,
    Results,
    compare,
    measure,
    observed,
    read_outcomes,
    require_same_prompts,
    scores,
    write_outcomes,
)
from unspoiled.files import write_atomic
from unspoiled.guards import Guard
from unspoiled.inference import TransformersBackend
from unspoiled.merging import merge_to_directory
from unspoiled.pipeline._askers import BASE, public_name
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._progress import Watcher
from unspoiled.pipeline._search import UNIFORM, SearchResult, described_goal
from unspoiled.report import render_card


def write_merged(bunch: Bunch, run: RunDirectory, found: SearchResult, watcher: Watcher) -> Path:
    """Write the winner's checkpoint to `merged/` in the run directory and return that path."""
    recipe = found.recipes[found.winner]
    destination = run.path / "merged"
    watcher.begin("merge")

    def write() -> None:
        merge_to_directory(
            recipe,
            bunch.models,
            destination,
            tokenizer=bunch.template_directory,
            files={"README.md": _card(bunch, recipe, None, None)},
            progress=lambda done, total: watcher.advance("MB", done // 10**6, total // 10**6),
        )

    if run.step("merge", [recipe.to_yaml(), bunch.models_hash], [destination / "unspoiled.json"], write):
        run.forget("card")  # which puts the measured rates on the new checkpoint's card
    else:
        watcher.kept("merge")
    return destination


def evaluate(bunch: Bunch, run: RunDirectory, found: SearchResult, watcher: Watcher) -> Results:
    """Measure base, experts and merges on the test split and write `results.json`.

    The winner is measured as it was written to disk; the others in memory, which gives the same weights.
    """
    folder = run.path / "evaluation"
    folder.mkdir(exist_ok=True)
    watcher.begin("evaluate")
    merged = open_model(ModelRef(str(run.path / "merged")))
    worked = False
    by_model: dict[str, list[Outcome]] = {}
    guards = {name: guard.fingerprint for name, guard in bunch.test_guards.items()}
    tests = [[row.id, row.prompt, row.answer, list(row.choices)] for row in bunch.tests.rows]
    for name, become in _models(bunch, found, merged).items():
        path = folder / f"{name}.jsonl"

        def make(name: str = name, become: Callable[[], TransformersBackend] = become, path: Path = path) -> None:
            outcomes = measure(
                become(),
                bunch.tests,
                bunch.test_guards,
                progress=lambda what, done, total: watcher.advance(f"{name}: {what}", done, total),
            )
            write_outcomes(path, outcomes)

        recipe = found.recipes.get(name)
        model = recipe.to_yaml() if recipe else name
        inputs = [model, bunch.models_hash, tests, bunch.tests.max_new_tokens, guards]
        worked |= run.step(f"evaluate:{name}", inputs, [path], make)
        by_model[name] = read_outcomes(path)
    require_same_prompts(by_model)
    results = Results(
        models={name: scores(outcomes) for name, outcomes in by_model.items()},
        comparisons=compare(
            {name: observed(outcomes) for name, outcomes in by_model.items()},
            _pairs(found, found.safest),
        ),
        provenance=_provenance(bunch, found),
    )
    path = run.path / "results.json"

    def write() -> None:
        write_atomic(path, results.to_json())

    def write_card() -> None:
        card = _card(bunch, found.recipes[found.winner], results, found.winner)
        write_atomic(run.path / "merged" / "README.md", card)
        write_manifest(run.path / "merged")

    worked |= run.step("results", [run.digest(f"evaluate:{name}") for name in by_model], [path], write)
    worked |= run.step("card", run.digest("results"), [run.path / "merged" / "README.md"], write_card)
    if not worked:
        watcher.kept("evaluate")
    return results


def _models(bunch: Bunch, found: SearchResult, merged: ModelSource) -> dict[str, Callable[[], TransformersBackend]]:
    models: dict[str, Callable[[], TransformersBackend]] = {}
    for name, source in {BASE: bunch.base, **bunch.experts}.items():
        models[name] = lambda source=source: bunch.live.take_model(source)  # type: ignore[misc]
    for name, recipe in found.recipes.items():
        models[name] = lambda recipe=recipe: bunch.live.take_recipe(recipe)  # type: ignore[misc]
    models[found.winner] = lambda: bunch.live.take_model(merged)
    return models


def _pairs(found: SearchResult, safest: str) -> list[tuple[str, str]]:
    """Return the declared family of comparisons: every searched merge and the winner's aligned parent."""
    searched = [name for name in found.recipes if name != UNIFORM]
    return [(name, UNIFORM) for name in searched] + [(found.winner, safest)]


def _provenance(bunch: Bunch, found: SearchResult) -> dict[str, str]:
    config = bunch.config
    return {
        "unspoiled": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "winner": found.winner,
        "objective": described_goal(found.goals["search"]),
        "safest expert": found.safest,
        "guard": _names(bunch.test_guards.values()),
        "search_guard": bunch.data_guard.name,
        "generate.seed": str(config.generate.seed),
        "search.seed": str(config.search.seed),
        **bunch.fingerprints(),
    }


def _card(bunch: Bunch, recipe: Recipe, results: Results | None, winner: str | None) -> str:
    return render_card(
        name=bunch.config.output_directory.name,
        base_model=[public_name(source) for source in [bunch.base, *bunch.experts.values()]],
        results=results,
        winner=winner,
        recipe_yaml=_without_paths(bunch, recipe),
        guard=_names(bunch.test_guards.values()),
        hashes=bunch.fingerprints(),
    )


def _without_paths(bunch: Bunch, recipe: Recipe) -> str:
    """Return the recipe's YAML with models named as the card names them; `mergekit_config.yml` has the paths."""
    public = {str(source.ref): public_name(source) for source in [bunch.base, *bunch.experts.values()]}
    models = tuple(entry.model_copy(update={"model": public.get(entry.model, entry.model)}) for entry in recipe.models)
    base = recipe.base_model and public.get(recipe.base_model, recipe.base_model)
    return recipe.model_copy(update={"models": models, "base_model": base}).to_yaml()


def _names(guards: Iterable[Guard]) -> str:
    return " and ".join(guard.name for guard in guards)
