"""What all figures share: colours, axes, and names beside points.

Colours are those of the light page. The style sheet maps each of them to its dark counterpart by attribute,
so that a figure reads in both and still stands alone as a file.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from unspoiled.report._label_placement import Box, Placement

INK, MUTED, RULE, QUIET = "#23211e", "#6b675f", "#ddd8cd", "#b9b4a8"
ACCENT, WARM, GREEN, PLUM = "#1d5c8a", "#b3541e", "#3f7d4e", "#7a4b8c"
PALETTE = (INK, MUTED, RULE, QUIET, ACCENT, WARM, GREEN, PLUM)
"""Every colour that a figure uses; each has a rule in style.css."""

FONT = "system-ui, sans-serif"


class Frame(NamedTuple):
    """A plot's data ranges and its size in pixels, to turn data into pixels (y downwards) and back."""

    left: float
    right: float
    bottom: float
    top: float
    width: float
    height: float

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return where a data point is drawn."""
        return (
            (x - self.left) / (self.right - self.left) * self.width,
            (self.top - y) / (self.top - self.bottom) * self.height,
        )

    def data(self, x: float, y: float) -> tuple[float, float]:
        """Return the data point that is drawn at a pixel."""
        return (
            self.left + x / self.width * (self.right - self.left),
            self.top - y / self.height * (self.top - self.bottom),
        )

    def box(self, left: float, right: float, bottom: float, top: float) -> Box:
        """Return the pixels that a range of data covers."""
        (x0, y0), (x1, y1) = self.pixel(left, top), self.pixel(right, bottom)
        return Box(x0 - 2, y0 - 2, x1 + 2, y1 + 2)


def percent_axis(values: Sequence[float] | None = None) -> Any:
    """Return an axis that counts in per cent, with ticks at the given shares or at about five."""
    import altair as alt

    return alt.Axis(format="%", values=list(values)) if values else alt.Axis(format="%", tickCount=5)


def winner_colour(otherwise: str) -> Any:
    """Return a colour that is the accent where the field `winner` is true."""
    import altair as alt

    return alt.condition("datum.winner", alt.value(ACCENT), alt.value(otherwise))


def label_layers(
    frame: Frame,
    texts: Sequence[str],
    placements: Sequence[Placement],
    colours: Sequence[str],
    x: Any,
    y: Any,
) -> list[Any]:
    """Return the layers that write texts where they were placed, one per alignment and colour.

    Args:
        frame: the plot.
        texts: what to write, already fit to be seen.
        placements: where, from `place_labels`.
        colours: the colour of each text.
        x: the plot's x channel, whose scale the labels share; its field is replaced.
        y: the same for y.
    """
    import altair as alt

    layers = []
    for align, colour in sorted({(place.align, colour) for place, colour in zip(placements, colours)}):
        rows = []
        for text, place, own in zip(texts, placements, colours, strict=True):
            if (place.align, own) == (align, colour):
                at_x, at_y = frame.data(place.x, place.y)
                rows.append({"x": at_x, "y": at_y, "text": text})
        mark = alt.Chart(alt.Data(values=rows)).mark_text(
            align=align, baseline="middle", fontSize=11.5, color=colour, fontWeight=_weight(colour)
        )
        layers.append(mark.encode(x=refield(x, "x"), y=refield(y, "y"), text="text:N"))
    return layers


def refield(channel: Any, field: str) -> Any:
    """Return a copy of a quantitative channel that reads another field; scale, axis and title stay."""
    copied = channel.copy()
    copied.shorthand = f"{field}:Q"
    return copied


class Margins(NamedTuple):
    """Room around the plot, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


def label_width(characters: int) -> float:
    """Return the room, in pixels, for a bold label of so many characters, set at 12 pixels in a wide font."""
    return 7.8 * characters


def styled(chart: Any, margins: Margins) -> Any:
    """Return the chart with the report's type and rules, no background, and fixed margins.

    The margins are fixed because the browser's font is wider than the one that the drawing was measured with.
    """
    axis = {"domain": False, "ticks": False, "gridColor": RULE, "gridWidth": 0.8, "labelColor": MUTED}
    labels = {"labelFontSize": 11, "labelPadding": 6, "labelFlush": False}
    titles = {"titleColor": MUTED, "titleFontSize": 11.5, "titleFontWeight": "normal", "titlePadding": 9}
    sized = chart.properties(autosize="none", padding=margins._asdict())
    plain = sized.configure(background="transparent", font=FONT, aria=False).configure_view(stroke=None)
    return plain.configure_axis(**axis, **labels, **titles)


def _weight(colour: str) -> str:
    return "bold" if colour == ACCENT else "normal"
