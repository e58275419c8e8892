"""Plots as SVG elements: an axis, dots, lines, text. Whoever shows them gives colours and sizes."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement

from msgspec import Struct

WIDTH = 360
"""Of a plot on a page, in units that are as wide as a pixel on a phone."""
_STEPS = ((6, (1, 1.5, 2, 3, 4, 5, 7)), (300, (1, 2, 5)), (math.inf, (1,)))
"""Between powers of ten, by how many times the highest value is the lowest."""

Point = tuple[float, float]


def add(parent: Element, tag: str, text: object = "", **attributes: object) -> Element:
    """Append an element; whatever it holds is escaped when it is written.

    ``kind`` is the attribute ``class``; an underscore in a name stands for a hyphen.
    """
    named = {
        "class" if name == "kind" else name.replace("_", "-"): str(value)
        for name, value in attributes.items()
    }
    element = SubElement(parent, tag, named)
    element.text = str(text)
    return element


class Axis(Struct, frozen=True):
    """Where values stand: ``low`` at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = True

    def at(self, value: float) -> float:
        """The place of a value; what is beyond an end stands there."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values on a logarithmic axis."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = next(steps for below, steps in _STEPS if self.high / self.low < below)
        found = (step * 10.0**decade for decade in decades for step in steps)
        return [tick for tick in found if self.low <= tick <= self.high]


def bounds(values: Iterable[float]) -> Point:
    """The ends of a logarithmic axis with room for all values, as far as it can show them."""
    shown = [value for value in values if value > 0] or [1.0]
    return min(shown) / 1.25, max(shown) * 1.25


def number(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"


class Plot:
    """One drawing; ``says`` tells those who do not see it what it is."""

    def __init__(self, says: str, height: float, width: float = WIDTH) -> None:
        box = f"0 0 {width:g} {height:g}"
        self.root = Element("svg", {"viewBox": box, "role": "img", "aria-label": says})

    def text(self, at: Point, text: object, anchor: str = "start", kind: str = "") -> None:
        """Write something from, around or up to a place."""
        x, y = at
        add(self.root, "text", text, x=x, y=y, text_anchor=anchor, kind=kind)

    def rule(self, a: Point, b: Point, kind: str = "grid") -> None:
        """Draw a straight line."""
        add(self.root, "line", x1=a[0], y1=a[1], x2=b[0], y2=b[1], kind=kind)

    def grid_x(self, axis: Axis, top: float, bottom: float, unit: str = "") -> None:
        """Draw a horizontal axis below, with a line for each round value."""
        for tick in axis.ticks():
            self.rule((axis.at(tick), top), (axis.at(tick), bottom))
            self.text((axis.at(tick), bottom + 13), number(tick) + unit, "middle", "tick")

    def grid_y(self, axis: Axis, left: float, right: float) -> None:
        """Draw a vertical axis at the left."""
        for tick in axis.ticks():
            self.rule((left, axis.at(tick)), (right, axis.at(tick)))
            self.text((left - 4, axis.at(tick) + 4), number(tick), "end", "tick")

    def dot(self, at: Point, says: str, kind: str = "point", radius: float = 3) -> None:
        """Mark a value, which is told to who points at it."""
        dot = add(self.root, "circle", cx=at[0], cy=at[1], r=radius, kind=kind)
        add(dot, "title", says)

    def line(self, points: Sequence[Point]) -> None:
        """Join points."""
        for a, b in pairwise(points):
            self.rule(a, b, "line")

    def area(self, lower: Sequence[Point], upper: Sequence[Point]) -> None:
        """Fill what is between two lines."""
        around = " ".join(f"{x:g},{y:g}" for x, y in (*lower, *reversed(upper)))
        add(self.root, "polygon", points=around, kind="spread")
