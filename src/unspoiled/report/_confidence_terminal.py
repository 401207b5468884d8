"""The tables that say how sure one can be: paired comparisons, and the winner's optimism."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unspoiled.evaluate import Comparison, Optimism
from unspoiled.report._hostile_text import shortened
from unspoiled.report._plain_table import plain_table
from unspoiled.report._wording import interval, measure_name, p_value, percent, points, points_range, signed

if TYPE_CHECKING:
    from rich.table import Table

_LONGEST_NAME, _LONGEST_MEASURE = 13, 17


def comparisons_table(comparisons: Sequence[Comparison]) -> "Table":
    """Return paired comparisons: the gap with its interval, Holm's p-value, and what is resolved; fits 80 columns."""
    from rich.text import Text

    table = _table("model", "against", "on", right=("gap", "95%", "p"))
    table.add_column("outcome", no_wrap=True)
    for row in comparisons:
        table.add_row(
            Text(shortened(row.model, _LONGEST_NAME)),
            Text(shortened(row.baseline, _LONGEST_NAME)),
            Text(shortened(measure_name(row.measure), _LONGEST_MEASURE)),
            *_gap(row),
            p_value(row.p_value),
            row.verdict,
        )
    table.caption = "gaps of rates in points, of losses in nats; p by Holm over these rows"
    table.caption_justify = "left"
    return table


def optimism_table(rows: Sequence[Optimism]) -> "Table":
    """Return the winner's rates on the selection and the test split, and their gap; fits 80 columns."""
    from rich.text import Text

    table = _table("the winner's", right=("selection", "test", "optimism", "95%"))
    for row in rows:
        table.add_row(
            Text(shortened(measure_name(row.measure), 24)),
            f"{percent(row.selection.rate, 0)} {interval(row.selection, 0)}",
            f"{percent(row.test.rate, 0)} {interval(row.test, 0)}",
            points(row.difference),
            points_range(row.low, row.high),
        )
    table.caption = "selection minus test, points: what picking the winner there flatters it by"
    table.caption_justify = "left"
    return table


def _gap(row: Comparison) -> tuple[str, str]:
    """Write a gap and its interval without their unit, which the caption names."""
    if row.only_model is not None:
        return points(row.difference), points_range(row.low, row.high)
    return signed(row.difference, 3), f"{signed(row.low, 3)} to {signed(row.high, 3)}"


def _table(*left: str, right: Sequence[str]) -> "Table":

    table = plain_table()
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table
