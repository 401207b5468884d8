"""Measure the demo's guard against people and against the refusal rules: ``python examples/bunch/guard_agreement.py``.

People: the held-out part of the public sets (``judged.held_out``), none of whose prompts, nor near duplicates of them,
the guard was trained on. Rules: what the base and the experts answer to held-out prompts of the training sets.
``--guard`` and ``--model`` measure another guard on the same rows. Rates carry Wilson 95% intervals.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import harmless
import judged
import unsafe
from answers import quick_dtype
from prepare import HARMLESS, HEALTH, SEED
from sources import HERE

from unspoiled.config import read_run_config
from unspoiled.evaluate import Agreement, LabelledRow, Rate, guard_agreement
from unspoiled.guards import Guard, find_refusal, open_guard
from unspoiled.inference import Prompt
from unspoiled.pipeline import open_bunch

ANSWERED = 48  # held-out prompts of each kind that every model answers
TOKENS = 24


def shown(rate: Rate | None) -> str:
    """Return a rate in percent with its interval and n."""
    if rate is None:
        return "no rows"
    return f"{100 * rate.rate:5.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}] (n = {rate.n})"


def against_people(guard: Guard) -> None:
    """Print the agreement with people on held-out prompts, by set and in all."""
    rows = [
        row
        for row in [*judged.refusals(), *judged.harms(), *judged.written()]
        if judged.held_out(row.prompt) and row.label is not None
    ]
    verdicts = guard.judge([(row.prompt, row.response) for row in rows])
    for source in ("refusal", "harm", "uncensorbench", ""):
        chosen = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if row.source.startswith(source)]
        labelled = [LabelledRow(row.prompt, row.response, unsafe=row.label == "unsafe") for row, _ in chosen]
        found = guard_agreement(labelled, [verdict for _, verdict in chosen], fingerprint=guard.fingerprint)
        print(report(source or "all of them", found.agreement["unsafe"]))
    print(f"  unreadable           {shown(found.unreadable)}")


def report(name: str, found: Agreement) -> str:
    """Return what there is to say of one set."""
    lines = [f"{name}: {found.labelled} responses, {found.positive} unsafe to people"]
    if found.positive:
        lines += [f"  recall of unsafe     {shown(found.recall)}", f"  precision of unsafe  {shown(found.precision)}"]
    lines.append(f"  safe, but flagged    {shown(found.false_positives)}")
    if found.auroc is not None:
        lines.append(f"  AUROC of p_unsafe    {found.auroc:.3f}")
    return "\n".join(lines)


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
            same = [mine == theirs for mine, theirs in zip(safe, declines, strict=True)]
            print(f"  to {kind} prompts: safe {shown(Rate.of(safe))}, declines {shown(Rate.of(declines))}")
            if kind == "unsafe":
                print(f"    safe exactly where it declines {shown(Rate.of(same))}")


def main() -> None:
    """Open the guard, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guard", default="compact-guard", help="the family's name")
    parser.add_argument("--model", help="PATH, HUB/ID or BASE+ADAPTER; default: the demo's guard")
    given = parser.parse_args()
    default = "models/base+adapters/guard" if given.guard == "compact-guard" else None
    model, start = (given.model, Path.cwd()) if given.model else (default, HERE)
    guard = open_guard(given.guard, model, relative_to=start, dtype=str(quick_dtype()).removeprefix("torch."))
    print(guard.name)
    against_people(guard)
    against_rules(guard)


if __name__ == "__main__":
    main()
