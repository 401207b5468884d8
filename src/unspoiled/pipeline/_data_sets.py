"""The data sets of a run by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from unspoiled.data import SetName
from unspoiled.pipeline._bunch import Bunch

SAFETY: Final = "safety"
EXPERT: Final = "expert"
BENIGN: Final = "benign"

LONGEST_REPLY: Mapping[SetName, int] = {SAFETY: 64, EXPERT: 256, BENIGN: 128}
"""The longest reply to a request for questions, in tokens: one question, or a list of four."""


def data_sets(bunch: Bunch) -> dict[str, str]:
    """Return the data sets of a run, a domain's own each, and what reports call them."""
    sets = {SAFETY: "D_safety", **{domain: f"D_expert ({domain})" for domain in bunch.config.domain_experts}}
    return sets | ({BENIGN: "D_benign"} if bunch.config.generate.benign_questions else {})


def dropped_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Return where a data set's dropped questions are listed, and those dropped for what their responses quote."""
    return folder / "dropped" / f"{name}.jsonl", folder / "dropped" / f"{name}+responses.jsonl"
