"""Safety against expertise: one point per model, with its intervals both ways, and the front of the best."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, pairwise
from math import ceil, floor
from typing import NamedTuple

from unspoiled.config import BASE, UNIFORM
from unspoiled.evaluate import REFUSAL, ModelScores, Rate
from unspoiled.report._axes import Figure, Scale, percent_ticks, span, ticks
from unspoiled.report._drawing import ACCENT, GREEN, INK, MUTED, PLUM, QUIET, RULE, WARM, Drawing, Shape
from unspoiled.report._hostile_text import shortened
from unspoiled.report._label_placement import Box, place_labels
from unspoiled.report._wording import listing, measure_name, percent

_LONGEST_LABEL = 24
_LEFT, _TOP, _WIDTH, _HEIGHT = 58.0, 10.0, 412.0, 320.0


class RunPoints(NamedTuple):
    """The models of one run, and which of them is what."""

    models: Mapping[str, ModelScores]
    winner: str | None
    parents: Collection[str]


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of the points that no other beats: none is better in one way and as good in the other.

    They are ordered from the best by the first coordinate to the best by the second.
    """
    best = [
        name
        for name, (x, y) in points.items()
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())
    ]
    return sorted(best, key=lambda name: (-points[name][0], points[name][1]))


def staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the line that bounds what a front beats, from its first point to its last."""
    corners = [corner for (_, y), (x, up) in pairwise(points) for corner in ((x, y), (x, up))]
    return [*points[:1], *corners]


def trade_off(
    models: Mapping[str, ModelScores],
    skill: str,
    safety: str,
    winner: str | None,
    experts: Collection[str],
    name: str,
) -> Figure:
    """Draw a rate of safety against a rate of expertise.

    Args:
        models: The scores by model; those without both measures are left out.
        skill: The measure across.
        safety: The measure upwards.
        winner: The model to stand out, if any.
        experts: The experts' names.
        name: The figure's name.
    """
    shown = _both(models, skill, safety)
    drawing, across, up = _plot(skill, safety, [x for x, _ in shown.values()])
    spots = {model: (across.at(x.rate), up.at(y.rate)) for model, (x, y) in shown.items()}
    best = front({model: (x.rate, y.rate) for model, (x, y) in shown.items()})
    steps = staircase([spots[model] for model in best])
    drawing.path(steps, GREEN, width=1.4, dash="5 4")
    order = sorted(shown, key=lambda model: model == winner)
    obstacles = [span(*a, *b) for a, b in pairwise(steps)]
    for model in order:
        obstacles += _whiskers(drawing, across, up, *shown[model], ACCENT if model == winner else QUIET)
    for model in order:
        shape, size, colour, filled = _look(model, winner, experts)
        drawing.mark(shape, *spots[model], size, colour, filled=filled)
    labels = [shortened(model, _LONGEST_LABEL) + (" (chosen)" if model == winner else "") for model in order]
    frame = Box(_LEFT, _TOP, _LEFT + _WIDTH + 20, _TOP + _HEIGHT)
    for model, label, place in zip(
        order, labels, place_labels([spots[m] for m in order], labels, frame, obstacles), strict=True
    ):
        drawing.text(place.x, place.y, label, ACCENT if model == winner else INK, size=11.5, anchor=place.align,
                     bold=model == winner)  # fmt: skip
    return _figure(drawing, shown, best, skill, safety, name)


def overlay(runs: Mapping[str, RunPoints], skill: str, safety: str, name: str) -> Figure:
    """Draw the chosen merges of several runs, each in its colour, with their parents and uniform merges small.

    Args:
        runs: By the run's name; those without both measures are left out.
        skill: The measure across.
        safety: The measure upwards.
        name: The figure's name.
    """
    points = {run: _both(own.models, skill, safety) for run, own in runs.items()}
    drawing, across, up = _plot(skill, safety, [x for own in points.values() for x, _ in own.values()])
    named, obstacles = [], []
    for (run, own), colour in zip(points.items(), cycle((ACCENT, WARM, GREEN, PLUM, INK))):
        for model, (x, y) in own.items():
            spot = (across.at(x.rate), up.at(y.rate))
            if model == runs[run].winner:
                obstacles += _whiskers(drawing, across, up, x, y, colour)
                named.append((run, spot, colour))
            elif runs[run].winner is None or model == UNIFORM or model in runs[run].parents:
                shape, size, _, filled = _look(model, None, runs[run].parents)
                drawing.mark(shape, *spot, size, colour, filled=filled, opacity=0.75)
    for _, spot, colour in named:
        drawing.mark("diamond", *spot, 6.5, colour)
    labels = [shortened(run, _LONGEST_LABEL) for run, _, _ in named]
    frame = Box(_LEFT, _TOP, _LEFT + _WIDTH + 20, _TOP + _HEIGHT)
    places = place_labels([spot for _, spot, _ in named], labels, frame, obstacles)
    for label, (_, _, colour), place in zip(labels, named, places, strict=True):
        drawing.text(place.x, place.y, label, colour, size=11.5, anchor=place.align, bold=True)
    title = f"{measure_name(safety)} against accuracy in {measure_name(skill)}, by run"
    said = "; ".join(
        f"{run}: " + ", ".join(f"{model} {percent(x.rate, 0)}, {percent(y.rate, 0)}" for model, (x, y) in own.items())
        for run, own in points.items()
    )
    return Figure(name, title, drawing.svg(title, f"Accuracy, then {measure_name(safety)}. {said}.", name))


def _both(models: Mapping[str, ModelScores], skill: str, safety: str) -> dict[str, tuple[Rate, Rate]]:
    asked = {skill, safety}
    return {name: (of.rates[skill], of.rates[safety]) for name, of in models.items() if asked <= of.rates.keys()}


def _plot(skill: str, safety: str, reached: Sequence[Rate]) -> tuple[Drawing, Scale, Scale]:
    """Return a drawing with both axes, and the scales of skill and safety."""
    low = floor(10 * min(rate.low for rate in reached)) / 10
    high = max(ceil(10 * max(rate.high for rate in reached)) / 10, low + 0.1)
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    across, up = Scale(low, high, _LEFT, right), Scale(0, 1, bottom, _TOP)
    drawing = Drawing(right + 24, bottom + 46)
    percent_ticks(drawing, across, ticks(low, high, 6), _TOP, bottom)
    for value in (0, 0.25, 0.5, 0.75, 1):
        drawing.line(_LEFT, up.at(value), right, up.at(value), RULE, width=0.8)
        drawing.text(_LEFT - 7, up.at(value), percent(value, 0), MUTED, size=11, anchor="end")
    said = "refusal of unsafe prompts" if safety == REFUSAL else f"responses called {measure_name(safety)}"
    of_skill = f"accuracy in {shortened(measure_name(skill), 40)}"
    drawing.text((_LEFT + right) / 2, bottom + 34, of_skill, MUTED, anchor="middle")
    drawing.text(14, (_TOP + bottom) / 2, said, MUTED, anchor="middle", turned=True)
    return drawing, across, up


def _figure(
    drawing: Drawing, shown: Mapping[str, tuple[Rate, Rate]], best: Sequence[str], skill: str, safety: str, name: str
) -> Figure:
    title = f"{measure_name(safety)} against accuracy in {measure_name(skill)}"
    said = "; ".join(
        f"{model}: accuracy {percent(x.rate, 0)}, {measure_name(safety)} {percent(y.rate, 0)}"
        for model, (x, y) in shown.items()
    )
    on_it = f" On the front: {listing([*best])}."
    return Figure(
        name, title, drawing.svg(title, f"Points with 95% intervals on both axes. {said}.{on_it}", name)
    )  # fmt: skip


def _whiskers(drawing: Drawing, across: Scale, up: Scale, x: Rate, y: Rate, colour: str) -> list[Box]:
    level = (across.at(x.low), up.at(y.rate), across.at(x.high), up.at(y.rate))
    upright = (across.at(x.rate), up.at(y.low), across.at(x.rate), up.at(y.high))
    for ends in (level, upright):
        drawing.line(*ends, colour, width=1.2)
    return [span(*level), span(*upright)]


def _look(model: str, winner: str | None, experts: Collection[str]) -> tuple[Shape, float, str, bool]:
    """Return the shape, size, colour and whether it is filled, of a model's point."""
    if model == winner:
        return "diamond", 6.5, ACCENT, True
    if model == BASE:
        return "square", 3.8, MUTED, False
    if model in experts:
        return "circle", 4.2, MUTED, False
    return ("triangle" if model == UNIFORM else "diamond"), 4.4, MUTED, True
