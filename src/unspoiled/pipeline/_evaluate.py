"""The stages that write the merged checkpoint, measure it beside the others, and report."""

from __future__ import annotations

from collections.abc import Callable
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
    paired_outcomes,
    read_outcomes,
    require_same_prompts,
    scores,
    write_outcomes,
)
from unspoiled.files import write_atomic
from unspoiled.inference import TransformersBackend
from unspoiled.merging import merge_to_directory
from unspoiled.pipeline._bunch import BASE, Bunch
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._generate import yields
from unspoiled.pipeline._progress import Watcher
from unspoiled.pipeline._search import SearchResult
from unspoiled.report import (
    CoefficientTable,
    ReportInputs,
    ResponseRow,
    TrialPoint,
    render_card,
    write_report,
)
from unspoiled.search import block_label

_SHOWN_RESPONSES = 30  # prompts shown side by side in the report, of each safety set


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
    tests = [[row.id, row.prompt, row.answer, list(row.choices)] for row in bunch.tests.rows]
    for name, become in _models(bunch, found, merged).items():
        path = folder / f"{name}.jsonl"

        def make(name: str = name, become: Callable[[], TransformersBackend] = become, path: Path = path) -> None:
            outcomes = measure(
                become(),
                bunch.tests,
                bunch.guard,
                progress=lambda what, done, total: watcher.advance(f"{name}: {what}", done, total),
            )
            write_outcomes(path, outcomes)

        recipe = found.recipes.get(name)
        model = recipe.to_yaml() if recipe else name
        inputs = [model, bunch.models_hash, tests, bunch.tests.max_new_tokens, bunch.guard.name]
        worked |= run.step(f"evaluate:{name}", inputs, [path], make)
        by_model[name] = read_outcomes(path)
    require_same_prompts(by_model)
    results = Results(
        models={name: scores(outcomes) for name, outcomes in by_model.items()},
        comparisons=compare(
            {name: paired_outcomes(outcomes) for name, outcomes in by_model.items()},
            _pairs(found, bunch.config.safety_expert),
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


def report(
    bunch: Bunch, run: RunDirectory, found: SearchResult, results: Results, command: str, watcher: Watcher
) -> Path:
    """Write `report.html` in the run directory and return its path."""
    path = run.path / "report.html"
    watcher.begin("report")

    def write() -> None:
        write_report(
            ReportInputs(
                title=f"{run.path.name}: {' + '.join(bunch.experts)}",
                results=results,
                winner=found.winner,
                recipes={name: _coefficients(bunch, recipe) for name, recipe in found.recipes.items()},
                trials=[
                    TrialPoint(t.number, t.strategy, t.losses.total, t.losses.safety, t.losses.expert)
                    for t in found.trials
                    if t.losses is not None and t.candidate
                ],
                yields=yields(bunch, run),
                stage_seconds=stage_seconds(run),
                recipe_yaml=found.recipes[found.winner].to_yaml(),
                command=command,
                responses=_responses(run.path / "evaluation", list(results.models)),
                aligned=bunch.config.safety_expert,
            ),
            path,
        )

    if not run.step("report", [run.digest("results"), run.digest("search:selection")], [path], write):
        watcher.kept("report")
    return path


def stage_seconds(run: RunDirectory) -> dict[str, float]:
    """Return the seconds that each stage took, its steps added up."""
    stages = {
        "questions": "generate",
        "answers": "generate",
        "dataset": "generate",
        "results": "evaluate",
        "card": "evaluate",
    }
    total: dict[str, float] = {}
    for step, seconds in run.seconds.items():
        first = step.partition(":")[0]
        stage = stages.get(first, first)
        total[stage] = round(total.get(stage, 0.0) + seconds, 3)
    return total


def _models(bunch: Bunch, found: SearchResult, merged: ModelSource) -> dict[str, Callable[[], TransformersBackend]]:
    models: dict[str, Callable[[], TransformersBackend]] = {}
    for name, source in {BASE: bunch.base, **bunch.experts}.items():
        models[name] = lambda source=source: bunch.live.take_model(source)  # type: ignore[misc]
    for name, recipe in found.recipes.items():
        models[name] = lambda recipe=recipe: bunch.live.take_recipe(recipe)  # type: ignore[misc]
    models[found.winner] = lambda: bunch.live.take_model(merged)
    return models


def _pairs(found: SearchResult, safety_expert: str) -> list[tuple[str, str]]:
    """Return the declared family of comparisons: every searched merge and the winner's aligned parent."""
    searched = [name for name in found.recipes if name != "uniform"]
    return [(name, "uniform") for name in searched] + [(found.winner, safety_expert)]


def _coefficients(bunch: Bunch, recipe: Recipe) -> CoefficientTable:
    """Return a recipe's weights by block of layers and expert, as the heat map shows them."""
    space = bunch.space
    values = []
    for block in space.blocks:
        row = []
        for index in range(len(space.experts)):  # recipes list them in this order, also by an earlier path
            weight = recipe.parameter("weight", index, tensor="", layer=block[0], layers=space.layers)
            row.append(float(weight or 0.0))
        values.append(row)
    labels = ["all layers"] if len(space.blocks) == 1 else [f"layers {block_label(b)}" for b in space.blocks]
    return CoefficientTable(labels, list(space.experts), values)


def _responses(folder: Path, names: list[str]) -> list[ResponseRow]:
    outcomes = {name: read_outcomes(folder / f"{name}.jsonl") for name in names}
    rows: list[ResponseRow] = []
    for kind in ("unsafe", "harmless"):
        chosen = [i for i, outcome in enumerate(outcomes[names[0]]) if outcome.set == kind]
        step = max(1, len(chosen) // _SHOWN_RESPONSES)
        for i in chosen[::step][:_SHOWN_RESPONSES]:
            answers = {name: (found[i].response, _verdict(found[i])) for name, found in outcomes.items()}
            rows.append(ResponseRow(kind, outcomes[names[0]][i].prompt, answers))
    return rows


def _verdict(outcome: Outcome) -> str:
    """Return the report's word for an outcome; it hides the text of those that it does not know."""
    if outcome.defect is not None:
        return f"invalid ({outcome.defect})"
    if outcome.set == "unsafe":
        return "refused" if outcome.refused else "not refused"
    return "over-refused" if outcome.refused else "answered"


def _provenance(bunch: Bunch, found: SearchResult) -> dict[str, str]:
    config = bunch.config
    return {
        "unspoiled": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "winner": found.winner,
        "guard": bunch.guard.name,
        "search_guard": bunch.guard.name,
        "generate.seed": str(config.generate.seed),
        "search.seed": str(config.search.seed),
        **bunch.fingerprints(),
    }


def _card(bunch: Bunch, recipe: Recipe, results: Results | None, winner: str | None) -> str:
    return render_card(
        name=bunch.config.output_directory.name,
        base_model=[_public_name(source) for source in [bunch.base, *bunch.experts.values()]],
        results=results,
        winner=winner,
        recipe_yaml=_without_paths(bunch, recipe),
        guard=bunch.guard.name,
        hashes=bunch.fingerprints(),
    )


def _without_paths(bunch: Bunch, recipe: Recipe) -> str:
    """Return the recipe's YAML with models named as the card names them; `mergekit_config.yml` has the paths."""
    public = {str(source.ref): _public_name(source) for source in [bunch.base, *bunch.experts.values()]}
    models = tuple(entry.model_copy(update={"model": public.get(entry.model, entry.model)}) for entry in recipe.models)
    base = recipe.base_model and public.get(recipe.base_model, recipe.base_model)
    return recipe.model_copy(update={"models": models, "base_model": base}).to_yaml()


def _public_name(source: ModelSource) -> str:
    """Return a model's name without the path to it on this machine."""
    ref = source.ref.adapter or source.ref
    return ref.path if not Path(ref.path).is_absolute() else Path(ref.path).name
