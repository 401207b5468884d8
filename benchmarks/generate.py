"""Generation on the demo's base: tokens/s and memory beside transformers' own `generate`, in the same run.

    python benchmarks/generate.py [--prompts N] [--write]

Greedy replies to prompts of the demo's test sets. Counted are the tokens that are of use: what a row is padded with
after its end is not. Transformers' `generate` gets the prompts sorted by length, in static batches of each of several
sizes; the best of them is compared. Every way runs in a process of its own, in turns, so that its peak memory is its
own; start-up and loading are not part of the time. Medians of the repeats; target: a ratio of at least 0.7.

What both write should be the same but where two tokens are equally likely within the dtype's rounding, which the shape
of a batch decides; the share of equal replies is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from unspoiled.files import write_atomic
from unspoiled.inference import Prompt, TransformersBackend, load_chat_template, load_model

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples" / "bunch" / "models" / "base"
DATA = ROOT / "examples" / "bunch" / "data" / "test"
PAGE = ROOT / "docs" / "benchmarks" / "generate.md"
TARGET = 0.7
OURS = "ours"
SIZES = (8, 16, 32, 64)
"""Batch sizes that transformers' own `generate` is tried with."""


@dataclass(frozen=True)
class Measured:
    """What one way of generating took, once.

    Attributes:
        seconds: The time of writing to all prompts.
        tokens: The tokens written, each row's end included and nothing after it.
        loaded: Resident memory with the model loaded, in bytes.
        peak: Largest resident memory, in bytes.
        replies: The token ids written to each prompt, as text.
    """

    seconds: float
    tokens: int
    loaded: int
    peak: int
    replies: list[str]

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Work:
    """What every way has to do.

    Attributes:
        prompts: How many prompts, spread evenly over the demo's test sets.
        max_new_tokens: Most tokens written to each.
        dtype: The name of the model's dtype.
        threads: How many threads torch computes with.
    """

    prompts: int
    max_new_tokens: int
    dtype: str
    threads: int


def main() -> None:
    """Parse the arguments, measure, print, and exit with 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="transformers' batch sizes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--way", help=argparse.SUPPRESS)  # measure this one alone, for the process that compares
    arguments = parser.parse_args()
    work = Work(arguments.prompts, arguments.max_new_tokens, arguments.dtype, arguments.threads)
    if arguments.way:
        print(json.dumps(asdict(measure(arguments.way, work))))
        return
    ways = [OURS, *(f"transformers, batches of {size}" for size in arguments.sizes)]
    found: dict[str, list[Measured]] = {way: [] for way in ways}
    for _ in range(arguments.repeats):
        for way in ways:
            found[way].append(in_own_process(way, work))
            print(f"{way:28} {found[way][-1].speed:7.1f} tokens/s", file=sys.stderr, flush=True)
    text = page(found, work)
    print(text)
    if arguments.write:
        write_atomic(PAGE, text)
    sys.exit(ratio(found) < TARGET)


def in_own_process(way: str, work: Work) -> Measured:
    """Return what a way took, measured in a new process."""
    command = [sys.executable, __file__, "--way", way, "--prompts", str(work.prompts)]
    command += ["--max-new-tokens", str(work.max_new_tokens), "--dtype", work.dtype, "--threads", str(work.threads)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Measured(**json.loads(output.splitlines()[-1]))


def measure(way: str, work: Work) -> Measured:
    """Return what a way of generating takes in this process."""
    torch.set_num_threads(work.threads)
    model = load_model(MODEL, dtype=getattr(torch, work.dtype))
    backend = TransformersBackend(model, load_chat_template(MODEL), batch_size="auto")
    prompts = [backend.template.prompt_ids(prompt) for prompt in read_prompts(work.prompts)]
    loaded = resident()
    start = time.perf_counter()
    if way == OURS:
        written = [list(each.tokens) for each in backend.complete(prompts, max_new_tokens=work.max_new_tokens)]
    else:
        written = static_batches(model, prompts, int(way.rpartition(" ")[2]), work.max_new_tokens)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Measured(seconds, sum(map(len, written)), loaded, peak, [" ".join(map(str, each)) for each in written])


@torch.inference_mode()
def static_batches(model: Any, prompts: Sequence[list[int]], size: int, max_new_tokens: int) -> list[list[int]]:
    """Return what transformers' own `generate` writes, in batches of prompts of like length padded on the left."""
    stop = model.generation_config.eos_token_id
    stops = set(stop if isinstance(stop, list) else [stop])
    order = sorted(range(len(prompts)), key=lambda position: len(prompts[position]))
    written: dict[int, list[int]] = {}
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        width = max(len(prompts[row]) for row in rows)
        ids = torch.tensor([[0] * (width - len(prompts[row])) + prompts[row] for row in rows])
        mask = torch.tensor([[0] * (width - len(prompts[row])) + [1] * len(prompts[row]) for row in rows])
        output = model.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False)
        for row, tokens in zip(rows, output[:, width:].tolist(), strict=True):
            end = next((place for place, token in enumerate(tokens) if token in stops), len(tokens) - 1)
            written[row] = tokens[: end + 1]
    return [written[row] for row in range(len(prompts))]


def read_prompts(count: int) -> list[Prompt]:
    """Return so many prompts of the demo's test sets, spread evenly over them."""
    texts = [
        json.loads(line)["prompt"]
        for path in sorted(DATA.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return [Prompt(texts[i * len(texts) // count]) for i in range(min(count, len(texts)))]


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def ratio(found: dict[str, list[Measured]]) -> float:
    """Return our tokens/s over those of transformers' best batch size."""
    speeds = {way: statistics.median(each.speed for each in runs) for way, runs in found.items()}
    return speeds.pop(OURS) / max(speeds.values())


def page(found: dict[str, list[Measured]], work: Work) -> str:
    """Return the results as a Markdown page."""
    ours = found[OURS][0]
    rows = []
    for way, runs in found.items():
        speed = statistics.median(each.speed for each in runs)
        peak = max(each.peak - each.loaded for each in runs)
        equal = sum(one == other for one, other in zip(runs[0].replies, ours.replies, strict=True)) / len(ours.replies)
        rows.append(f"| {way} | {speed:.0f} | {runs[0].tokens} | {peak / 2**20:.0f} | {equal:.0%} |")
    return "\n".join(
        [
            "# Generation: tokens per second",
            "",
            "Written by `python benchmarks/generate.py --write`; its docstring says what is measured.",
            f"On {platform.machine()}, {work.threads} threads of {os.cpu_count()}, torch {torch.__version__}, "
            f"transformers {transformers.__version__}, {work.dtype}; {work.prompts} prompts, greedy, "
            f"at most {work.max_new_tokens} new tokens, medians of {len(found['ours'])}.",
            "",
            f"Ours over transformers' best: **{ratio(found):.2f}** (target: at least {TARGET}).",
            "",
            "| way | tokens/s | tokens | MiB above the loaded model | replies equal to ours |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
