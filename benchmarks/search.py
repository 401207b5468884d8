"""What each strategy reaches for its compute on the demo's bunch, and where a search stops scaling.

    python benchmarks/search.py runs/demo examples/bunch/run.yaml --at runs/search-benchmark --write
    python benchmarks/search.py runs/demo examples/bunch/run.yaml --at runs/search-benchmark --simulate

The first command runs grid, cocktail, random, evolve and gradient on one objective, J = CE_safety + CE_expert +
CE_benign on the search split, from several seeds. Compute is counted in tokens of a forward pass (a backward pass
counts as two). The paper's strategies move what they move in the paper, one weight per expert; gradient moves one
weight per expert and tensor. Each run's best trial by J on the selection split writes answers on the test split. Every
trial is kept in a study in `--at`: the command continues where it stopped. `--write` writes docs/benchmarks/search.md
and its figure.

The second replays the times of those trials against 1 to 256 workers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import torch

from search_results import Curve, TestRates, write_page
from unspoiled.config import Recipe, read_run_config
from unspoiled.data import Row, Split, read_rows
from unspoiled.evaluate import measure, scores
from unspoiled.objective import TERMS, Losses, LossRows, WeightedSum
from unspoiled.pipeline import Bunch, kinds_of, open_bunch
from unspoiled.search import (
    Cocktail,
    Evolve,
    Gradient,
    Granularity,
    Grid,
    InProcess,
    Listed,
    LiveEvaluator,
    Parents,
    Proposal,
    Random,
    SearchSpace,
    Strategy,
    Study,
    Trial,
    cocktail_weights,
    population_size,
    sqlite_url,
)
from worker_simulation import (
    Scaling,
    TrialTime,
    scale_generations,
    scale_gradient,
    scale_population,
    stops_scaling,
)

GOAL = WeightedSum(alpha=1.0, beta=1.0)
RUNS = ("grid=1", "cocktail=1", "gradient=3", "evolve=3", "random=3")


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    bunch: Bunch
    rows: Sequence[Row]
    folder: Path
    trials: int
    steps: int

    @cached_property
    def splits(self) -> dict[Split, LossRows]:
        """The rows of both splits."""
        return {split: LossRows.of_split(self.rows, split) for split in get_args(Split)}

    def space(self, granularity: Granularity) -> SearchSpace:
        """Return the bunch's space with other coefficients."""
        kinds = kinds_of(granularity, self.bunch.base, self.bunch.experts)
        return replace(self.bunch.space, granularity=granularity, kinds=kinds)

    def study(self, name: str) -> Study:
        return Study(
            sqlite_url(self.folder / "study.db"),
            name,
            terms=self.splits["search"].terms,
            objective={"alpha": GOAL.alpha, "beta": GOAL.beta, "rows": [row.id for row in self.rows]},
        )

    def run(self, name: str, seed: int) -> list[Trial]:
        """Run one strategy from one seed, or read what it found."""
        executor = InProcess(LiveEvaluator(self.bunch.live, self.splits, GOAL))
        study = self.study(f"{name} {seed}")
        trials = study.run(self._strategy(name, seed), executor)
        probed = [trial for trial in trials if trial.candidate and trial.split == "selection"]
        if probed:  # gradient looks at the selection split: its curve is drawn on the search split like the others'
            again = [Proposal(i, t.recipe, t.coefficients, candidate=False) for i, t in enumerate(probed)]
            study.run(Listed("probe", again), executor)
        print(f"{name}, seed {seed}: {len(trials)} trials", flush=True)
        return [trial for trial in study.trials if trial.strategy != "parents"]

    def _strategy(self, name: str, seed: int) -> Strategy:
        if name == "grid":
            return Grid(self.space("model"))
        if name == "cocktail":
            return Cocktail(self.space("model"), self._parents())
        if name == "random":
            return Random(self.space("model"), trials=self.trials, seed=seed)
        if name == "gradient":
            space = self.space("tensor")
            start = space.constant(cocktail_weights([loss.union for loss in self._parents().values()], 1.0))
            return Gradient(space, GOAL, self.splits["search"], steps=self.steps, seed=seed, start=start)
        return Evolve(self.space("model"), GOAL, trials=self.trials, seed=seed)

    def _parents(self) -> dict[str, Losses]:
        parents = Parents(self.bunch.space.experts, dtype=self.bunch.space.dtype)
        self.study("parents").run(parents, InProcess(LiveEvaluator(self.bunch.live, self.splits, GOAL)))
        return {name: parents.losses("search")[name] for name in self.bunch.space.experts}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's directory, for its data")
    parser.add_argument("config", type=Path, help="that run's config")
    parser.add_argument("--at", type=Path, required=True, help="where the studies are kept")
    parser.add_argument("--runs", nargs="+", default=RUNS, help="STRATEGY=SEEDS; evolve and gradient at least once")
    parser.add_argument("--trials", type=int, default=100, help="trials of random and evolve")
    parser.add_argument("--steps", type=int, default=40, help="steps of gradient")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/search.md")
    parser.add_argument("--most", type=int, default=40, help="rows of every set and split at most, for evolve's sake")
    arguments = parser.parse_args()
    bunch = open_bunch(read_run_config(arguments.config))
    rows = _limited(arguments.run / "data", arguments.most)
    arguments.at.mkdir(parents=True, exist_ok=True)
    bench = Bench(bunch, rows, arguments.at, arguments.trials, arguments.steps)
    wanted = [entry.partition("=") for entry in arguments.runs]
    runs = {(name, seed): bench.run(name, seed) for name, _, seeds in wanted for seed in range(int(seeds))}
    scalings = _simulate(bench, runs)
    for title, table in scalings.items():
        _print_scaling(title, table)
    if arguments.simulate:
        return
    curves = [_curve(name, seed, trials) for (name, seed), trials in runs.items()]
    tests = {key: _tested(bench, key, _chosen(bench, trials)) for key, trials in runs.items()}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads of {os.cpu_count()}, torch {torch.__version__}"
    machine += f"; at most {arguments.most} rows of every set and split"
    page = write_page(curves, tests, scalings, machine, Path("docs/benchmarks") if arguments.write else arguments.at)
    print(page.read_text(encoding="utf-8"))


def _limited(folder: Path, most: int) -> list[Row]:
    """Return the first rows of every set and split, domains in turns."""
    rows: list[Row] = []
    for split in get_args(Split):
        files = [[r for r in read_rows(path) if r.split == split] for path in sorted(folder.glob("*.jsonl"))]
        for kind in TERMS:
            own = [file for file in files if any(row.set == kind for row in file)]
            rows += [row for turn in itertools.zip_longest(*own) for row in turn if row is not None][:most]
    return rows


def _curve(name: str, seed: int, trials: Sequence[Trial]) -> Curve:
    """Return J of the best recipe so far on the search split, against the tokens spent until then."""
    probes = {tuple(t.coefficients.values()): t for t in trials if t.strategy == "probe"}
    spent, best = 0, float("inf")
    points = []
    for trial in trials:
        if trial.strategy == "probe" or trial.evaluation is None:
            continue
        spent += trial.evaluation.tokens
        judged = probes.get(tuple(trial.coefficients.values()), trial) if trial.split == "selection" else trial
        if not trial.candidate or judged.evaluation is None:
            continue
        best = min(best, GOAL.score(judged.evaluation.losses).value)
        points.append((spent, best))
    return Curve(name, seed, tuple(points))


def _chosen(bench: Bench, trials: Sequence[Trial]) -> Recipe:
    """Return the recipe of the lowest J on the selection split among the five best candidates."""
    candidates = [t for t in trials if t.candidate and t.evaluation is not None and not t.evaluation.stopped]
    best = sorted(candidates, key=lambda t: GOAL.score(t.evaluation.losses).value if t.evaluation else 0.0)[:5]
    evaluator = LiveEvaluator(bench.bunch.live, bench.splits, GOAL)
    found = []
    for index, trial in enumerate(best):
        evaluation = evaluator.evaluate(Proposal(index, trial.recipe, trial.coefficients, split="selection"))
        if evaluation is not None:
            found.append((GOAL.score(evaluation.losses).value, index))
    return best[min(found)[1]].recipe


def _tested(bench: Bench, key: tuple[str, int], recipe: Recipe) -> TestRates:
    """Return the test rates of a recipe, kept in a file by its strategy and seed."""
    path = bench.folder / f"{key[0]}-{key[1]}.json".replace(" ", "-")
    known: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("recipe") != recipe.to_yaml():
        found = scores(measure(bench.bunch.live.take_recipe(recipe), bench.bunch.tests, bench.bunch.test_guards))
        known = {"recipe": recipe.to_yaml(), "rates": TestRates.of(found).as_json()}
        path.write_text(json.dumps(known), encoding="utf-8")
    return TestRates.from_json(known["rates"])


def _simulate(bench: Bench, runs: Mapping[tuple[str, int], Sequence[Trial]]) -> dict[str, list[Scaling]]:
    full = _times(t for t in runs["evolve", 0] if t.strategy == "evolve")
    steps = _times(t for t in runs["gradient", 0] if t.evaluation is not None and t.evaluation.gradient is not None)
    few, many = bench.space("model").size, bench.space("tensor").size
    batch = [t for t in runs["gradient", 0] if t.evaluation is not None and t.evaluation.gradient is not None]
    rows = len(batch[0].evaluation.rows) if batch[0].evaluation else 0
    return {
        f"evolve, {few} weights, its own population": scale_generations(
            full, population=population_size(few), generations=14, seed=0
        ),
        f"evolve, {many} weights, its own population": scale_generations(
            full, population=population_size(many), generations=5, seed=0
        ),
        f"evolve, {few} weights, population = workers, to 1% of the start's value": scale_population(
            full, coefficients=few, target=0.01, seed=0
        ),
        f"gradient, {many} weights, minibatches of {rows} rows in shards": scale_gradient(
            steps, rows=rows, least_rows=len(bench.splits["search"].terms), steps=bench.steps, told=0.01, seed=0
        ),
    }


def _times(trials: Iterable[Trial]) -> list[TrialTime]:
    return [
        TrialTime(t.evaluation.merge_seconds, t.evaluation.loss_seconds) for t in trials if t.evaluation is not None
    ]


def _print_scaling(title: str, table: Sequence[Scaling]) -> None:
    print(f"\n{title}: stops scaling at {stops_scaling(table)} workers")
    for row in table:
        print(
            f"  {row.workers:4} workers: {row.seconds:8.1f} s, {row.speedup:6.2f} times as fast, "
            f"{row.busy:4.0%} busy, {row.trials} trials"
        )


if __name__ == "__main__":
    main()
