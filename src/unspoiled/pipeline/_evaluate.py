"""The stages that write the merged checkpoint and measure it beside the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from unspoiled.checkpoints import (
    ModelRef,
    ModelSource,
    checkpoint_hash,
    declared_license,
    open_model,
    write_manifest,
)
from unspoiled.config import BASE, UNIFORM, Recipe
from unspoiled.data import DataCardInputs, Row, agrees
from unspoiled.evaluate import (
    AGREEMENT_PREFIX,
    DOMAIN_PREFIX,
    OVER_REFUSAL,
    REFUSAL,
    Comparison,
    Optimism,
    Outcome,
    Rate,
    Results,
    SplitCheck,
    compare,
    is_decisive,
    observed,
    optimism,
    read_outcomes,
    scores,
    unreadable,
)
from unspoiled.files import write_atomic
from unspoiled.guards import Guard
from unspoiled.merging import merge_to_directory
from unspoiled.pipeline._askers import public_name
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._data_card import data_card_inputs
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._generate import tallies
from unspoiled.pipeline._measuring import Candidate, Measuring, declared_licenses, described_settings, software_versions
from unspoiled.pipeline._memory import model_identity
from unspoiled.pipeline._progress import Watcher
from unspoiled.pipeline._report import remove_report
from unspoiled.pipeline._search import SearchResult, described_goal
from unspoiled.report import CardInputs, CardModel, render_card

_RESULTS = "results.json"


def write_merged(bunch: Bunch, run: RunDirectory, found: SearchResult, watcher: Watcher) -> Path:
    """Write the winner's checkpoint to `merged/` in the run directory and return that path.

    What was measured on another winner is removed before, so that it never stands beside a merge that it is not of.
    """
    recipe = found.recipes[found.winner]
    destination = run.path / "merged"
    inputs = [recipe.to_yaml(), bunch.models_hash]
    watcher.begin("merge")
    if not run.was_made_from("merge", inputs):
        remove_report(run)
        (run.path / _RESULTS).unlink(missing_ok=True)

    def write() -> None:
        merge_to_directory(
            recipe,
            bunch.models,
            destination,
            tokenizer=bunch.template_directory,
            files={"README.md": _card(bunch, recipe, None, None)},
            progress=lambda done, total: watcher.advance("MB", done // 10**6, total // 10**6),
        )

    if run.step("merge", inputs, [destination / "unspoiled.json"], write):
        run.forget("card")  # which puts the measured rates on the new checkpoint's card
    else:
        watcher.kept("merge")
    return destination


def evaluate(bunch: Bunch, run: RunDirectory, rows: Sequence[Row], found: SearchResult, watcher: Watcher) -> Results:
    """Measure base, experts and merges on the test split and write `results.json`.

    The winner is measured as it was written to disk; the others in memory, which gives the same weights.

    Args:
        bunch: The models, the test sets and the guards.
        run: The run directory.
        rows: The generated rows that the search and the choice among finalists went by.
        found: What the search chose.
        watcher: Is told how it goes.
    """
    folder = run.path / "evaluation"
    watcher.begin("evaluate")
    config = bunch.config.evaluate
    models = _models(bunch, run, found)
    guards = {name: guard.fingerprint for name, guard in bunch.test_guards.items()}
    inputs = [
        {name: model.identity for name, model in models.items()},
        [asdict(row) for row in bunch.tests.rows],
        [bunch.tests.max_new_tokens, bunch.tests.temperature, bunch.tests.seeds, config.gibberish, config.unparsed],
        [task.fingerprint for task in bunch.tasks],
        guards,
    ]

    def make() -> None:
        measuring = Measuring(
            folder,
            bunch.tests,
            bunch.test_guards,
            base=models[BASE],
            tasks=bunch.tasks,
            gibberish=config.gibberish,
            unparsed=config.unparsed,
            watcher=watcher,
        )
        measuring.outcomes(models)

    worked = run.step("evaluate", inputs, [folder / f"{name}.jsonl" for name in models], make)
    by_model = {name: read_outcomes(folder / f"{name}.jsonl") for name in models}
    path = run.path / _RESULTS
    merged = checkpoint_hash(run.path / "merged")

    def write() -> None:
        counted = {name: scores(outcomes) for name, outcomes in by_model.items()}
        results = Results(
            models=counted,
            comparisons=_comparisons(bunch, found, by_model),
            optimism=_optimism(bunch, found, by_model, counted[found.winner].rates),
            splits=_splits(bunch, rows),
            provenance=_provenance(bunch, found) | {"merged": merged} | unreadable(by_model),
        )
        remove_report(run)
        write_atomic(path, results.to_json())

    def write_card() -> None:
        results = Results.read(path)
        data = data_card_inputs(bunch, run, rows, tallies(bunch, run))
        card = _card(bunch, found.recipes[found.winner], results, found.winner, data)
        write_atomic(run.path / "merged" / "README.md", card)
        write_manifest(run.path / "merged")

    worked |= run.step("results", [run.digest("evaluate"), run.digest("search:selection"), merged], [path], write)
    worked |= run.step("card", run.digest("results"), [run.path / "merged" / "README.md"], write_card)
    if not worked:
        watcher.kept("evaluate")
    return Results.read(path)


def _splits(bunch: Bunch, rows: Sequence[Row]) -> SplitCheck:
    """Count the splits' prompts; `generate`, which read the rows, has checked that none is in two."""
    sizes = Counter(row.split for row in rows)
    return SplitCheck(search=sizes["search"], selection=sizes["selection"], test=len(bunch.tests.rows))


def _models(bunch: Bunch, run: RunDirectory, found: SearchResult) -> dict[str, Candidate]:
    """Return the base, the experts and the merges as what to measure, in the order of presentation."""
    runtime, dtype = bunch.config.runtime, bunch.config.merge.dtype
    merged = open_model(ModelRef(str(run.path / "merged")))

    def of_model(source: ModelSource) -> Candidate:
        identity = model_identity(source, bunch.template_directory, runtime, dtype)
        return Candidate(identity, lambda: bunch.live.take_model(source))

    def of_recipe(recipe: Recipe) -> Candidate:
        return Candidate(bunch.merged_identity(recipe), lambda: bunch.live.take_recipe(recipe))

    models = {name: of_model(source) for name, source in {BASE: bunch.base, **bunch.experts}.items()}
    models |= {name: of_recipe(recipe) for name, recipe in found.recipes.items()}
    models[found.winner] = of_model(merged)
    return models


def _comparisons(bunch: Bunch, found: SearchResult, by_model: Mapping[str, Sequence[Outcome]]) -> list[Comparison]:
    """Return two declared families of comparisons, each with its own 5%.

    The first holds what a reader decides by: the chosen merge against each parent and the uniform merge, on refusals,
    guards' verdicts and accuracy. The second holds every other pair of a merge with a parent or a merge, on all
    measures.
    """
    seen = {name: observed(outcomes) for name, outcomes in by_model.items()}
    parents = list(bunch.experts)
    merges = list(found.recipes)
    first = [(found.winner, other) for other in dict.fromkeys([UNIFORM, *parents]) if other != found.winner]
    every = [(merge, parent) for merge in merges for parent in parents]
    every += [(later, earlier) for i, later in enumerate(merges) for earlier in merges[:i]]
    others = [pair for pair in every if pair not in first and pair[::-1] not in first]
    decisive = {
        name: {measure: of for measure, of in own.items() if is_decisive(measure)} for name, own in seen.items()
    }
    return [
        *_declared("the chosen merge", compare(decisive, first)),
        *_declared("all other pairs", compare(seen, others)),
    ]


def _declared(family: str, comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [row.model_copy(update={"family": family}) for row in comparisons]


def _optimism(
    bunch: Bunch, found: SearchResult, by_model: Mapping[str, Sequence[Outcome]], tested: Mapping[str, Rate]
) -> list[Optimism]:
    """Return the winner's rates on the selection split beside those on the test split, which are `tested`."""
    answered = found.choice.chosen_of(found.winner).answered
    rows = [optimism(REFUSAL, answered.refusal, tested[REFUSAL])]
    if answered.over_refusal is not None:
        rows.append(optimism(OVER_REFUSAL, answered.over_refusal, tested[OVER_REFUSAL]))
    for domain, expert in bunch.config.domain_experts.items():
        own, experts = (
            [outcome for outcome in by_model[name] if outcome.set == DOMAIN_PREFIX + domain]
            for name in (found.winner, expert)
        )
        agreed = [agrees(mine.response, theirs.response) for mine, theirs in zip(own, experts, strict=True)]
        rate = Rate.of(agreed, [outcome.family for outcome in own])
        rows.append(optimism(AGREEMENT_PREFIX + domain, answered.agreement[domain], rate))
    return rows


def _provenance(bunch: Bunch, found: SearchResult) -> dict[str, str]:
    config = bunch.config
    return {
        **software_versions(),
        "winner": found.winner,
        "objective": described_goal(found.goals["search"]),
        "safest expert": found.safest,
        "guard": _names(bunch.test_guards.values()),
        "search_guard": bunch.data_guard.name,
        "generate.seed": str(config.generate.seed),
        "search.seed": str(config.search.seed),
        **described_settings(config.evaluate, config.runtime, config.merge.dtype),
        **declared_licenses({BASE: bunch.base, **bunch.experts}),
        **bunch.fingerprints(),
    }


def _card(
    bunch: Bunch, recipe: Recipe, results: Results | None, winner: str | None, data: DataCardInputs | None = None
) -> str:
    return render_card(
        CardInputs(
            name=bunch.config.output_directory.name,
            models=[
                CardModel(public_name(source), _hub_id(source), declared_license(source))
                for source in [bunch.base, *bunch.experts.values()]
            ],
            recipe_yaml=_without_paths(bunch, recipe),
            guard=_names(bunch.test_guards.values()),
            hashes=bunch.fingerprints(),
            results=results,
            winner=winner,
            data=data,
            command="unspoiled run run.yaml",
            versions=software_versions(),
        )
    )


def _hub_id(source: ModelSource) -> str | None:
    """Return the id on the hub of a model, or of the adapter that makes it one; None for what lies on this machine."""
    path = (source.ref.adapter or source.ref).path
    return None if Path(path).is_absolute() else path


def _without_paths(bunch: Bunch, recipe: Recipe) -> str:
    """Return the recipe's YAML with models named as the card names them; `mergekit_config.yml` has the paths."""
    public = {str(source.ref): public_name(source) for source in [bunch.base, *bunch.experts.values()]}
    models = tuple(entry.model_copy(update={"model": public.get(entry.model, entry.model)}) for entry in recipe.models)
    base = recipe.base_model and public.get(recipe.base_model, recipe.base_model)
    return recipe.model_copy(update={"models": models, "base_model": base}).to_yaml()


def _names(guards: Iterable[Guard]) -> str:
    return " and ".join(guard.name for guard in guards)
