"""Results as tables for a spreadsheet or a data frame: one row per number, with what it is of."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from unspoiled.evaluate._results import Comparison, Mean, ModelScores, Rate, Results

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the start of a formula, or strips to find one; the last four are full-width."""


def results_csv(results: Results) -> str:
    """Return every rate and mean as CSV: `model,measure,category,kind,value,low,high,n,families`.

    `kind` is `rate` or `mean`; `category` is empty where a number is over all categories. Texts that a spreadsheet
    would run as a formula begin with an apostrophe.
    """
    return _csv(
        ["model", "measure", "category", "kind", "value", "low", "high", "n", "families"],
        (
            [model, measure, category, *_cells(value)]
            for model, scores in results.models.items()
            for category, measure, value in _numbers(scores)
        ),
    )


def comparisons_csv(results: Results) -> str:
    """Return every paired comparison as CSV, its columns the fields of `Comparison`; None is an empty cell."""
    rows = [comparison.model_dump() for comparison in results.comparisons]
    columns = list(Comparison.model_fields)
    return _csv(columns, ([row[column] for column in columns] for row in rows))


def _numbers(scores: ModelScores) -> Iterator[tuple[str, str, Rate | Mean]]:
    """Yield (category, measure, number) of one model."""
    for measure, rate in scores.rates.items():
        yield "", measure, rate
    for measure, mean in scores.means.items():
        yield "", measure, mean
    for category, rates in scores.categories.items():
        for measure, rate in rates.items():
            yield category, measure, rate


def _cells(value: Rate | Mean) -> list[object]:
    kind, number = ("rate", value.rate) if isinstance(value, Rate) else ("mean", value.mean)
    return [kind, number, value.low, value.high, value.n, value.families]


def _csv(columns: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    text = io.StringIO()
    # All texts are quoted: a lone carriage return is otherwise taken for the end of a row.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    writer.writerows([_inert(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def _inert(text: str) -> str:
    """Return text that no spreadsheet runs, as OWASP's page on CSV injection advises."""
    return f"'{text}" if text.startswith(_FORMULA) else text
