"""Find the comparison of two models on a measure, whichever way round it was made."""

from __future__ import annotations

from typing import Final

from unspoiled.evaluate import Comparison, Results

_TURNED: Final = {"better": "worse", "worse": "better", "not resolved": "not resolved"}


def paired(results: Results, model: str, baseline: str, measure: str) -> Comparison | None:
    """Return the comparison of a model with a baseline, turned round if it was made the other way; None if it wasn't.

    Args:
        results: What was measured.
        model: The model whose gain is asked for.
        baseline: What it is compared with.
        measure: The measure's name.
    """
    for row in results.comparisons:
        if row.measure == measure and {row.model, row.baseline} == {model, baseline}:
            return row if row.model == model else _turned(row)
    return None


def _turned(row: Comparison) -> Comparison:
    return row.model_copy(
        update={
            "model": row.baseline,
            "baseline": row.model,
            "difference": -row.difference,
            "low": -row.high,
            "high": -row.low,
            "only_model": row.only_baseline,
            "only_baseline": row.only_model,
            "verdict": _TURNED[row.verdict],
        }
    )
