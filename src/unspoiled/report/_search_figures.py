"""Figures of how the merge was found: the search's progress, and the coefficients it ended with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, inf, isfinite
from typing import NamedTuple

from unspoiled.report._axes import Figure, Scale, decimals, span, text_width, ticks
from unspoiled.report._drawing import ACCENT, GREEN, INK, MUTED, PLUM, RULE, WARM, Drawing
from unspoiled.report._hostile_text import shortened
from unspoiled.report._inputs import CoefficientTable, TrialPoint
from unspoiled.report._label_placement import Box, place_labels
from unspoiled.report._wording import number

_SERIES = (ACCENT, WARM, GREEN, PLUM, INK)
_DASHES = ("", "6 3", "2 2", "8 3 2 3", "1 3")
_LEFT, _TOP, _WIDTH, _HEIGHT = 58.0, 10.0, 790.0, 230.0
_CELL_WIDTH, _CELL_HEIGHT, _LOW_CELL_HEIGHT = 66, 19, 9
_HEADER_LINE, _MOST_HEADER_LINES = 13, 3
_MOST_DOTS = 1500
_MOST_NUMBERED_ROWS = 48


class Progress(NamedTuple):
    """A strategy's search so far, after one of its trials."""

    strategy: str
    trial: int
    """Counted within the strategy, from 1."""
    number: int
    """The trial's number in the study."""
    objective: float
    feasible: bool
    best: float
    """The least objective so far of a trial within the limits; infinity before there is one."""


def search_progress(trials: Sequence[TrialPoint]) -> dict[str, list[Progress]]:
    """Return, by strategy, each scored trial with the best objective so far; failed trials are left out."""
    progress: dict[str, list[Progress]] = {}
    for trial in sorted(trials, key=lambda point: point.number):
        if isfinite(trial.objective):
            rows = progress.setdefault(trial.strategy, [])
            best = min(rows[-1].best if rows else inf, trial.objective if trial.feasible else inf)
            rows.append(Progress(trial.strategy, len(rows) + 1, trial.number, trial.objective, trial.feasible, best))
    return progress


def progress_figure(progress: dict[str, list[Progress]], winner: str | None, name: str) -> Figure:
    """Draw the best objective so far by strategy, with the trials as faint dots, and as crosses if they break a limit.

    The axis holds every best value, or all trials where none is within the limits; trials above it are not drawn, and
    neither are dots of more than 1,500 trials.

    Args:
        progress: From `search_progress`, not empty.
        winner: The strategy to stand out, if it is among them.
        name: The figure's name.
    """
    every = [row for rows in progress.values() for row in rows]
    lines = {strategy: [row for row in rows if isfinite(row.best)] for strategy, rows in progress.items()}
    bests = [row.best for rows in lines.values() for row in rows] or [row.objective for row in every]
    margin = 0.08 * (max(bests) - min(bests)) or 0.05
    low, high = min(bests) - margin, max(bests) + margin
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    across, up = Scale(1, max(2, *(row.trial for row in every)), _LEFT, right), Scale(low, high, bottom, _TOP)
    drawing = Drawing(right + 110, bottom + 44)
    marks = ticks(low, high)
    for value in marks:
        drawing.line(_LEFT, up.at(value), right, up.at(value), RULE, width=0.8)
        drawing.text(_LEFT - 7, up.at(value), number(value, decimals(marks)), MUTED, size=11, anchor="end")
    for trial in _trial_ticks(int(across.high)):
        drawing.text(across.at(trial), bottom + 14, str(trial), MUTED, size=11, anchor="middle")
    drawing.text((_LEFT + right) / 2, bottom + 34, "trial", MUTED, anchor="middle")
    drawing.text(12, (_TOP + bottom) / 2, "objective, lower is better", MUTED, anchor="middle", turned=True)

    ranked = sorted(progress, key=lambda strategy: strategy != winner)
    order = {strategy: rank + (winner not in progress) for rank, strategy in enumerate(ranked)}
    colours = {strategy: _SERIES[order[strategy] % len(_SERIES)] for strategy in progress}
    dotted = len(every) <= _MOST_DOTS or not any(lines.values())
    for row in (row for row in every if dotted and low <= row.objective <= high):
        spot = across.at(row.trial), up.at(row.objective)
        drawing.mark("circle" if row.feasible else "cross", *spot, 2.2, colours[row.strategy], opacity=0.4)
    for strategy, rows in lines.items():
        steps = [(across.at(row.trial), up.at(row.best)) for row in rows]
        corners = steps[:1] + [corner for (_, y), (x, below) in pairwise(steps) for corner in ((x, y), (x, below))]
        dash = _DASHES[order[strategy] % len(_DASHES)]
        if steps:
            drawing.path(corners, colours[strategy], width=2, dash=dash)
            drawing.mark("circle", *steps[-1], 3.4, colours[strategy])
    reached = {strategy: rows for strategy, rows in lines.items() if rows}
    names = [f"{shortened(strategy, 24)} {rows[-1].best:.3f}" for strategy, rows in reached.items()]
    ends = [(across.at(rows[-1].trial), up.at(rows[-1].best)) for rows in reached.values()]
    treads = [
        span(across.at(a.trial), up.at(a.best), across.at(b.trial), up.at(a.best))
        for rows in reached.values()
        for a, b in pairwise(rows)
    ]
    places = place_labels(ends, names, Box(_LEFT, _TOP, right + 106, bottom), treads)
    for strategy, text, place in zip(reached, names, places, strict=True):
        drawing.text(place.x, place.y, text, colours[strategy], size=11.5, anchor=place.align,
                     bold=strategy == winner)  # fmt: skip
    never = [f"{shortened(strategy, 24)} none within the limits" for strategy in progress if strategy not in reached]
    said = f"Best objective so far, by strategy. Final values: {'; '.join([*names, *never])}."
    return Figure(name, "Search progress", drawing.svg("Search progress", said, name))


def coefficient_map(merge: str, table: CoefficientTable, limit: float, name: str) -> Figure:
    """Draw coefficients as a map of layer groups (down) by experts, and module kinds (across).

    The deeper a cell, the larger the coefficient; negative ones take the warm colour. Cells are
    translucent, so that the map and the numbers in it read on a light and on a dark page.

    Args:
        merge: The merge that has these coefficients.
        table: The coefficients.
        limit: The size that gets the deepest colour; positive, the same for maps to be compared.
        name: The figure's name.
    """
    numbered = len(table.rows) <= _MOST_NUMBERED_ROWS
    every = 1 if numbered else ceil(len(table.rows) / 24)
    labels = [shortened(label, 15) for label in table.rows]
    words = [[shortened(word, 10) for word in label.split()[:_MOST_HEADER_LINES]] for label in table.columns]
    lines = max(map(len, words))
    left, top = max(map(text_width, labels)) + 12, 10 + _HEADER_LINE * lines
    cell = _CELL_HEIGHT if numbered else _LOW_CELL_HEIGHT
    drawing = Drawing(left + _CELL_WIDTH * len(table.columns), top + cell * len(table.rows) + 2)
    for column, own in enumerate(words):
        for line, word in enumerate(own):
            y = top - 8 - _HEADER_LINE * (len(own) - 1 - line)
            drawing.text(left + _CELL_WIDTH * (column + 0.5), y, word, size=11.5, anchor="middle")
    for row, (label, values) in enumerate(zip(labels, table.values, strict=True)):
        y = top + cell * row
        if row % every == 0:
            drawing.text(left - 8, y + cell / 2, label, MUTED, size=11, anchor="end")
        for column, value in enumerate(values):
            x, depth = left + _CELL_WIDTH * column, 0.04 + 0.56 * min(1.0, abs(value) / limit)
            drawing.box(x, y, _CELL_WIDTH, cell, WARM if value < 0 else ACCENT, opacity=depth)
            if numbered:
                drawing.text(x + _CELL_WIDTH / 2, y + cell / 2, number(value, 2), size=11, anchor="middle")
    said = f"{len(table.rows)} layer groups by {len(table.columns)} columns: {', '.join(table.columns)}."
    title = f"Coefficients of {merge}"
    return Figure(name, title, drawing.svg(title, said, name))


def _trial_ticks(longest: int) -> list[int]:
    """Return the first trial, and at most a dozen round numbers up to the last."""
    step = next(size * 10**power for power in range(12) for size in (1, 2, 5) if longest <= 12 * size * 10**power)
    return [1, *(tick for tick in range(step, longest + 1, step) if tick > 1)]
