"""Rows of generated sets, odd ones among them."""

from dataclasses import replace

from scripted import question

from unspoiled.data import Row, SetName, Split, split_of
from unspoiled.guards import Verdict

VERDICT = Verdict("safe", 0.25, ("S1", "S2"), True, None, True, "safe", "rules 3", "ab12")
UNSURE = replace(VERDICT, label="unsafe", p_unsafe=None, categories=(), defect="loop", template="")


def row(
    prompt: str,
    response: str = "I can't help with that.",
    set_name: SetName = "safety",
    group: str = "Theft",
    split: Split | None = None,
    verdicts: tuple[Verdict, ...] = (),
    answered_by: str = "aligned",
) -> Row:
    return Row(
        id=question(prompt, group).id,
        set=set_name,
        group=group,
        prompt=prompt,
        response=response,
        asked_by="questioner",
        answered_by=answered_by,
        split=split or split_of(prompt, 0.3),
        asked_by_hash="0a",
        answered_by_hash="0b",
        seed=7,
        verdicts=verdicts,
    )


ODD_ROWS = [
    row("What is a pipe | in Markdown?\n\n# No heading", "A `|`.", split="search", verdicts=(VERDICT, UNSURE)),
    row("天空？ 🙂 e\u0301 \u2028 \x1b[31m", "", split="search"),
    row("What is 12 + 35?", "47", "expert", "sums", "search", (UNSURE,)),
    row("What is 12 + 36?", "48", "expert", "sums", "selection", (VERDICT,)),
]
"""Of two sets; D_safety has no selection split, and D_benign nothing."""
