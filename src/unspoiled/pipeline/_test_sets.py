"""The test sets of a run or of an evaluation, as they lie in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unspoiled.config import MeasureConfig
from unspoiled.data import TestPrompt, read_test_prompts
from unspoiled.errors import DataError
from unspoiled.evaluate import TestSets
from unspoiled.pipeline._attempts import Attempts


def read_test_sets(
    how: MeasureConfig, attempts: Attempts, *, unsafe: Path | None, harmless: Path | None, domains: Mapping[str, Path]
) -> TestSets:
    """Read test sets; one that can't be read is empty, and the attempts say what is wrong with it.

    Args:
        how: How models are measured on them.
        attempts: Where problems are noted.
        unsafe: The file of unsafe prompts.
        harmless: The file of harmless prompts.
        domains: The files of rows with answers, by domain.
    """

    def read(path: Path, answers: bool) -> list[TestPrompt]:
        rows = read_test_prompts(path, answers=answers, limit=how.limit)
        _require_equal_weights(path, rows, how.seeds)
        return rows

    def attempted(path: Path | None, *, answers: bool = False) -> list[TestPrompt]:
        return [] if path is None else attempts.make(lambda: read(path, answers)) or []

    return TestSets(
        attempted(unsafe),
        attempted(harmless),
        {name: attempted(path, answers=True) for name, path in domains.items()},
        how.max_new_tokens,
        how.temperature,
        how.seeds,
    )


def _require_equal_weights(path: Path, rows: Sequence[TestPrompt], seeds: int) -> None:
    """Check that every row is answered as often as the others, since a set's rate is over answers.

    Raises:
        DataError: Some rows have choices, of which the likeliest is the same for every seed, and others are sampled.
    """
    choosing = sum(bool(row.choices) for row in rows)
    if seeds > 1 and 0 < choosing < len(rows):
        raise DataError(
            f"{path}: of {len(rows)} rows, {choosing} with 'choices' are answered once and the others {seeds} times, "
            "which would count these more: put rows with choices into a file of their own, or measure with one seed."
        )
