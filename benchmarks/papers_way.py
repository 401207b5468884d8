"""A trial the paper's way beside ours: the same recipes, the same losses, and how much longer it takes.

    python benchmarks/papers_way.py runs/demo examples/bunch/run.yaml

The paper's way (arXiv 2406.14563) writes each merged model to disk, loads it with transformers, and scores one sample
at a time. Ours merges in memory and scores packed rows. Both score every row of the search split, on the same trials,
in turns, in the same process; the model that is written is the one that `unspoiled merge` writes. Prints the ratio of
the times and the largest difference between the losses.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unspoiled.config import Recipe, read_run_config
from unspoiled.data import read_rows
from unspoiled.inference import ChatTemplate, Exchange, load_chat_template
from unspoiled.merging import merge_to_directory
from unspoiled.objective import LossRows
from unspoiled.pipeline import Bunch, open_bunch
from unspoiled.search import LiveEvaluator, Proposal, Random


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's directory, for its data")
    parser.add_argument("config", type=Path, help="that run's config")
    parser.add_argument("--trials", type=int, default=3)
    arguments = parser.parse_args()
    bunch = open_bunch(read_run_config(arguments.config))
    rows = [row for path in sorted((arguments.run / "data").glob("*.jsonl")) for row in read_rows(path)]
    data = LossRows.of_split(rows, "search")
    evaluator = LiveEvaluator(bunch.live, {"search": data}, None)
    proposals = _proposals(bunch, arguments.trials + 1)
    evaluator.evaluate(proposals[0])  # what is prepared once for all trials
    ours, theirs, gaps = [], [], []
    for proposal in proposals[1:]:
        begun = time.perf_counter()
        evaluation = evaluator.evaluate(proposal)
        ours.append(time.perf_counter() - begun)
        assert evaluation is not None
        begun = time.perf_counter()
        found = _one_by_one(bunch, proposal.recipe, data.exchanges)
        theirs.append(time.perf_counter() - begun)
        expected = data.losses(found)
        gaps += [abs(evaluation.losses.term(term) - expected.term(term)) for term in data.terms]
        print(f"ours {ours[-1]:.2f} s: {evaluation.losses}\npaper's way {theirs[-1]:.2f} s: {expected}")
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    print(f"{len(data.rows)} rows, {torch.get_num_threads()} threads: the paper's way takes {ratio:.1f} times as long")
    print(f"largest difference between the losses: {max(gaps):.4f} nats per token")


def _proposals(bunch: Bunch, count: int) -> list[Proposal]:
    strategy = Random(bunch.space, trials=count, seed=0)
    found = [strategy.ask() for _ in range(count)]
    return [proposal for proposal in found if proposal is not None]


@torch.inference_mode()
def _one_by_one(bunch: Bunch, recipe: Recipe, exchanges: Sequence[Exchange]) -> list[float]:
    """Return each row's cross-entropy under the merged model, written, loaded and asked one row at a time."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged"
        merge_to_directory(recipe, bunch.models, path, tokenizer=bunch.template_directory)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
        template = load_chat_template(path)
        return [_cross_entropy(model, template, exchange) for exchange in exchanges]


def _cross_entropy(model: Any, template: ChatTemplate, exchange: Exchange) -> float:
    prompt, response = template.encode(exchange)
    ids = torch.tensor([[*prompt, *response]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    return float(model(input_ids=ids, labels=labels).loss)


if __name__ == "__main__":
    main()
