"""A small SVG drawing: lines, boxes, marks and texts, all in pixels; static, named for screen readers, unstyled.

Colours are those of the light page. The style sheet maps each of them to its dark counterpart by attribute, so that a
figure reads in both and still stands alone as a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin
from typing import Literal
from xml.sax.saxutils import escape

from unspoiled.report._hostile_text import visible
from unspoiled.report._label_placement import Align

INK, MUTED, RULE, QUIET = "#23211e", "#6b675f", "#ddd8cd", "#b9b4a8"
ACCENT, WARM, GREEN, PLUM = "#1d5c8a", "#b3541e", "#3f7d4e", "#7a4b8c"
PAPER = "#ffffff"
PALETTE = (INK, MUTED, RULE, QUIET, ACCENT, WARM, GREEN, PLUM, PAPER)
"""Every colour that a figure uses; each has a rule in style.css."""
FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"

Shape = Literal["circle", "square", "triangle", "diamond", "cross"]
_CORNERS = {"triangle": (3, -pi / 2, 1.25), "diamond": (4, 0.0, 1.25), "square": (4, pi / 4, 1.3)}
"""By shape: how many corners, the angle of the first, and the radius that makes its area like the circle's."""


class Drawing:
    """Marks on a canvas of a given size in pixels, x to the right and y downwards."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(
        self, x0: float, y0: float, x1: float, y1: float, colour: str, *, width: float = 1.0, dash: str = ""
    ) -> None:
        """Draw a straight line; `dash` as in SVG's stroke-dasharray."""
        self._add("line", x1=x0, y1=y0, x2=x1, y2=y1, stroke=colour, stroke_width=width, stroke_dasharray=dash)

    def path(self, points: Sequence[tuple[float, float]], colour: str, *, width: float = 1.5, dash: str = "") -> None:
        """Draw straight lines from point to point."""
        joined = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
        self._add(
            "polyline", points=joined, fill="none", stroke=colour, stroke_width=width, stroke_dasharray=dash,
            stroke_linejoin="round",
        )  # fmt: skip

    def box(self, x: float, y: float, width: float, height: float, colour: str, *, opacity: float = 1.0) -> None:
        """Fill a rectangle."""
        opaque: float | str = "" if opacity >= 1 else f"{opacity:.2f}"
        self._add("rect", x=x, y=y, width=max(width, 0.0), height=height, fill=colour, fill_opacity=opaque)

    def mark(
        self, shape: Shape, x: float, y: float, size: float, colour: str, *, filled: bool = True, opacity: float = 1.0
    ) -> None:
        """Draw a point of a radius of about `size`; a hollow one covers what is behind it."""
        look: dict[str, str | float] = {"fill": colour if filled else PAPER}
        if not filled:
            look |= {"stroke": colour, "stroke_width": 1.7}
        look["opacity"] = "" if opacity >= 1 else f"{opacity:.2f}"
        if shape == "circle":
            self._add("circle", cx=x, cy=y, r=size, **look)
        elif shape == "cross":
            look = {"fill": "none", "stroke": colour, "stroke_width": 1.2, "opacity": look["opacity"]}
            ends = (x - size, y - size, x + size, y + size)
            path = "M{},{}L{},{}M{},{}L{},{}".format(*map(_short, (*ends, ends[0], ends[3], ends[2], ends[1])))
            self._add("path", d=path, **look)
        else:
            corners, start, reach = _CORNERS[shape]
            angles = [start + 2 * pi * i / corners for i in range(corners)]
            spots = [(x + reach * size * cos(angle), y + reach * size * sin(angle)) for angle in angles]
            self._add("polygon", points=" ".join(f"{_short(a)},{_short(b)}" for a, b in spots), **look)

    def text(
        self, x: float, y: float, text: str, colour: str = INK, *, size: float = 12.0, anchor: Align = "start",
        bold: bool = False, turned: bool = False,
    ) -> None:  # fmt: skip
        """Write one line, its vertical middle at `y`; `turned` reads upwards. What hides in the text is made visible.

        Args:
            x: Where the anchor is.
            y: The vertical middle.
            text: Anything.
            colour: One of the palette.
            size: In pixels.
            anchor: Which end of the text is at `x`.
            bold: Whether it stands out.
            turned: Whether it is turned by a right angle.
        """
        self._add(
            "text", escape(" ".join(visible(text).split())),
            x=x, y=y + 0.35 * size if not turned else y, fill=colour, font_size=size,
            text_anchor="" if anchor == "start" else anchor, font_weight="bold" if bold else "",
            transform=f"rotate(-90 {_short(x)} {_short(y)})" if turned else "",
        )  # fmt: skip

    def svg(self, title: str, description: str, figure_id: str) -> str:
        """Return the drawing as inline SVG, one image with one description; its data stands in a table nearby.

        Args:
            title: The name of the figure, for screen readers.
            description: What it shows, in words.
            figure_id: A prefix that makes the ids unique on the page; letters, digits and hyphens.
        """
        w, h = _short(self.width), _short(self.height)
        named = f'role="img" aria-labelledby="{figure_id}-title" aria-describedby="{figure_id}-desc"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" '
            f'font-family="{FONT}" {named}><title id="{figure_id}-title">{escape(visible(title))}</title>'
            f'<desc id="{figure_id}-desc">{escape(visible(description))}</desc>{"".join(self._parts)}</svg>'
        )

    def _add(self, tag: str, inside: str = "", /, **attributes: str | float) -> None:
        named = [f'{name.replace("_", "-")}="{_short(v)}"' for name, v in attributes.items() if v != ""]
        end = f">{inside}</{tag}>" if inside else "/>"
        self._parts.append(f"<{tag} {' '.join(named)}{end}")


def as_file(svg: str) -> str:
    """Return a figure as a file of its own: on white, readable in any viewer."""
    head, _, rest = svg.partition("<title")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}<title{rest}'.replace(
        "</desc>", f'</desc><rect width="100%" height="100%" fill="{PAPER}"/>', 1
    )


def _short(value: float | str) -> str:
    """Write a number with at most one decimal; text stays."""
    if isinstance(value, str):
        return value
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
