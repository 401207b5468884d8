"""A search on one accelerator: random models of a real shape, a base and two experts, re-merged on the device.

    python benchmarks/gpu_search.py /fast/disk/bunch --size 8b

Makes its own bunch (bfloat16; the experts are LoRA adapters of rank 16, or full checkpoints with `--full`), puts it
into memory, and reports for the rows of a made-up data set: trials per minute, the share of the time that is merging,
gradient steps per minute, and the peak of the device's memory; then how long 100 trials and a gradient search of 40
steps take. The weights are random, so the losses mean nothing; the times do not depend on them. Without a GPU it runs
on the CPU (`--size tiny` shows that it works).
"""

from __future__ import annotations

import argparse
import random
import statistics
import string
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from random_bunch import SIZES, TINY, Shape, write_adapter_bunch, write_random_bunch
from unspoiled.checkpoints import ModelRef, ModelSource, open_model
from unspoiled.data import Row
from unspoiled.inference import LiveBunch
from unspoiled.merging import Models
from unspoiled.objective import LossRows, WeightedSum
from unspoiled.search import GradientRequest, LiveEvaluator, Proposal, Range, SearchSpace, module_kinds

SHAPES: Mapping[str, Shape] = {"tiny": TINY, **SIZES}
GOAL = WeightedSum(1.0, 1.0)


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the bunch is made, unless it is there")
    parser.add_argument("--size", choices=list(SHAPES), default="8b")
    parser.add_argument("--full", action="store_true", help="full checkpoints as experts")
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--rows", type=int, default=140, help="rows of each set")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--checkpoint", action="store_true", help="activation checkpointing for the gradients")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models, base = _open(arguments.directory, SHAPES[arguments.size], full=arguments.full)
    data = _made_up_rows(arguments.rows)
    begun = time.perf_counter()
    live = LiveBunch(
        models, base, merged_template=base.tokenizer_directory, dtype=torch.bfloat16, device=device, batch_size=64
    )
    evaluator = LiveEvaluator(live, {"search": data}, GOAL, checkpoint=arguments.checkpoint)
    print(f"{arguments.size}: loaded onto {device} in {time.perf_counter() - begun:.1f} s, {len(data.rows)} rows")
    space = _space(models, base, arguments.method)
    draw = random.Random(0)

    def genome() -> list[float]:
        return [draw.uniform(0.2, 0.8) for _ in range(space.size)]

    def trial() -> tuple[float, float]:
        found = evaluator.evaluate(Proposal(0, space.recipe(genome()), {}))
        assert found is not None, "a trial failed: out of memory?"
        return found.merge_seconds, found.loss_seconds

    def step() -> tuple[float, float]:
        request = GradientRequest(space, {"safety": 1.0, "expert": 1.0, "benign": 1.0})
        rows = data.minibatch(draw.randrange(100), 8)
        found = evaluator.evaluate(Proposal(0, space.recipe(genome()), {}, rows=rows, gradient=request))
        assert found is not None, "a step failed: out of memory? Try --checkpoint"
        return found.merge_seconds, found.loss_seconds

    print(f"{space.size} coefficients, {arguments.method}, {'full' if arguments.full else 'LoRA'} experts")
    merge, loss = _median(trial, arguments.trials)
    print(f"{60 / (merge + loss):.1f} trials a minute; merging is {merge / (merge + loss):.0%} of it")
    print(f"100 trials: {100 * (merge + loss) / 60:.1f} minutes")
    merge, loss = _median(step, arguments.trials)
    print(f"{60 / (merge + loss):.1f} gradient steps a minute; 40 steps: {40 * (merge + loss) / 60:.1f} minutes")
    if device == "cuda":
        print(f"peak memory of the device: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def _open(directory: Path, shape: Shape, *, full: bool) -> tuple[Models, ModelSource]:
    if full:
        write_random_bunch(directory / "full", shape, device="cuda" if torch.cuda.is_available() else "cpu")
        refs = [ModelRef(str(directory / "full" / name)) for name in ("base", "first", "second")]
    else:
        refs = write_adapter_bunch(directory / "lora", shape)
    sources = [open_model(ref) for ref in refs]
    return Models({str(source.ref): source for source in sources}), sources[0]


def _space(models: Models, base: ModelSource, method: str) -> SearchSpace:
    experts = {name.rsplit("/", 1)[-1]: name for name in models.sources if name != str(base.ref)}
    return SearchSpace(
        method=method,
        base=str(base.ref),
        experts=experts,
        layers=models.layer_count,
        ranges={"weight": Range(0.0, 1.5, 0.5)},
        granularity="module",
        kinds=module_kinds(list(models.output.shapes)),
    )


def _made_up_rows(count: int) -> LossRows:
    """Return rows of each set: prompts of 60 tokens and responses of 40, in bytes."""
    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(draw.choices(string.ascii_lowercase + " ", k=length))

    return LossRows(
        tuple(
            Row(f"{kind}{i}", kind, "made up", text(60), text(40), "nobody", "nobody", "search")
            for kind in ("safety", "expert", "benign")
            for i in range(count)
        )
    )


def _median(work: Callable[[], tuple[float, float]], repeats: int) -> tuple[float, float]:
    work()
    found = [work() for _ in range(repeats)]
    return statistics.median(merge for merge, _ in found), statistics.median(loss for _, loss in found)


if __name__ == "__main__":
    main()
