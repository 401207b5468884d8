"""Put names beside points so that they cover neither each other nor the points; a small greedy search."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Align = Literal["start", "middle", "end"]
_LINE_HEIGHT = 13.0
_CHARACTER_WIDTH = 6.3
_NEARER = 4.0  # Square pixels of overlap that one step down the list of positions is worth.


class Box(NamedTuple):
    """A rectangle in pixels; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float


class Placement(NamedTuple):
    """Where a label's text is anchored (its vertical middle), in pixels, and how it is aligned there."""

    x: float
    y: float
    align: Align


_AROUND: tuple[tuple[float, float, Align], ...] = (
    (9.0, 0.0, "start"),
    (-9.0, 0.0, "end"),
    (7.0, -10.0, "start"),
    (7.0, 10.0, "start"),
    (-7.0, -10.0, "end"),
    (-7.0, 10.0, "end"),
    (0.0, -14.0, "middle"),
    (0.0, 14.0, "middle"),
)
_CANDIDATES = tuple((dx * reach, dy * reach, align) for reach in (1.0, 1.8, 2.8) for dx, dy, align in _AROUND)


def place_labels(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    frame: Box,
    obstacles: Sequence[Box] = (),
) -> list[Placement]:
    """Return one placement per point, the least overlapping of a few positions around it.

    Args:
        points: positions in pixels, y downwards.
        texts: the labels, one per point, set at about 11 pixels.
        frame: where labels should stay.
        obstacles: what else they should not cover, such as whiskers.
    """
    taken = [*obstacles, *(Box(x - 4, y - 4, x + 4, y + 4) for x, y in points)]
    placements = []
    for (x, y), text in zip(points, texts, strict=True):
        options = [Placement(x + dx, y + dy, align) for dx, dy, align in _CANDIDATES]
        costs = [
            _outside(box, frame) + sum(_overlap(box, other) for other in taken) + _NEARER * index
            for index, box in enumerate(_text_box(option, text) for option in options)
        ]
        best = options[costs.index(min(costs))]
        placements.append(best)
        taken.append(_text_box(best, text))
    return placements


def _text_box(placement: Placement, text: str) -> Box:
    width = _CHARACTER_WIDTH * len(text)
    left = placement.x - {"start": 0.0, "middle": width / 2, "end": width}[placement.align]
    return Box(left, placement.y - _LINE_HEIGHT / 2, left + width, placement.y + _LINE_HEIGHT / 2)


def _overlap(a: Box, b: Box) -> float:
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box, frame: Box) -> float:
    inside = _overlap(box, frame)
    return 3 * ((box.right - box.left) * (box.bottom - box.top) - inside)
