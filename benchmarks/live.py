"""What merging adds to a trial of a search on the demo's bunch, for every method.

    python benchmarks/live.py runs/demo examples/bunch/run.yaml --write docs/benchmarks/live.md

For each method, on the base and the LoRA experts of a config, in one model in memory (`LiveModel`):

- first: the first merge by the method, which measures and prepares what later ones keep, over the loss;
- trial: (re-merge with the named coefficient moved, for all tensors, + loss) / loss. A free merge would make it 1; the
  target is 1.15;
- kept: what is kept for the next trial beside the model and the checkpoints.

The loss is the search's objective on the search split of a finished run's data, measured beside each method's merges;
ratios are medians over the repeats. Methods of one or two models take the first of the experts; those of models with
roles take the first as the safe one.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unspoiled.config import ModelEntry, Recipe, read_run_config
from unspoiled.data import read_rows
from unspoiled.inference import LiveBunch
from unspoiled.merging import Method, Parameter, all_methods
from unspoiled.objective import split_objective
from unspoiled.pipeline import open_bunch
from unspoiled.search import SearchSpace

TARGET = 1.15
FIRST = [
    "task_arithmetic",
    "linear",
    "ties",
    "dare_ties",
    "dare_linear",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "model_stock",
    "sce",
    "consensus",
]
"""The methods that people use most; the others follow by name."""
START: dict[str, Any] = {"weight": 0.5, "t": 0.4, "density": 0.5, "select_topk": 0.5, "steps": 5}
SAFETY = {"resta": (1, 0, -1), "safemerge": (1, 0, -1), "mergealign": (1, 0)}
MOVED = ("weight", "t", "alpha", "scale", "tau", "select_topk", "epsilon", "tol")
"""The coefficient that a trial moves: the first of these that the method has; and `density` beside it."""
FACTORS = (1.0, 0.9, 0.8, 0.95, 0.85, 0.75)
NOTES = {
    "tsv_m": "three decompositions per matrix and trial, of low rank",
    "iso_c": "one decomposition per matrix and trial, of low rank",
    "wudi": f"{START['steps']} of the default 300 steps per trial",
    "safemerge": "products of whole matrices in each trial",
    "model_stock": "nothing to move but a switch",
    "arcee_fusion": "nothing to move",
}


@dataclass(frozen=True)
class Row:
    """The ratios of one method; `trial` is None where nothing moves."""

    method: str
    moved: str
    first: float
    trial: float | None
    kept: int


def main() -> None:
    """Parse the arguments, measure, print, and exit with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's directory, for its data")
    parser.add_argument("config", type=Path, help="that run's config")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", type=lambda text: text.split(","), help="names, separated by commas")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table as a Markdown page")
    arguments = parser.parse_args()
    bunch = open_bunch(read_run_config(arguments.config))
    rows = [row for path in sorted((arguments.run / "data").glob("*.jsonl")) for row in read_rows(path)]
    objective = split_objective(rows, "search", 0.3)
    backend = bunch.live.take_recipe(bunch.space.recipe(bunch.space.constant([0.5] * len(bunch.space.experts))))

    def loss() -> None:
        objective.evaluate(backend)

    loss()
    found: list[Row] = []
    skipped: list[str] = []
    for method in _ordered(arguments.methods):
        if why := _unfit(method, len(bunch.space.experts)):
            skipped.append(f"{method.name}: {why}")
            continue
        for row in _measured(method, bunch.live, bunch.space, loss, arguments.repeats):
            found.append(row)
            print(_line(row), flush=True)
    print("\n".join(f"skipped {one}" for one in skipped))
    if arguments.write is not None:
        size = f"{len(objective.safety)} + {len(objective.expert)} rows"
        arguments.write.write_text(_page(found, skipped, size, arguments), encoding="utf-8")
    sys.exit(any(row.trial is not None and row.trial > TARGET for row in found))


def _ordered(names: Sequence[str] | None) -> list[Method]:
    places = {name: place for place, name in enumerate(FIRST)}
    methods = sorted(all_methods(), key=lambda method: (places.get(method.name, len(FIRST)), method.name))
    return [method for method in methods if names is None or method.name in names]


def _unfit(method: Method, experts: int) -> str | None:
    if method.statistics:
        return "it needs statistics of the experts' data, and this run has none"
    if method.experts[0] > experts:
        return f"it merges {method.experts[0]} models, and the bunch has {experts}"
    return None


def _measured(method: Method, live: LiveBunch, space: SearchSpace, loss: Callable[[], None], repeats: int) -> list[Row]:
    """Return the ratios when each of the coefficients that a trial may move does."""
    names = [parameter.name for parameter in method.parameters]
    moved = [name for name in MOVED if name in names][:1] + [name for name in ("density",) if name in names]
    firsts: list[float] = []
    trials: dict[str, list[float]] = {name: [] for name in moved}
    for _ in range(repeats):
        live.take_recipe(_recipe("passthrough", space, {}))  # what was kept for the method is let go
        first = _seconds(lambda: live.take_recipe(_recipe(method.name, space, {})))
        kept = live.live.kept_bytes
        for name in moved:
            times = []
            for factor in FACTORS[1:3]:
                times.append(_seconds(lambda n=name, f=factor: live.take_recipe(_recipe(method.name, space, {n: f}))))  # type: ignore[misc]
            alone = _seconds(loss)
            trials[name].append(statistics.median(times) / alone)
        if not moved:
            alone = _seconds(loss)
        firsts.append(first / alone)
    first = statistics.median(firsts)
    return [Row(method.name, name, first, 1 + statistics.median(trials[name]), kept) for name in moved] or [
        Row(method.name, "–", first, None, kept)
    ]


def _recipe(name: str, space: SearchSpace, factors: dict[str, float]) -> Recipe:
    """Return a recipe of the bunch's experts in which some coefficients are multiplied by a factor."""
    (method,) = [method for method in all_methods() if method.name == name]
    experts = list(space.experts.values())[: method.experts[1]]

    def value(parameter: Parameter, place: int) -> Any:
        if parameter.name == "safety":
            return SAFETY[name][place]
        start = START.get(parameter.name, parameter.default)
        return start * factors[parameter.name] * (1 + 0.1 * place) if parameter.name in factors else start

    return Recipe(
        merge_method=name,
        base_model=None if method.base == "unused" else space.base,
        models=tuple(
            ModelEntry(model=expert, parameters={p.name: value(p, i) for p in method.parameters if p.scope == "model"})
            for i, expert in enumerate(experts)
        ),
        parameters={p.name: value(p, 0) for p in method.parameters if p.scope == "merge"},
        dtype=space.dtype,
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _line(row: Row) -> str:
    trial = "    –" if row.trial is None else f"{row.trial:5.3f}"
    return f"{row.method:18} {row.moved:12} first {row.first:6.3f}  trial {trial}  kept {row.kept / 2**20:,.0f} MiB"


def _page(rows: Sequence[Row], skipped: Sequence[str], size: str, arguments: argparse.Namespace) -> str:
    """Return the Markdown page."""
    assert __doc__ is not None
    command = f"python benchmarks/live.py runs/demo examples/bunch/run.yaml --repeats {arguments.repeats}"
    table = ["| method | moved | first / loss | trial | kept, MiB | |", "|---|---|---:|---:|---:|---|"]
    for row in rows:
        trial = "–" if row.trial is None else f"{row.trial:.3f}"
        trial = f"**{trial} > {TARGET}**" if row.trial is not None and row.trial > TARGET else trial
        note = NOTES.get(row.method, "")
        table.append(f"| {row.method} | {row.moved} | {row.first:.2f} | {trial} | {row.kept / 2**20:,.0f} | {note} |")
    machine = (
        f"{torch.get_num_threads()} threads on {len(os.sched_getaffinity(0))} processors, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )
    parts = [
        "# What merging adds to a trial",
        f"`{command} --write docs/benchmarks/live.md` made this page with {machine}; the loss is of {size}.",
        __doc__.split("\n\n", 2)[2].strip(),
        "\n".join(table),
        *(["Skipped:\n\n" + "\n".join(f"- {one}" for one in skipped)] if skipped else []),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
