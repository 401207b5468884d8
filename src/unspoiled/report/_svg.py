"""Turn a Vega-Lite chart into a figure for the page: static, offline, named for screen readers, without
styles."""

from typing import Any
from xml.etree import ElementTree

_NAMESPACE = "http://www.w3.org/2000/svg"
_NOISE = ("aria-label", "aria-roledescription", "aria-hidden", "role", "class", "pointer-events", "style")


def draw(chart: Any, *, title: str, description: str, figure_id: str) -> str:
    """Return an altair chart as inline SVG with `role="img"`, a title and a description.

    The drawing happens in this process without network. Vega's own labels are removed: the figure is one
    image with one description, and its data stands in a table nearby.

    Args:
        chart: the altair chart, with its data inside.
        title: the name of the figure, for screen readers.
        description: what it shows, in words.
        figure_id: a prefix that makes the ids unique on the page; letters, digits and hyphens.
    """
    import vl_convert

    ElementTree.register_namespace("", _NAMESPACE)
    drawn = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    root = ElementTree.fromstring(drawn)
    for element in root.iter():
        for name in _NOISE:
            element.attrib.pop(name, None)
    _drop_undrawn(root)
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{figure_id}-title")
    root.set("aria-describedby", f"{figure_id}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{_NAMESPACE}}}{tag}", {"id": f"{figure_id}-{tag}"})
        element.text = text
        root.insert(position, element)
    return ElementTree.tostring(root, encoding="unicode")


def _drop_undrawn(element: ElementTree.Element) -> None:
    """Remove elements that draw nothing; they are a third of Vega's output."""
    for child in list(element):
        _drop_undrawn(child)
        empty_path = child.tag == f"{{{_NAMESPACE}}}path" and child.get("d", "") in ("", "M0,0h0v0h0Z")
        empty_group = child.tag == f"{{{_NAMESPACE}}}g" and len(child) == 0
        if child.get("display") == "none" or empty_path or empty_group:
            element.remove(child)
