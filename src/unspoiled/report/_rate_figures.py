"""Figures of measured rates: bars by model, and bars by harm category and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unspoiled.evaluate import ModelScores, Rate
from unspoiled.report._axes import Figure, Scale, percent_ticks, text_width, whisker
from unspoiled.report._drawing import ACCENT, INK, MUTED, QUIET, RULE, Drawing
from unspoiled.report._hostile_text import shortened
from unspoiled.report._wording import measure_name, percent, rate_with_interval

_LONGEST_NAME = 16
_ROW, _BAR, _BARS = 22, 11, 168
_PANEL, _GAP, _CATEGORY_ROW = 104, 22, 24
_LONGEST_CATEGORY = 30


def rate_bars(models: Mapping[str, ModelScores], measure: str, winner: str | None, name: str) -> Figure:
    """Draw one measure of every model as bars with 95% whiskers, the winner in the accent colour.

    Args:
        models: The scores by model; those without this measure are left out.
        measure: A name as in `ModelScores.rates`.
        winner: The model to stand out, if any.
        name: The figure's name.
    """
    rates = {model: scores.rates[measure] for model, scores in models.items() if measure in scores.rates}
    labels = [shortened(model, _LONGEST_NAME) for model in rates]
    left = max(map(text_width, labels), default=0) + 10
    drawing = Drawing(left + _BARS + 44, _ROW * len(rates) + 24)
    scale = Scale(0, 1, left, left + _BARS)
    percent_ticks(drawing, scale, (0, 0.5, 1), 0, _ROW * len(rates))
    for row, (label, (model, rate)) in enumerate(zip(labels, rates.items(), strict=True)):
        y, chosen = _ROW * (row + 0.5), model == winner
        drawing.text(left - 8, y, label, anchor="end", bold=chosen)
        _bar(drawing, scale, rate, y, ACCENT if chosen else QUIET)
        drawing.text(left + _BARS + 42, y, percent(rate.rate, 0), anchor="end", bold=chosen)
    said = "; ".join(f"{model} {percent(rate.rate, 0)}" for model, rate in rates.items())
    title = f"{measure_name(measure)} by model"
    return Figure(name, title, drawing.svg(title, f"Bars with 95% intervals. {said}.", name))


def category_bars(
    models: Mapping[str, ModelScores], shown: Sequence[str], measure: str, winner: str | None, name: str
) -> Figure:
    """Draw one measure by harm category (down) and model (across) as bars with 95% whiskers.

    Args:
        models: The scores by model.
        shown: The models to draw, from left to right.
        measure: A name as in `ModelScores.categories`.
        winner: The model to stand out, if any.
        name: The figure's name.
    """
    categories = list(dict.fromkeys(c for model in shown for c in models[model].categories))
    labels = [shortened(category, _LONGEST_CATEGORY) for category in categories]
    left = max(map(text_width, labels), default=0) + 10
    bottom = 24 + _CATEGORY_ROW * len(categories)
    drawing = Drawing(left + (_PANEL + _GAP) * len(shown), bottom + 24)
    for row, label in enumerate(labels):
        drawing.text(left - 8, 24 + _CATEGORY_ROW * (row + 0.5), label, anchor="end")
    for column, model in enumerate(shown):
        start = left + (_PANEL + _GAP) * column
        scale = Scale(0, 1, start, start + _PANEL)
        drawing.text(start, 10, shortened(model, _LONGEST_NAME), bold=model == winner)
        for share in (0, 0.5, 1):
            drawing.line(scale.at(share), 24, scale.at(share), bottom, RULE, width=0.8)
        drawing.text(start, bottom + 12, "0%", MUTED, size=10.5)
        drawing.text(start + _PANEL, bottom + 12, "100%", MUTED, size=10.5, anchor="end")
        for row, category in enumerate(categories):
            rate, y = models[model].categories.get(category, {}).get(measure), 24 + _CATEGORY_ROW * (row + 0.5)
            if rate is None:
                drawing.text(start + 4, y, "not measured", MUTED, size=10.5)
            else:
                _bar(drawing, scale, rate, y, ACCENT if model == winner else QUIET)
    said = "; ".join(
        f"{category}: " + ", ".join(f"{model} {_said(models[model], category, measure)}" for model in shown)
        for category in categories
    )
    title = f"{measure_name(measure)} by harm category"
    return Figure(name, title, drawing.svg(title, f"Bars with 95% intervals. {said}.", name))


def _said(scores: ModelScores, category: str, measure: str) -> str:
    rate = scores.categories.get(category, {}).get(measure)
    return "not measured" if rate is None else rate_with_interval(rate, 0)


def _bar(drawing: Drawing, scale: Scale, rate: Rate, y: float, colour: str) -> None:
    drawing.box(scale.at(0), y - _BAR / 2, scale.at(rate.rate) - scale.at(0), _BAR, colour)
    whisker(drawing, scale.at(rate.low), scale.at(rate.high), y, INK)
