"""What the loss of a trial costs on the demo's bunch, beside a bare forward pass; live.py has what merging adds.

    python benchmarks/trial.py runs/demo examples/bunch/run.yaml

Prints ratios of times measured in this run, medians over the repeats: the loss's tokens/s over those of a bare forward
pass of the same tokens, one sequence at a time without padding, and of a forward pass of padded batches of the same
sequences. More than 1 means that the loss is cheaper than the forward pass: tokens that sequences share are computed
once, and the head runs on response tokens alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from unspoiled.config import read_run_config
from unspoiled.data import Row, read_rows
from unspoiled.inference import Exchange, Prompt, TransformersBackend
from unspoiled.objective import split_objective
from unspoiled.pipeline import open_bunch

BATCH = 32


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
    _forward_ratios(backend, [*objective.safety, *objective.expert], loss, arguments.repeats)


def _forward_ratios(backend: TransformersBackend, rows: Sequence[Row], loss: float, repeats: int) -> None:
    encoded = [backend.template.encode(Exchange(Prompt(row.prompt), row.response)) for row in rows]
    sequences = sorted(([*prompt, *response[:-1]] for prompt, response in encoded), key=len)
    tokens = sum(map(len, sequences))

    @torch.inference_mode()
    def one_by_one() -> None:
        for sequence in sequences:
            backend.model(input_ids=torch.tensor([sequence]), use_cache=False)

    @torch.inference_mode()
    def padded() -> None:
        for start in range(0, len(sequences), BATCH):
            batch = sequences[start : start + BATCH]
            ids = torch.zeros(len(batch), len(batch[-1]), dtype=torch.long)
            for i, sequence in enumerate(batch):
                ids[i, : len(sequence)] = torch.tensor(sequence)
            backend.model(input_ids=ids, use_cache=False)

    print(f"loss: {tokens / loss:.0f} tokens/s ({tokens} tokens)")
    for name, forward in (("one by one, no padding", one_by_one), (f"batches of {BATCH}, padded", padded)):
        seconds = _median(forward, repeats)
        ratio = seconds / loss
        print(f"bare forward, {name}: {tokens / seconds:.0f} tokens/s; the loss is {ratio:.2f} times as fast")


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
