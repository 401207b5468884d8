"""Figures of how the merge was found: the search's progress, and the coefficients it ended with."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, inf, isfinite
from typing import NamedTuple

from unspoiled.report._figure_style import (
    ACCENT,
    GREEN,
    INK,
    MUTED,
    PLUM,
    WARM,
    Frame,
    Margins,
    label_layers,
    label_width,
    refield,
    styled,
)
from unspoiled.report._hostile_text import shortened, visible
from unspoiled.report._inputs import CoefficientTable, TrialPoint
from unspoiled.report._label_placement import Box, place_labels
from unspoiled.report._svg import draw
from unspoiled.report._wording import number

_SERIES = (ACCENT, WARM, GREEN, PLUM, INK)
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (1, 3))
_PROGRESS_MARGINS = Margins(left=62, top=12, right=100, bottom=46)
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


def progress_figure(progress: dict[str, list[Progress]], winner: str, figure_id: str) -> str:
    """Draw the best objective so far by strategy, with the trials as faint dots, and as crosses if they break a limit.

    The axis holds every best value, or all trials where none is within the limits; trials above it are not drawn, and
    neither are dots of more than 1,500 trials.

    Args:
        progress: from `search_progress`, not empty.
        winner: the strategy to stand out, if it is among them.
        figure_id: makes the ids in the figure unique on the page.
    """
    import altair as alt

    every = [row for rows in progress.values() for row in rows]
    lines = {name: [row for row in rows if isfinite(row.best)] for name, rows in progress.items()}
    bests = [row.best for rows in lines.values() for row in rows] or [row.objective for row in every]
    low, high = min(bests), max(bests)
    margin = 0.08 * (high - low) or 0.05
    longest = max(2, *(row.trial for row in every))
    frame = Frame(1, longest, low - margin, high + margin, width=800.0, height=230.0)
    order = {name: rank for rank, name in enumerate(sorted(progress, key=lambda name: name != winner))}
    if winner not in progress:
        order = {name: rank + 1 for name, rank in order.items()}
    series = {name: _SERIES[order[name] % len(_SERIES)] for name in progress}
    scale_x = alt.Scale(domain=[1, longest], nice=False)
    scale_y = alt.Scale(domain=[low - margin, high + margin], nice=False, zero=False)
    across = alt.X(
        "trial:Q",
        scale=scale_x,
        axis=alt.Axis(values=_trial_ticks(longest), format="d", grid=False),
        title="trial",
    )
    up = alt.Y("best:Q", scale=scale_y, axis=alt.Axis(tickCount=5), title="objective, lower is better")
    layers = []
    dotted = len(every) <= _MOST_DOTS or not any(lines.values())
    for name, rows in progress.items():
        colour, dash = series[name], list(_DASHES[order[name] % len(_DASHES)])
        seen = [row for row in rows if low - margin <= row.objective <= high + margin]
        for feasible in (True, False) if dotted else ():
            dots = [{"trial": r.trial, "tried": r.objective} for r in seen if r.feasible == feasible]
            shape = {"filled": True, "size": 16} if feasible else {"filled": False, "shape": "cross", "size": 22}
            if dots:
                dot = alt.Chart(alt.Data(values=dots)).mark_point(opacity=0.4, color=colour, **shape)
                layers.append(dot.encode(x=across, y=refield(up, "tried")))
        steps = [{"trial": r.trial, "best": r.best} for r in lines[name]]
        if steps:
            line = alt.Chart(alt.Data(values=steps)).mark_line(
                interpolate="step-after", strokeWidth=2, color=colour, strokeDash=dash
            )
            end = alt.Chart(alt.Data(values=steps[-1:])).mark_point(filled=True, size=40, opacity=1, color=colour)
            layers += [line.encode(x=across, y=up), end.encode(x=across, y=up)]
    reached = {name: rows for name, rows in lines.items() if rows}
    ends = [frame.pixel(rows[-1].trial, rows[-1].best) for rows in reached.values()]
    names = [f"{shortened(name, 24)} {rows[-1].best:.3f}" for name, rows in reached.items()]
    treads = [frame.box(a.trial, b.trial, a.best, a.best) for rows in reached.values() for a, b in pairwise(rows)]
    room = Box(0, 0, frame.width + 80, frame.height)
    placed = place_labels(ends, names, room, treads)
    layers += label_layers(frame, names, placed, [series[name] for name in reached], across, up)
    never = [f"{shortened(name, 24)} none within the limits" for name in progress if name not in reached]
    return draw(
        styled(alt.layer(*layers).properties(width=frame.width, height=frame.height), _PROGRESS_MARGINS),
        title="Search progress",
        description=f"Best objective so far, by strategy. Final values: {'; '.join([*names, *never])}.",
        figure_id=figure_id,
    )


def coefficient_map(name: str, table: CoefficientTable, limit: float, figure_id: str) -> str:
    """Draw coefficients as a map of layer groups (down) by experts, and module kinds (across).

    The deeper a cell, the larger the coefficient; negative ones take the warm colour. Cells are
    translucent, so that the map and the numbers in it read on a light and on a dark page.

    Args:
        name: the merge that has these coefficients.
        table: the coefficients.
        limit: the size that gets the deepest colour; positive, the same for maps to be compared.
        figure_id: makes the ids in the figure unique on the page.
    """
    import altair as alt

    cells = [
        {
            "row": r,
            "column": c,
            "size": min(1.0, abs(value) / limit),
            "negative": value < 0,
            "text": number(value, 2),
        }
        for r, values in enumerate(table.values)
        for c, value in enumerate(values)
    ]
    numbered = len(table.rows) <= _MOST_NUMBERED_ROWS
    across, down = alt.X("column:O", axis=None), alt.Y("row:O", axis=None)
    base = alt.Chart(alt.Data(values=cells)).encode(x=across, y=down)
    depth = alt.Opacity("size:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 0.6]), legend=None)
    hue = alt.condition("datum.negative", alt.value(WARM), alt.value(ACCENT))
    layers = [base.mark_rect().encode(color=hue, opacity=depth)]
    if numbered:
        layers.append(base.mark_text(fontSize=11, color=INK).encode(text="text:N"))
    every = 1 if numbered else ceil(len(table.rows) / 24)
    rows = [{"row": r, "text": shortened(label, 15)} for r, label in enumerate(table.rows) if r % every == 0]
    words = [[shortened(word, 10) for word in label.split()[:_MOST_HEADER_LINES]] for label in table.columns]
    lines = max(map(len, words))
    columns = [{"column": c, "text": "\n".join(own)} for c, own in enumerate(words)]
    row_names = alt.Chart(alt.Data(values=rows)).mark_text(align="right", fontSize=11, color=MUTED)
    column_names = alt.Chart(alt.Data(values=columns)).mark_text(
        baseline="line-bottom", fontSize=11.5, lineHeight=_HEADER_LINE, lineBreak="\n", color=INK
    )
    layers += [
        row_names.encode(x=alt.value(-8), y=down, text="text:N"),
        column_names.encode(x=across, y=alt.value(-6 - _HEADER_LINE * (lines - 1)), text="text:N"),
    ]
    height = len(table.rows) * (_CELL_HEIGHT if numbered else _LOW_CELL_HEIGHT)
    longest = max(len(shortened(label, 15)) for label in table.rows)
    margins = Margins(left=label_width(longest) + 12, top=24 + _HEADER_LINE * (lines - 1), right=4, bottom=4)
    across_labels = ", ".join(visible(label) for label in table.columns)
    return draw(
        styled(alt.layer(*layers).properties(width=_CELL_WIDTH * len(columns), height=height), margins),
        title=visible(f"Coefficients of {name}"),
        description=f"{len(table.rows)} layer groups by {len(table.columns)} columns: {across_labels}.",
        figure_id=figure_id,
    )


def _trial_ticks(longest: int) -> list[int]:
    """Return the first trial, and at most a dozen round numbers up to the last."""
    step = next(size * 10**power for power in range(12) for size in (1, 2, 5) if longest <= 12 * size * 10**power)
    return [1, *(tick for tick in range(step, longest + 1, step) if tick > 1)]
