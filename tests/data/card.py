"""What a data card is written from, whole."""

from typing import Any

from rows import ODD_ROWS

from unspoiled.data import (
    Contamination,
    DataCardInputs,
    GuardUsed,
    ModelUsed,
    SamplingUsed,
    count_targets,
    group_lengths,
)


def card_inputs(**changes: Any) -> DataCardInputs:
    values: dict[str, Any] = {
        "name": "demo",
        "command": "unspoiled generate run.yaml",
        "versions": {"unspoiled": "0.1.0", "transformers": "5.24.0"},
        "models": (ModelUsed("writes unsafe questions", "models/base+adapters/questioner", "00ff"),),
        "guards": (GuardUsed("rules 3", "11ee"),),
        "sampling": (SamplingUsed("unsafe questions", 0.8, 64, 7),),
        "templates": {"safety_question": "22dd"},
        "yields": {
            "safety": {"requests": 10, "malformed": 2, "test_prompt": 1, "kept": 2},
            "sums": {"requests": 3, "near_duplicate": 1, "kept": 2, "odd | key": 4},
        },
        "group_yields": {
            "safety": {"Theft": {"requests": 6, "malformed": 2, "kept": 1}, "Fraud": {"requests": 4, "kept": 1}},
            "sums": {"sums": {"requests": 3, "kept": 2}},
        },
        "splits": {("safety", "search"): 2, ("expert", "search"): 1, ("expert", "selection"): 1},
        "groups": group_lengths(ODD_ROWS),
        "targets": count_targets(ODD_ROWS),
        "tests": ("unsafe", "sums"),
        "contamination": (Contamination("safety", "unsafe", "near", 1),),
        "languages": {"en": 99, "unknown": 5, "de": 1},
        "warnings": ("'Theft' has 1 of 9 rows, less than half of an even share (4.5).",),
    }
    return DataCardInputs(**{**values, **changes})
