"""The tables that a search and a run print."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unspoiled.evaluate import LOSS_PREFIX, ModelScores, Results, higher_is_better
from unspoiled.report._hostile_text import shortened
from unspoiled.report._inputs import SearchRow
from unspoiled.report._plain_table import plain_table
from unspoiled.report._wording import interval, listing, mean_interval, measure_name, number, percent

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 80  # columns
_LONGEST_NAME = 14
_LONGEST_SET = 24
_OF_MODELS = ("refused by ", "target by ")  # counts of who did what, not of what was dropped


def search_table(rows: Sequence[SearchRow]) -> "Table":
    """Return what each strategy of a search did and the losses of its best candidate; fits 80 columns.

    Args:
        rows: a row per strategy.
    """
    from rich.text import Text

    table = plain_table()
    table.add_column("strategy", no_wrap=True)
    for name in ("trials", "safety", "expert", "benign", "limits", "volume", "tokens", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        losses = row.losses or (None, None, None)
        limits = "–" if row.feasible is None else "kept" if row.feasible else "broken"
        table.add_row(
            Text(shortened(row.strategy, _LONGEST_NAME)),
            f"{row.trials}" + (f" ({row.failed} failed)" if row.failed else ""),
            *("–" if loss is None else f"{loss:.3f}" for loss in losses),
            limits,
            "–" if row.volume is None else f"{row.volume:.3f}",
            _count(row.tokens),
            "–" if row.saved is None else percent(row.saved, 0),
        )
    table.caption = "best losses, nats per token; volume: of the front; forward tokens, saved by races"
    table.caption_justify = "left"
    return table


def _count(number: int) -> str:
    """Write a large count with three digits: 812, 56.1k, 1.20M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


_YIELD_COLUMNS = {
    "replies": ("requests",),
    "malformed": ("malformed",),
    "repeated": ("duplicates", "duplicate", "near_duplicate", "shown_example"),
    "test": ("test_prompt", "test_quoted_in_response"),
    "unrefused": ("unrefused",),
    "kept": ("kept",),
}
_NOT_DROPPED = frozenset({"requests", "malformed", "kept", "surplus", "from templates"})


def yields_table(yields: Mapping[str, Mapping[str, int]]) -> "Table":
    """Return what became of the questions of every data set; fits 80 columns.

    Args:
        yields: By data set, counts by reason.
    """
    from rich.text import Text

    table = plain_table()
    table.add_column("data set", no_wrap=True)
    *dropped, kept_last = _YIELD_COLUMNS
    for name in (*dropped, "other", kept_last):
        table.add_column(name, justify="right", no_wrap=True)
    for title, counts in yields.items():
        cells = {name: sum(counts.get(reason, 0) for reason in own) for name, own in _YIELD_COLUMNS.items()}
        known = {reason for own in _YIELD_COLUMNS.values() for reason in own} | _NOT_DROPPED
        other = sum(
            count for reason, count in counts.items() if reason not in known and not reason.startswith(_OF_MODELS)
        )
        *first, kept = cells.values()
        table.add_row(Text(shortened(title, _LONGEST_SET)), *map(str, [*first, other, kept]))
    table.caption = "replies of models; questions dropped: repeated, too near a test prompt, refused by none"
    table.caption_justify = "left"
    return table


def results_table(results: Results, winner: str | None) -> "Table":
    """Return the rates and means of every model with their 95% intervals, as in 87% 82–91 and 0.412 0.398–0.431.

    A domain's loss is left out where its accuracy stands: both of two domains would push every interval below its
    number, and the accuracy is what models are chosen by. Where the table is wider than 80 columns, intervals do go
    below and titles are broken, which is enough for eight rates. The winner has an arrow and is bold. Names are
    shortened, never numbers.

    Args:
        results: what was measured.
        winner: the model to mark, or None.
    """
    means = [m for m in results.means if m.removeprefix(LOSS_PREFIX) not in results.domains]
    measures = [*results.rates, *means]
    table = _results_table(results, winner, measures, narrow=False)
    return table if _width(table) <= _WIDTH else _results_table(results, winner, measures, narrow=True)


def _results_table(results: Results, winner: str | None, measures: Sequence[str], *, narrow: bool) -> "Table":
    from rich.text import Text

    table = plain_table()
    table.add_column("model", no_wrap=True)
    for measure in measures:
        title = shortened(measure_name(measure), 12)
        table.add_column(Text(_broken(title) if narrow else title), justify="right", no_wrap=True)
    for name, scores in results.models.items():
        cells = [_cell(scores, measure, between="\n" if narrow else " ") for measure in measures]
        arrow = "→ " if name == winner else "  "
        style = "bold" if name == winner else ""
        shown = [arrow + shortened(name, _LONGEST_NAME), *cells]
        table.add_row(*(Text(cell, style=style) for cell in shown))
    low = list(dict.fromkeys(measure_name(m).partition(" ")[0] for m in measures if not higher_is_better(m)))
    table.caption = "95% intervals" + (f"; low is good in {listing(low)}" if low else "")
    table.caption_justify = "left"
    return table


def _width(table: "Table") -> int:
    """Return the columns that a table takes where none of its cells is broken or cut."""
    from rich.console import Console

    console = Console(width=10 * _WIDTH)
    return console.measure(table).maximum


def _cell(scores: ModelScores, measure: str, *, between: str) -> str:
    if measure in scores.rates:
        rate = scores.rates[measure]
        return f"{percent(rate.rate, 0)}{between}{interval(rate, 0)}"
    if measure in scores.means:
        mean = scores.means[measure]
        return f"{number(mean.mean, 3)}{between}{mean_interval(mean)}"
    return "–"


def _broken(title: str) -> str:
    """Return a title on two lines where it has a space or a hyphen."""
    for mark, kept in ((" ", ""), ("-", "-")):
        head, found, tail = title.partition(mark)
        if found:
            return f"{head}{kept}\n{tail}"
    return title
