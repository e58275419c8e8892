"""Line charts as SVG: panels beside each other, hosts to the right in powers of two."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from msgspec import Struct

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 250, 240, 62, 58, 62
_LEGEND = 18
_STYLE = (
    "text{font:12px sans-serif;fill:#555}.t{font-weight:bold}"
    ".g{stroke:#8884;stroke-width:1}.l{fill:none;stroke-width:2}.d{stroke-dasharray:6 4}"
)


class Line(Struct, frozen=True, kw_only=True):
    """One line; x and y of its points rise from left to right, and from below."""

    name: str
    colour: str
    is_dashed: bool
    points: list[tuple[float, float]]


class Panel(Struct, frozen=True):
    """One chart, with a title of its own."""

    title: str
    lines: list[Line]


def draw(title: str, panels: Sequence[Panel], *, is_log: bool) -> str:
    """All panels on one scale: from 0 to 100, or in powers of ten. No script, no outer file."""
    values = [y for panel in panels for line in panel.lines for _, y in line.points]
    low, high = _decades(values) if is_log else (0.0, 100.0)
    width = _LEFT + len(panels) * (_WIDTH + _GAP) - _GAP + 12
    lines = panels[0].lines
    height = _TOP + _HEIGHT + 40 + _LEGEND * math.ceil(len(lines) / 2)
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="t" x="{_LEFT}" y="18">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, _LEFT + number * (_WIDTH + _GAP), low, high, is_log=is_log)
    parts += _legend(lines, _TOP + _HEIGHT + 40)
    return "\n".join([*parts, "</svg>\n"])


def _decades(values: Sequence[float]) -> tuple[float, float]:
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _panel(panel: Panel, left: int, low: float, high: float, *, is_log: bool) -> Iterator[str]:
    xs = sorted({x for line in panel.lines for x, _ in line.points})
    doublings = math.log2(xs[-1] / xs[0]) or 1

    def at(x: float, y: float) -> tuple[float, float]:
        share = ((math.log10(y) if is_log else y) - low) / (high - low)
        return left + math.log2(x / xs[0]) / doublings * _WIDTH, _TOP + _HEIGHT * (1 - share)

    yield f'<text x="{left}" y="{_TOP - 14}">{escape(panel.title)}</text>'
    step = 1 if is_log else (high - low) / 5
    for tick in range(round((high - low) / step) + 1):
        value = 10 ** (low + tick) if is_log else low + tick * step
        _, y = at(xs[0], value)
        yield f'<line class="g" x1="{left}" y1="{y:.1f}" x2="{left + _WIDTH}" y2="{y:.1f}"/>'
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
    for x_value in xs:
        x, _ = at(x_value, 10**low if is_log else low)
        middle = f'x="{x:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle"'
        yield f"<text {middle}>{x_value:g}</text>"
    for line in panel.lines:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
        yield f'<polyline class="{_kind(line)}" stroke="{line.colour}" points="{path}"/>'


def _legend(lines: Sequence[Line], top: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        x, y = _LEFT + number % 2 * 180, top + number // 2 * _LEGEND
        yield (
            f'<line class="{_kind(line)}" stroke="{line.colour}" '
            f'x1="{x}" y1="{y}" x2="{x + 30}" y2="{y}"/>'
        )
        yield f'<text x="{x + 38}" y="{y + 4}">{escape(line.name)}</text>'


def _kind(line: Line) -> str:
    return "l d" if line.is_dashed else "l"


def _short(value: float) -> str:
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:g} {letter}"
    return f"{value:g}"
