"""The table that a run prints last."""

from typing import TYPE_CHECKING

from unspoiled.evaluate._results import Results
from unspoiled.report._hostile_text import shortened
from unspoiled.report._wording import interval, measure_name, percent

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS_ON_ONE_LINE = 5
_LONGEST_NAME = 14


def results_table(results: Results, winner: str | None) -> "Table":
    """Return the rates of every model with their 95% intervals, as in 87% 82–91.

    Fits 80 columns with up to five measures; with more, the interval goes below the rate. The winner has an
    arrow and is bold. Names are shortened, never numbers.

    Args:
        results: what was measured.
        winner: the model to mark, or None.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    measures = list(dict.fromkeys(m for scores in results.models.values() for m in scores.measures()))
    between = " " if len(measures) <= _COLUMNS_ON_ONE_LINE else "\n"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for measure in measures:
        table.add_column(Text(shortened(measure_name(measure), 12)), justify="right", no_wrap=True)
    for name, scores in results.models.items():
        rates = scores.measures()
        cells = [
            f"{percent(rates[m].rate, 0)}{between}{interval(rates[m], 0)}" if m in rates else "–" for m in measures
        ]
        arrow = "→ " if name == winner else "  "
        style = "bold" if name == winner else ""
        shown = [arrow + shortened(name, _LONGEST_NAME), *cells]
        table.add_row(*(Text(cell, style=style) for cell in shown))
    table.caption = "95% intervals; refusal and domains should be high, the rest low"
    table.caption_justify = "left"
    return table
