"""The charts of docs/scale.md: panels beside each other, hosts to the right in powers of two."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import indent, tostring

from msgspec import Struct

from bench.svg import Axis, Plot, add, number

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 250, 240, 62, 58, 62
_LEGEND = 18
_STYLE = (
    "text{font:12px sans-serif;fill:#555}.title{font-weight:bold}"
    ".grid{stroke:#8884}.line{fill:none;stroke-width:2}.dashed{stroke-dasharray:6 4}"
)


class Line(Struct, frozen=True, kw_only=True):
    """One line; x and y of its points rise from left to right, and from below."""

    name: str
    colour: str
    is_dashed: bool
    points: list[tuple[float, float]]

    @property
    def kind(self) -> str:
        """Its class in the drawing."""
        return "line dashed" if self.is_dashed else "line"


class Panel(Struct, frozen=True):
    """One chart, with a title of its own."""

    title: str
    lines: list[Line]


def draw(title: str, panels: Sequence[Panel], *, is_log: bool) -> str:
    """All panels on one scale: from 0 to 100, or in powers of ten. No script, no outer file."""
    bottom, lines = _TOP + _HEIGHT, panels[0].lines
    width = _LEFT + len(panels) * (_WIDTH + _GAP) - _GAP + 12
    height = bottom + 40 + _LEGEND * math.ceil(len(lines) / 2)
    plot = Plot(title, height, width)
    # Shown by itself it needs both: whose language it is, and how large it would like to be.
    size = {"width": f"{width}", "height": f"{height}"}
    plot.root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", **size}
    add(plot.root, "style", _STYLE)
    plot.text((_LEFT, 18), title, kind="title")
    values = [y for panel in panels for line in panel.lines for _, y in line.points]
    ticks = _decades(values) if is_log else [20.0 * step for step in range(6)]
    y = Axis(ticks[0], ticks[-1], bottom, _TOP, is_log)
    for place, panel in enumerate(panels):
        _panel(plot, panel, _LEFT + place * (_WIDTH + _GAP), y, ticks)
    _legend(plot, lines, bottom + 40)
    indent(plot.root)
    return tostring(plot.root, encoding="unicode") + "\n"


def _decades(values: Sequence[float]) -> list[float]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(low, high + 1)]


def _panel(plot: Plot, panel: Panel, left: float, y: Axis, ticks: Sequence[float]) -> None:
    hosts = sorted({x for line in panel.lines for x, _ in line.points})
    x = Axis(hosts[0], hosts[-1], left, left + _WIDTH)
    plot.text((left, _TOP - 14), panel.title)
    for tick in ticks:
        plot.rule((left, y.at(tick)), (left + _WIDTH, y.at(tick)))
        plot.text((left - 6, y.at(tick) + 4), _short(tick), "end")
    for one in hosts:
        plot.text((x.at(one), y.start + 18), number(one), "middle")
    for line in panel.lines:
        path = " ".join(f"{x.at(one)},{y.at(value)}" for one, value in line.points)
        add(plot.root, "polyline", points=path, stroke=line.colour, kind=line.kind)


def _legend(plot: Plot, lines: Sequence[Line], top: float) -> None:
    for place, line in enumerate(lines):
        x, y = _LEFT + place % 2 * 180, top + place // 2 * _LEGEND
        add(plot.root, "line", x1=x, y1=y, x2=x + 30, y2=y, stroke=line.colour, kind=line.kind)
        plot.text((x + 38, y + 4), line.name)


def _short(value: float) -> str:
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:g} {letter}"
    return f"{value:g}"
