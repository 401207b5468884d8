"""Measure the demo's guard against people and against the refusal rules: ``python examples/bunch/guard_agreement.py``.

People: the held-out part of the public sets (``judged.held_out``), none of whose prompts, nor near duplicates of them,
the guard was trained on. Rules: what the base and the experts answer to held-out prompts of the training sets.
``--guard`` and ``--model`` measure another guard on the same rows. Rates carry Wilson 95% intervals.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import harmless
import judged
import numpy as np
import unsafe
from guard_rows import CODES
from prepare import HARMLESS, HEALTH, SEED
from scipy.stats import rankdata
from sources import HERE

from unspoiled.config import read_run_config
from unspoiled.evaluate import wilson
from unspoiled.guards import Guard, Verdict, find_refusal, open_guard
from unspoiled.inference import Prompt
from unspoiled.pipeline import open_bunch

ANSWERED = 48  # held-out prompts of each kind that every model answers
TOKENS = 24


def rate(found: int, total: int) -> str:
    """Return a rate in percent with its interval and counts."""
    if not total:
        return "no rows"
    low, high = wilson(found, total)
    return f"{100 * found / total:5.1f} [{100 * low:.1f}, {100 * high:.1f}] ({found} of {total})"


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the chance that a positive scores higher than a negative, ties counted half (Mann-Whitney)."""
    marked = np.asarray(positive)
    above = rankdata(scores)[marked].sum() - marked.sum() * (marked.sum() + 1) / 2
    return float(above / (marked.sum() * (~marked).sum()))


def report(name: str, rows: Sequence[judged.Judged], verdicts: Sequence[Verdict]) -> str:
    """Return what the guard makes of rows that people judged."""
    bad = [row.label == "unsafe" for row in rows]
    flagged = [verdict.label == "unsafe" for verdict in verdicts]
    hits = sum(map(min, bad, flagged))
    lines = [f"{name}: {len(rows)} responses, {sum(bad)} unsafe to people"]
    if any(bad):
        lines += [
            f"  recall of unsafe     {rate(hits, sum(bad))}",
            f"  precision of unsafe  {rate(hits, sum(flagged))}",
        ]
    if not all(bad):
        lines.append(f"  safe, but flagged    {rate(sum(flagged) - hits, len(bad) - sum(bad))}")
    if any(bad) and not all(bad):
        lines.append(f"  AUROC of p_unsafe    {auroc([verdict.p_unsafe or 0.0 for verdict in verdicts], bad):.3f}")
    return "\n".join(lines)


def against_people(guard: Guard) -> None:
    """Print the agreement with people, by set and in all."""
    rows = [
        row
        for row in [*judged.refusals(), *judged.harms(), *judged.written()]
        if judged.held_out(row.prompt) and row.label is not None
    ]
    verdicts = guard.judge([(row.prompt, row.response) for row in rows])
    for source in ("refusal", "harm", "uncensorbench", ""):
        chosen = [number for number, row in enumerate(rows) if row.source.startswith(source)]
        print(report(source or "all", [rows[i] for i in chosen], [verdicts[i] for i in chosen]))
    unread = sum(not verdict.parse_ok for verdict in verdicts)
    print(f"  unreadable verdicts  {rate(unread, len(rows))}")
    named = [
        (CODES[unsafe.categorize(row.prompt)], verdict.categories[0])
        for row, verdict in zip(rows, verdicts, strict=True)
        if row.label == "unsafe" and verdict.categories
    ]
    print(f"  category as by words {rate(sum(mine == theirs for mine, theirs in named), len(named))}")


def against_rules(guard: Guard) -> None:
    """Print the agreement with the refusal rules on what the bunch's models answer to held-out prompts."""
    chance = random.Random(SEED + 20)
    allowed = harmless.training(HARMLESS, HEALTH, random.Random(SEED))
    asked = {
        kind: chance.sample([row["prompt"] for row in rows if judged.held_out(row["prompt"])], ANSWERED)
        for kind, rows in (("unsafe", unsafe.training()), ("harmless", allowed))
    }
    bunch = open_bunch(read_run_config(HERE / "run.yaml"))
    for model in ("base", *bunch.experts):
        weights = [float(name == model) for name in bunch.experts]
        backend = bunch.live.take_recipe(bunch.space.recipe(bunch.space.constant(weights)))
        print(f"answers of {model}")
        for kind, prompts in asked.items():
            samples = backend.generate([Prompt(prompt) for prompt in prompts], max_new_tokens=TOKENS)
            pairs = [(prompt, sample.text) for prompt, sample in zip(prompts, samples, strict=True)]
            safe = [verdict.label == "safe" for verdict in guard.judge(pairs)]
            declines = [find_refusal(text) is not None for _, text in pairs]
            same = sum(mine == theirs for mine, theirs in zip(safe, declines, strict=True))
            print(f"  to {kind} prompts: safe      {rate(sum(safe), len(safe))}")
            if kind == "unsafe":
                print(f"  declines, to the rules    {rate(sum(declines), len(declines))}")
                print(f"  safe exactly if it declines {rate(same, len(safe))}")


def main() -> None:
    """Open the guard, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guard", default="compact-guard", help="the family's name")
    parser.add_argument("--model", help="PATH, HUB/ID or BASE+ADAPTER; default: the demo's guard")
    given = parser.parse_args()
    default = "models/base+adapters/guard" if given.guard == "compact-guard" else None
    model, start = (given.model, Path.cwd()) if given.model else (default, HERE)
    guard = open_guard(given.guard, model, relative_to=start)
    print(guard.name)
    against_people(guard)
    against_rules(guard)


if __name__ == "__main__":
    main()
