"""What all figures share: scales, ticks, intervals, and how much room a name takes."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import NamedTuple

from unspoiled.report._drawing import MUTED, RULE, Drawing
from unspoiled.report._label_placement import Box
from unspoiled.report._wording import number


class Figure(NamedTuple):
    """A figure of the page."""

    name: str
    """Of its files: letters, digits and hyphens."""
    title: str
    svg: str


class Scale(NamedTuple):
    """A straight map of data to pixels; `start` is where `low` is drawn."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value is drawn; one off the scale is drawn at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers within a range, at most so many, zero written as zero."""
    step = next(
        step
        for power in range(floor(log10((high - low) / most)) - 1, 400)
        for factor in (1, 2, 2.5, 5)
        if (high - low) / (step := factor * 10.0**power) <= most - 1 + 1e-9
    )
    return [round(i * step, 12) + 0.0 for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def decimals(values: Sequence[float]) -> int:
    """Return how many decimals tell these ticks apart."""
    return next((d for d in range(6) if all(abs(round(v, d) - v) < 1e-9 for v in values)), 6)


def percent_ticks(drawing: Drawing, scale: Scale, values: Sequence[float], y0: float, y1: float) -> None:
    """Draw upright grid lines at shares, with their per cents below."""
    for value in values:
        x = scale.at(value)
        drawing.line(x, y0, x, y1, RULE, width=0.8)
        drawing.text(x, y1 + 12, f"{100 * value:.0f}%", MUTED, size=11, anchor="middle")


def number_ticks(drawing: Drawing, scale: Scale, values: Sequence[float], y0: float, y1: float) -> None:
    """Draw upright grid lines at numbers, which are written below."""
    for value in values:
        x = scale.at(value)
        drawing.line(x, y0, x, y1, MUTED if value == 0 else RULE, width=0.8)
        drawing.text(x, y1 + 12, number(value, decimals(values)), MUTED, size=11, anchor="middle")


def whisker(drawing: Drawing, x0: float, x1: float, y: float, colour: str, *, cap: float = 3.5) -> None:
    """Draw a level interval with caps."""
    drawing.line(x0, y, x1, y, colour, width=1.2)
    for x in (x0, x1):
        drawing.line(x, y - cap, x, y + cap, colour, width=1.2)


def text_width(text: str, size: float = 12.0) -> float:
    """Return the room, in pixels, that a text needs in a wide font."""
    return 0.6 * size * len(text)


def span(x0: float, y0: float, x1: float, y1: float) -> Box:
    """Return the pixels around a line, for labels to avoid."""
    return Box(min(x0, x1) - 2, min(y0, y1) - 2, max(x0, x1) + 2, max(y0, y1) + 2)
