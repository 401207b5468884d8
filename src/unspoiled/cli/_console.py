"""What the commands print: products on stdout, progress and hints on stderr."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LINE_EVERY = 15.0  # seconds between progress lines where there is no terminal to redraw


class ConsoleWatcher:
    """Draws a run's progress on stderr: one bar on a terminal, plain lines elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console

        self._console: Console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._stage = ""
        self._stage_start = self._printed = time.monotonic()
        self._was_kept = False

    def begin(self, stage: str) -> None:
        """Close the last stage with its time and open the next."""
        self.close()
        self._stage, self._stage_start, self._was_kept = stage, time.monotonic(), False

    def advance(self, what: str, done: int, total: int) -> None:
        """Show how far the current work is."""
        if self._console.is_terminal:
            self._draw(what, done, total)
            return
        now = time.monotonic()
        if done >= total or now - self._printed >= _LINE_EVERY:
            self._console.print(f"  {self._stage}: {what} {done}/{total}", soft_wrap=True, markup=False)
            self._printed = now

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(f"  {text}", soft_wrap=True, markup=False)

    def kept(self, stage: str) -> None:
        """Say that a stage had nothing to do."""
        self._was_kept = True

    def close(self) -> None:
        """End the current stage."""
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._task = None, None
        if self._stage:
            took = "nothing to do" if self._was_kept else f"{time.monotonic() - self._stage_start:.0f} s"
            self._console.print(f"{self._stage:<10} {took}")
            self._stage = ""

    def _draw(self, what: str, done: int, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("")
        assert self._task is not None
        self._bar.update(self._task, description=f"{self._stage}: {what}", completed=done, total=total)
