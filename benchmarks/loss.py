"""What the loss costs on the demo's bunch: beside bare forward passes, and its gradient beside the loss.

    python benchmarks/loss.py runs/demo examples/bunch/run.yaml

Scores the rows of the search split with the base, and runs bare forward passes of the same sequences, one at a time
without padding and in padded batches, with the head and without (`model.model`: the head's share of the work depends
on the vocabulary). The repeats of all take turns; medians. Prints two ratios of tokens/s, loss over forward pass:

- computed: each side's tokens are those that it computes. 1 would mean that packing, the head on response tokens and
  the cross-entropy cost nothing beside the body of the model.
- all: each side's tokens are those of the sequences. What the loss saves by computing once what sequences share counts.

The body's share of the loss's time is a third: the ratio to a bare forward pass of the very same packed rows.

Then the time of `backward`, all parameters requiring gradients, over that of `score`, with and without checkpointing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from unspoiled.config import read_run_config
from unspoiled.data import read_rows
from unspoiled.inference import Exchange, Prompt, TransformersBackend
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
    exchanges = [Exchange(Prompt(row.prompt), row.response) for row in rows if row.split == "search"]
    backend = bunch.live.take_model(bunch.base)
    print(f"{torch.get_num_threads()} threads, {backend.model.dtype}, {len(exchanges)} rows")
    _forward_ratios(backend, exchanges, arguments.repeats)
    _backward_ratios(backend, exchanges, arguments.repeats)


def _forward_ratios(backend: TransformersBackend, exchanges: Sequence[Exchange], repeats: int) -> None:
    encoded = [backend.template.encode(exchange) for exchange in exchanges]
    sequences = sorted(([*prompt, *response[:-1]] for prompt, response in encoded), key=len)
    every, computed = sum(map(len, sequences)), backend.tokens(exchanges)
    padded = sum(len(batch) * len(batch[-1]) for batch in _batches(sequences))
    with_head = backend.model
    body = getattr(with_head, with_head.base_model_prefix)
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "loss": (computed, lambda: backend.score(exchanges)),
        "body, one by one": (every, lambda: _one_by_one(body, sequences)),
        "body and head, one by one": (every, lambda: _one_by_one(with_head, sequences)),
        f"body, batches of {BATCH}": (padded, lambda: _padded(body, sequences)),
        f"body and head, batches of {BATCH}": (padded, lambda: _padded(with_head, sequences)),
    }
    seconds = _medians({name: work for name, (_, work) in works.items()}, repeats)
    share = statistics.median(_share_of(body, lambda: backend.score(exchanges)) for _ in range(repeats))
    print(f"{every} tokens; the loss computes {computed} of them, {sum(len(r) for _, r in encoded)} are of responses")
    for name, (tokens, _) in works.items():
        own = f"{name:34} {seconds[name]:7.2f} s {tokens / seconds[name]:7.0f} tokens/s"
        ratio = seconds[name] / seconds["loss"]
        print(f"{own}   loss / this: computed {ratio * computed / tokens:.2f}, all {ratio:.2f}")
    print(f"the body's share of the loss's time: {share:.3f}")


def _backward_ratios(backend: TransformersBackend, exchanges: Sequence[Exchange], repeats: int) -> None:
    def drop(parameter: torch.Tensor) -> None:
        parameter.grad = None

    weights = [1 / len(exchanges)] * len(exchanges)
    parameters = list(backend.model.parameters())
    hooks = [parameter.requires_grad_().register_post_accumulate_grad_hook(drop) for parameter in parameters]
    seconds = _medians(
        {
            "score": lambda: backend.score(exchanges),
            "backward": lambda: backend.backward(exchanges, weights),
            "backward, checkpointed": lambda: backend.backward(exchanges, weights, checkpoint=True),
        },
        repeats,
    )
    for hook in hooks:
        hook.remove()
    for name, found in seconds.items():
        print(f"{name:34} {found:7.2f} s = {found / seconds['score']:.2f} of score")


def _batches(sequences: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
    return [sequences[start : start + BATCH] for start in range(0, len(sequences), BATCH)]


@torch.inference_mode()
def _one_by_one(module: torch.nn.Module, sequences: Sequence[Sequence[int]]) -> None:
    for sequence in sequences:
        module(input_ids=torch.tensor([sequence]), use_cache=False)


@torch.inference_mode()
def _padded(module: torch.nn.Module, sequences: Sequence[Sequence[int]]) -> None:
    for batch in _batches(sequences):
        width = len(batch[-1])
        rows = [[*sequence, *[0] * (width - len(sequence))] for sequence in batch]
        module(input_ids=torch.tensor(rows), use_cache=False)


def _share_of(module: torch.nn.Module, work: Callable[[], object]) -> float:
    """Return the share of the work's time that is spent in the module."""
    began: list[float] = []
    ended: list[float] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_: began.append(time.perf_counter())),
        module.register_forward_hook(lambda *_: ended.append(time.perf_counter())),
    ]
    start = time.perf_counter()
    work()
    whole = time.perf_counter() - start
    for hook in hooks:
        hook.remove()
    return (sum(ended) - sum(began)) / whole


def _medians(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return each work's median seconds; they take turns, after one round that doesn't count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


if __name__ == "__main__":
    main()
