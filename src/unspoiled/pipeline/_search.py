"""The stage that searches the coefficients, and picks the winner on prompts that the search didn't move on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspoiled.config import Recipe, read_recipe
from unspoiled.data import Row
from unspoiled.errors import SearchError
from unspoiled.files import write_atomic, write_json_atomic
from unspoiled.inference import TransformersBackend
from unspoiled.objective import Losses, Objective, split_objective
from unspoiled.pipeline._bunch import Bunch
from unspoiled.pipeline._directory import RunDirectory
from unspoiled.pipeline._progress import Watcher
from unspoiled.search import Cocktail, Evolve, Grid, Strategy, Study, Trial, best_trials, sqlite_url, uniform


@dataclass(frozen=True)
class SearchResult:
    """What a search chose.

    Args:
        recipes: The best recipe of each strategy by its name, `uniform` first.
        winner: The strategy whose recipe has the lowest J on the selection split.
        trials: Every trial.
    """

    recipes: Mapping[str, Recipe]
    winner: str
    trials: Sequence[Trial]


def search(bunch: Bunch, run: RunDirectory, rows: Sequence[Row], watcher: Watcher) -> SearchResult:
    """Run the strategies on the search split, then pick among their finalists on the selection split.

    Every trial merges in memory; the study is `study.db` in the run directory. The uniform merge competes as a
    baseline and can't win: it is what the search must beat.
    """
    config = bunch.config.search
    folder = run.path / "search"
    folder.mkdir(exist_ok=True)
    names = ["uniform", *config.strategies]
    if not (folder / "study.db").exists():  # opening it makes it, and a step would take it for its own
        for name in names:
            run.forget(f"search:{name}")
    study = Study(sqlite_url(folder / "study.db"))
    objective = split_objective(rows, "search", config.alpha)
    data = [[row.id, row.response, row.split] for row in rows]
    bench = _Bench(bunch)
    watcher.begin("search")
    worked = False
    for name in names:

        def run_strategy(name: str = name) -> None:
            strategy = _strategy(name, bunch)
            total = config.trials if name == "evolve" else 0
            made: list[Trial] = []

            def report(trial: Trial) -> None:
                made.append(trial)
                watcher.advance(f"{name} trials", len(made), max(total, len(made)))

            study.run(strategy, bench.merge, lambda: bench.losses(objective), progress=report)

        inputs = [config.model_dump(mode="json"), bunch.models_hash, data]
        worked |= run.step(f"search:{name}", inputs, [folder / "study.db"], run_strategy)
    trials = study.trials
    finalists = folder / "finalists.json"
    outputs = [finalists, run.path / "recipe.yaml", *(folder / f"{name}.yaml" for name in names)]

    def choose() -> None:
        selection = split_objective(rows, "selection", config.alpha)
        table = []
        for name in names:
            best = best_trials([trial for trial in trials if trial.strategy == name], config.finalists)
            for i, trial in enumerate(best):
                bench.merge(trial.recipe)
                table.append(_finalist(name, trial, bench.losses(selection)))
                watcher.advance(f"{name} finalists", i + 1, len(best))
            chosen = min((row for row in table if row["strategy"] == name), key=lambda row: row["selection"]["total"])
            recipe = next(trial.recipe for trial in best if trial.number == chosen["trial"])
            write_atomic(folder / f"{name}.yaml", recipe.to_yaml())
        contenders = [row for row in table if row["strategy"] != "uniform"]
        winner = min(contenders, key=lambda row: row["selection"]["total"])
        write_atomic(run.path / "recipe.yaml", (folder / f"{winner['strategy']}.yaml").read_text(encoding="utf-8"))
        write_json_atomic(finalists, {"winner": winner["strategy"], "finalists": table})

    worked |= run.step("search:selection", [run.digest(f"search:{name}") for name in names], outputs, choose)
    if not worked:
        watcher.kept("search")
    return _read(folder, names, trials)


class _Bench:
    """The live model as the study uses it: merge, then lose."""

    def __init__(self, bunch: Bunch) -> None:
        self._bunch = bunch
        self._backend: TransformersBackend | None = None

    def merge(self, recipe: Recipe) -> None:
        self._backend = self._bunch.live.take_recipe(recipe)

    def losses(self, objective: Objective) -> Losses:
        assert self._backend is not None, "merge before losses"
        return objective.evaluate(self._backend)


def _strategy(name: str, bunch: Bunch) -> Strategy:
    config, space = bunch.config.search, bunch.space
    match name:
        case "uniform":
            return uniform(space)
        case "grid":
            return Grid(space)
        case "cocktail":
            return Cocktail(space, temperature=config.temperature)
        case "evolve":
            return Evolve(space, trials=config.trials, seed=config.seed, step=config.step)
        case _:
            raise SearchError(f"there is no strategy {name!r}")


def _finalist(strategy: str, trial: Trial, selection: Losses) -> dict[str, Any]:
    assert trial.losses is not None

    def plain(losses: Losses) -> dict[str, object]:
        return {
            "total": losses.total,
            "safety": losses.safety,
            "expert": losses.expert,
            "domains": dict(losses.domains),
        }

    return {
        "strategy": strategy,
        "trial": trial.number,
        "coefficients": trial.coefficients,
        "search": plain(trial.losses),
        "selection": plain(selection),
    }


def _read(folder: Path, names: Sequence[str], trials: Sequence[Trial]) -> SearchResult:
    winner = json.loads((folder / "finalists.json").read_text(encoding="utf-8"))["winner"]
    return SearchResult({name: read_recipe(folder / f"{name}.yaml") for name in names}, winner, trials)
