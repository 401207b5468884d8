"""Figures of the audit: layers by experts as a map, and what leaving an expert out changes, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from unspoiled.audit import Change, MergeAudit
from unspoiled.report._axes import Figure, Scale, number_ticks, text_width, ticks, whisker
from unspoiled.report._drawing import ACCENT, INK, MUTED, QUIET, RULE, WARM, Drawing
from unspoiled.report._hostile_text import shortened
from unspoiled.report._label_placement import Align
from unspoiled.report._wording import number, term_name

_LONGEST_NAME = 16
_MAP_WIDTH, _MAP_ROW, _WIDEST_CELL, _THINNEST_CELL = 760.0, 26, 26.0, 4.0
_LEGEND_CELLS, _LEGEND_CELL = 9, 16.0
_PANEL, _PANEL_GAP, _ROW = 188.0, 26.0, 40.0


def layer_map(
    title: str,
    layers: Sequence[str],
    values: Mapping[str, Sequence[float]],
    name: str,
    *,
    unit: str,
    signed: bool,
) -> Figure:
    """Draw a value by layer (across) and expert (down); of signed values warm adds and blue takes away.

    Args:
        title: What the values are.
        layers: The layers' names.
        values: By expert, a value per layer.
        name: The figure's name.
        unit: Of the values.
        signed: Whether values below zero have a meaning of their own.
    """
    limit = max((abs(value) for row in values.values() for value in row), default=0.0) or 1.0
    labels = [shortened(expert, _LONGEST_NAME) for expert in values]
    left, cell = max(map(text_width, labels), default=0) + 10, _cell_width(len(layers))
    bottom = 4 + _MAP_ROW * len(values)
    width = max(left + cell * len(layers) + 20, left + _LEGEND_CELL * _LEGEND_CELLS + 240)
    drawing = Drawing(width, bottom + 66)
    for row, (label, own) in enumerate(zip(labels, values.values(), strict=True)):
        y = 4.0 + _MAP_ROW * row
        drawing.text(left - 8, y + _MAP_ROW / 2, label, anchor="end")
        for column, value in enumerate(own):
            colour, depth = _shade(value / limit, signed)
            drawing.box(left + cell * column, y + 1, cell - 1, _MAP_ROW - 2, colour, opacity=depth)
    short = ["emb." if layer.startswith("embed") else layer.removeprefix("layer ") for layer in layers]
    every = ceil(22 / cell)
    for column, layer in enumerate(short):
        x, numbered = left + cell * (column + 0.5), layer.isdecimal()
        if not numbered or int(layer) % (every if every == 1 else 5 * ceil(every / 5)) == 0:
            anchor: Align = "middle" if numbered else "end" if column == 0 else "start"
            at = x if numbered else left + cell - 1 if column == 0 else left + cell * column
            drawing.text(at, bottom + 10, shortened(layer, 10), MUTED, size=10.5, anchor=anchor)
    drawing.text(left + cell * len(layers) / 2, bottom + 27, "layer", MUTED, size=11, anchor="middle")
    _legend(drawing, left, bottom + 48, limit, unit, signed)
    peak = {expert: max(zip(own, layers, strict=True), key=lambda pair: abs(pair[0])) for expert, own in values.items()}
    said = "; ".join(f"{expert} most in {layer} ({number(value, 3)})" for expert, (value, layer) in peak.items())
    return Figure(name, title, drawing.svg(title, f"{len(layers)} layers by {len(values)} experts: {said}.", name))


def changes_figure(title: str, audit: MergeAudit, name: str) -> Figure:
    """Draw how each loss changes without each expert (filled) and with it halved (hollow), with 95% intervals.

    One panel per loss, all on one scale, so that what dropping an expert wins in safety stands beside what it costs.

    Args:
        title: The figure's title.
        audit: The merge's audit.
        name: The figure's name.
    """
    experts = list(audit.without)
    every = [c for of in (audit.without, audit.halved) for own in of.values() for c in own.values()]
    low, high = min([0.0, *(c.low for c in every)]), max([0.0, *(c.high for c in every)])
    margin = 0.06 * (high - low) or 0.1
    labels = [shortened(expert, _LONGEST_NAME) for expert in experts]
    left, top = max(map(text_width, labels), default=0) + 12, 26.0
    bottom = top + _ROW * len(experts)
    drawing = Drawing(left + (_PANEL + _PANEL_GAP) * len(audit.terms), bottom + 42)
    for row, (expert, label) in enumerate(zip(experts, labels, strict=True)):
        y = top + _ROW * (row + 0.5)
        drawing.text(left - 10, y, label, anchor="end", bold=expert == audit.spoiler)
        if row:
            drawing.line(left, top + _ROW * row, drawing.width - _PANEL_GAP, top + _ROW * row, RULE, width=0.8)
    for column, term in enumerate(audit.terms):
        start = left + (_PANEL + _PANEL_GAP) * column
        scale = Scale(low - margin, high + margin, start, start + _PANEL)
        drawing.text(start, 10, shortened(term_name(term), 26), bold=True)
        number_ticks(drawing, scale, ticks(scale.low, scale.high, 5), top, bottom)
        for row, expert in enumerate(experts):
            y = top + _ROW * (row + 0.5)
            _change(drawing, scale, audit.halved.get(expert, {}).get(term), y + 8, filled=False)
            _change(drawing, scale, audit.without[expert].get(term), y - 7, filled=True)
    middle = left + ((_PANEL + _PANEL_GAP) * len(audit.terms) - _PANEL_GAP) / 2
    drawing.text(middle, bottom + 32, "change of the loss, nats per token", MUTED, size=11, anchor="middle")
    said = "; ".join(
        f"without {expert}: " + ", ".join(f"{term_name(t)} {number(c.difference, 2)}" for t, c in own.items())
        for expert, own in audit.without.items()
    )
    return Figure(name, title, drawing.svg(title, f"Points with 95% intervals. {said}.", name))


def _change(drawing: Drawing, scale: Scale, change: Change | None, y: float, *, filled: bool) -> None:
    if change is not None:
        colour = MUTED if change.p_value > 0.05 else WARM if change.difference > 0 else ACCENT
        whisker(drawing, scale.at(change.low), scale.at(change.high), y, colour, cap=3)
        drawing.mark("circle", scale.at(change.difference), y, 4, colour, filled=filled)


def _legend(drawing: Drawing, x: float, y: float, limit: float, unit: str, signed: bool) -> None:
    low = -limit if signed else 0.0
    for step in range(_LEGEND_CELLS):
        share = (low + (limit - low) * step / (_LEGEND_CELLS - 1)) / limit
        colour, depth = _shade(share, signed)
        drawing.box(x + _LEGEND_CELL * step, y - 5, _LEGEND_CELL - 1, 10, colour, opacity=depth)
    digits = 3 if limit < 0.1 else 2
    end = x + _LEGEND_CELL * _LEGEND_CELLS
    drawing.text(end + 6, y, f"{number(low, digits)} to {number(limit, digits)} {unit}", MUTED, size=11)


def _shade(share: float, signed: bool) -> tuple[str, float]:
    if abs(share) < 0.02:
        return QUIET, 0.15
    colour = (WARM if share > 0 else ACCENT) if signed else INK
    return colour, 0.08 + 0.92 * min(1.0, abs(share))


def _cell_width(layers: int) -> float:
    return min(_WIDEST_CELL, max(_THINNEST_CELL, _MAP_WIDTH / max(1, layers)))
