"""What the benchmark of merging measured, the targets, and the tables of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

from measured_process import Usage

GIB = 2**30
HELP = 0.5
"""Seconds that `unspoiled --help` may take."""


@dataclass(frozen=True)
class Target:
    """What a method has to reach.

    Attributes:
        beyond: Largest ratio of the time beyond start-up to the raw copy's.
        faster: Least ratio of mergekit's whole process to ours, at 1.1B parameters; None for no target.
    """

    beyond: float
    faster: float | None


TARGETS = {
    "linear": Target(3, 3),
    "task_arithmetic": Target(3, 3),
    "slerp": Target(3, 3),
    "model_stock": Target(3, 3),
    "karcher": Target(8, None),
    "ties": Target(6, 10),
    "dare_ties": Target(6, 10),
    "della": Target(6, 10),
    "breadcrumbs": Target(6, 10),
    "sce": Target(6, 10),
}


@dataclass(frozen=True)
class Row:
    """One method on one bunch; times in seconds, one for each repeat.

    Attributes:
        method: The method's name in a recipe.
        size: A key of `random_bunch.SIZES`.
        inputs: How many checkpoints are read.
        raw: The raw copy of those and of the output.
        start_up: The whole process on checkpoints with nothing in them.
        ours: `unspoiled merge`, the whole process; empty where it failed.
        mergekit: `mergekit-yaml`, the whole process; empty where it failed or was left out.
        interpreter: Private memory of an idle interpreter that has imported torch, in bytes.
        limit: What `--memory` allowed above it, in bytes.
        threads: The numbers of threads whose outputs were compared; empty where none were.
        identical: Whether they were equal byte by byte.
        failures: What went wrong, by tool.
    """

    method: str
    size: str
    inputs: int
    raw: tuple[float, ...]
    start_up: tuple[float, ...]
    ours: tuple[Usage, ...]
    mergekit: tuple[Usage, ...]
    interpreter: int
    limit: int
    threads: tuple[int, ...] = ()
    identical: bool = True
    failures: tuple[str, ...] = ()

    @property
    def whole(self) -> float:
        """Seconds of our whole process, at best."""
        return min(usage.seconds for usage in self.ours)

    @property
    def beyond(self) -> float:
        """Seconds beyond start-up: the best whole process less the best one with nothing to merge."""
        return max(0.0, self.whole - min(self.start_up))

    @property
    def beyond_ratio(self) -> float:
        """Time beyond start-up in raw copies."""
        return self.beyond / min(self.raw)

    @property
    def theirs(self) -> float:
        """Seconds of mergekit's whole process, at best."""
        return min(usage.seconds for usage in self.mergekit)

    @property
    def faster(self) -> float:
        """How many times mergekit's whole process takes ours."""
        return self.theirs / self.whole

    @property
    def above(self) -> int:
        """Largest private memory above the idle interpreter's, in bytes."""
        return max(usage.private for usage in self.ours) - self.interpreter


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `holds` is None where there is no target."""

    text: str
    holds: bool | None = None


@dataclass(frozen=True)
class Grid:
    """A table, before it is one of the terminal or of Markdown."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def holds(self) -> bool:
        """Whether no target is missed."""
        return not any(cell.holds is False for row in self.rows for cell in row)

    def rich(self) -> Table:
        """Return the table for the terminal; missed targets are red."""
        table = Table(title=self.title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1), pad_edge=False)
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left", no_wrap=number == 0)
        styles = {None: "", True: "green", False: "bold red"}
        for row in self.rows:
            table.add_row(*(Text(cell.text, style=styles[cell.holds]) for cell in row))
        return table

    def markdown(self) -> str:
        """Return the table as Markdown; missed targets are bold."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.header) + " |"]
        lines.append("|---|" + "---:|" * (len(self.header) - 1))
        for row in self.rows:
            cells = (f"**{cell.text}**" if cell.holds is False else cell.text for cell in row)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def time_grid(rows: Sequence[Row], size: str) -> Grid:
    """Return the times of the rows of one size, with the two ratios that have targets."""
    header = ("method", "in", "raw copy", "ours", "beyond", "÷ raw", "mergekit", "÷ ours")
    return Grid(
        f"{size}: seconds", header, tuple((Cell(row.method), *_time_cells(row)) for row in rows if row.size == size)
    )


def memory_grid(rows: Sequence[Row], size: str) -> Grid:
    """Return the peaks of memory of the rows of one size, and whether the outputs were the same at every thread."""
    header = ("method", "above idle", "private", "resident", "mergekit private", "resident", "threads")
    return Grid(
        f"{size}: peak memory, GiB",
        header,
        tuple((Cell(row.method), *_memory_cells(row)) for row in rows if row.size == size),
    )


def start_grid(seconds: dict[str, float]) -> Grid:
    """Return the times of the commands that merge nothing, by command."""
    cells = (
        (Cell(name), _bounded(value, HELP, "most") if name.startswith("unspoiled") else Cell(f"{value:.2f}"))
        for name, value in seconds.items()
    )
    return Grid("Start-up", ("command", "seconds"), tuple(cells))


def _time_cells(row: Row) -> list[Cell]:
    target = TARGETS[row.method]
    cells = [Cell(str(row.inputs)), Cell(f"{min(row.raw):.2f}")]
    if row.ours:
        cells += [Cell(f"{row.whole:.2f}"), Cell(f"{row.beyond:.2f}")]
        cells.append(_bounded(row.beyond_ratio, target.beyond, "most"))
    else:
        cells += [Cell("failed", False), Cell("–"), Cell("–")]
    theirs = f"{row.theirs:.1f}" if row.mergekit else "failed" if "mergekit" in row.failures else "–"
    cells.append(Cell(theirs))
    if not row.ours or not row.mergekit:
        return [*cells, Cell("–")]
    judged = row.size == "1.1b" and target.faster is not None
    return [*cells, _bounded(row.faster, target.faster if judged else None, "least")]


def _memory_cells(row: Row) -> list[Cell]:
    cells = []
    if row.ours:
        cells.append(_bounded(row.above / GIB, row.limit / GIB, "most"))
    else:
        cells.append(Cell("–"))
    for usages in (row.ours, row.mergekit):
        cells.append(Cell(_peak([usage.private for usage in usages])))
        cells.append(Cell(_peak([usage.resident for usage in usages])))
    if not row.threads:
        return [*cells, Cell("–")]
    return [*cells, Cell("equal" if row.identical else "DIFFER", row.identical)]


def _peak(values: Sequence[int]) -> str:
    return f"{max(values) / GIB:.2f}" if values else "–"


def _bounded(value: float, bound: float | None, kind: Literal["most", "least"]) -> Cell:
    """Return `value ≤ bound` or `value > bound`, whichever is so, and whether the target holds."""
    if bound is None:
        return Cell(f"{value:.1f}")
    shown = f"{value:.1f}" if kind == "least" else f"{value:.2f}"
    holds = value <= bound if kind == "most" else value >= bound
    sign = ("≤" if holds else ">") if kind == "most" else ("≥" if holds else "<")
    return Cell(f"{shown} {sign} {bound:g}", holds)
