"""What a trial costs on the demo's bunch: merging beside the loss.

    python benchmarks/trial.py runs/demo examples/bunch/run.yaml

Prints the ratio of times measured in this run, medians over the repeats: (merge + loss) / loss, per method and
granularity. 1 would be a free merge.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unspoiled.config import read_run_config
from unspoiled.data import read_rows
from unspoiled.objective import split_objective
from unspoiled.pipeline import open_bunch
from unspoiled.search import SearchSpace


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run's directory, for its data")
    parser.add_argument("config", type=Path, help="that run's config")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    bunch = open_bunch(read_run_config(arguments.config))
    rows = [row for path in sorted((arguments.run / "data").glob("*.jsonl")) for row in read_rows(path)]
    objective = split_objective(rows, "search", 0.3)
    space = bunch.space
    backend = bunch.live.take_recipe(space.recipe(space.constant([0.5] * len(space.experts))))
    loss = _median(lambda: objective.evaluate(backend), arguments.repeats)
    print(f"{torch.get_num_threads()} threads, {len(objective.safety)} + {len(objective.expert)} rows")
    for method in ("task_arithmetic", "linear"):
        for granularity in ("model", "layer"):
            varied = SearchSpace(
                method=method,
                base=space.base,
                experts=space.experts,
                layers=space.layers,
                granularity=granularity,
                dtype=space.dtype,
            )
            recipe = varied.recipe(varied.constant([0.5] * len(space.experts)))
            merge = _median(lambda recipe=recipe: bunch.live.take_recipe(recipe), arguments.repeats)  # type: ignore[misc]
            print(f"{method:16} {granularity:6} (merge + loss) / loss = {(merge + loss) / loss:.3f}")


def _median(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
