"""Turns figures into SVG that takes its colours from the page, light or dark.

Styles become attributes and classes, because the page's security policy refuses inline styles.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# matplotlib draws with these stand-ins; the SVG has a class for each, to which the page gives a colour.
INK, MUTED, GRID, ACCENT, SECOND, PAPER = (f"#{n:02x}{n:02x}{n:02x}" for n in range(1, 7))
NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", ACCENT: "accent", SECOND: "second", PAPER: "paper"}
# Style properties that are kept, as attributes. All others are dropped.
KEPT = {
    "font-size", "fill-opacity", "stroke-opacity", "opacity", "stroke-width", "stroke-dasharray", "stroke-dashoffset",
    "stroke-linecap", "stroke-linejoin", "text-anchor", "fill", "stroke", "clip-path",
}  # fmt: skip


def themed(figure: Figure, prefix: str, title: str) -> str:
    """Turn a figure into SVG with classes instead of colours, and attributes instead of styles.

    Args:
        figure: the figure.
        prefix: put before the SVG's ids, so that they are unique in the page.
        title: what a screen reader says.

    Returns:
        The SVG element.
    """
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(out.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _plain(element, prefix)
    for name in ("width", "height"):  # the page sets them
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", title)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _plain(element: ElementTree.Element, prefix: str) -> None:
    """Move the style of an element to attributes and classes, put the prefix before its ids, shorten its numbers."""
    style = element.attrib.pop("style", "")
    for declaration in filter(None, map(str.strip, style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name in KEPT:
            element.set(name, value)
    classes = [
        f"{what}-{NAMES[colour]}" for what in ("fill", "stroke") if (colour := element.get(what, "")) in NAMES
    ]
    for name in [name.partition("-")[0] for name in classes]:
        del element.attrib[name]
    if classes:
        element.set("class", " ".join(classes))
    if "id" in element.attrib:
        element.set("id", f"{prefix}-{element.get('id')}")
    for name, value in element.attrib.items():
        if name.endswith("href") and value.startswith("#"):
            element.set(name, f"#{prefix}-{value[1:]}")
        elif "url(#" in value:
            element.set(name, value.replace("url(#", f"url(#{prefix}-"))
        elif name in ("d", "x", "y", "transform", "points"):
            element.set(name, re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", value))
