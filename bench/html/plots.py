"""The plots of a result: latencies, throughput, figures against their bars, and over time."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from bench.gates import Bar, Verdict
from bench.report import Result, Summary
from bench.svg import WIDTH, Axis, Plot, Point, bounds, number

LEFT, RIGHT = 44, WIDTH - 10
_ROW, _BELOW = 34, 18
_MOST = 20.0
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
"""Those that the axis names."""


def latencies(name: str, summary: Summary, ends_ms: Point) -> Element:
    """Percentiles of one scenario: the medians of the rounds, and from the best to the worst."""
    top, bottom = 10.0, 150.0
    plot = Plot(f"{name}: percentiles of its latency", bottom + _BELOW)
    y = Axis(*ends_ms, bottom, top)
    plot.grid_y(y, LEFT, RIGHT)
    percents = {key: float(key[1:]) for key in summary.latency_ms}
    rarest = max((*percents.values(), _PERCENTILES[-1]))
    x = Axis(2, _one_in(rarest), LEFT + 8, RIGHT - 12)
    for percent in _PERCENTILES:
        at = x.at(_one_in(percent))
        plot.text((at, bottom + 13), f"{percent:g}%", "middle", "tick")

    def points(milliseconds: dict[str, float]) -> list[Point]:
        return [(x.at(_one_in(percents[key])), y.at(milliseconds[key])) for key in percents]

    rounds = [one.latency_ms for one in summary.rounds]
    if rounds:
        best, worst = (
            {key: pick(one[key] for one in rounds) for key in percents} for pick in (min, max)
        )
        plot.area(points(best), points(worst))
    places = points(summary.latency_ms)
    plot.line(places)
    for place, (key, value) in zip(places, summary.latency_ms.items(), strict=True):
        plot.dot(place, f"{key}: {number(value)} ms")
    return plot.root


def _one_in(percent: float) -> float:
    """Of how many answers one is slower."""
    return 100 / (100 - percent)


def latency_ends_ms(result: Result) -> Point:
    """One axis for all scenarios, so that they can be compared."""
    found: list[float] = []
    for summary in result.scenarios.values():
        for latency_ms in (summary.latency_ms, *(one.latency_ms for one in summary.rounds)):
            found += latency_ms.values()
    return bounds(found)


def throughput(result: Result) -> Element:
    """Requests per second of each scenario: each round, and their median."""
    rows = [
        (name, summary.requests_per_s, [one.requests_per_s for one in summary.rounds])
        for name, summary in result.scenarios.items()
        if summary.requests_per_s is not None
    ]
    bottom = _ROW * len(rows) + 6.0
    plot = Plot("requests per second of each scenario", bottom + _BELOW)
    ends = bounds(rate for _, median, rates in rows for rate in (median, *rates))
    x = Axis(*ends, 6, RIGHT)
    plot.grid_x(x, 0, bottom)
    for row, (name, median, rates) in enumerate(rows):
        y = _ROW * row + 26.0
        plot.text((6, y - 11), f"{name}: {median:,.0f}")
        plot.rule(
            (x.at(min(rates, default=median)), y), (x.at(max(rates, default=median)), y), "line"
        )
        for rate in rates:
            plot.dot((x.at(rate), y), f"{name}: {rate:,.0f} requests/s in one round", "round", 2)
        plot.dot((x.at(median), y), f"{name}: {median:,.0f} requests/s")
    return plot.root


def against_bars(verdicts: Sequence[Verdict]) -> Element:
    """What was measured, each divided so that 1 is its bar and more is better."""
    reached = {one: _share(one.bar, one.found) for one in verdicts if one.found is not None}
    bottom = _ROW * len(reached) + 6.0
    plot = Plot("figures against their bars", bottom + _BELOW)
    low, high = bounds((0.6, 1.6, *reached.values()))
    x = Axis(low, high, 6, RIGHT)
    plot.grid_x(x, 0, bottom, " x")
    plot.rule((x.at(1), 0), (x.at(1), bottom), "bar")
    for row, (one, share) in enumerate(reached.items()):
        y = _ROW * row + 26.0
        holds = "met" if one.passes else "MISSED"
        says = f"{one.bar}: {number(one.found or 0)}"
        plot.text((6, y - 11), f"{says}, {holds}")
        plot.rule((x.at(1), y), (x.at(share), y), "line" if one.passes else "missed")
        plot.dot((x.at(share), y), f"{says}, {holds}", "point" if one.passes else "missed")
    return plot.root


def _share(bar: Bar, found: float) -> float:
    """How much of its bar a figure reaches, within what is worth a plot."""
    if bar.at_least is not None:
        share = found / bar.at_least if bar.at_least > 0 else _MOST
    else:
        share = (bar.at_most or 0) / found if found > 0 else _MOST
    return min(max(share, 1 / _MOST), _MOST)


def over_time(bar: Bar, results: Sequence[Result]) -> Element | None:
    """One figure in all results, the oldest first; None where it was measured less than twice."""
    found = [(one, bar.found(one)) for one in results]
    measured = [(one, value) for one, value in found if value is not None]
    if len(measured) < 2:
        return None
    top, bottom = 10.0, 120.0
    wanted = bar.at_least if bar.at_least is not None else bar.at_most or 0
    plot = Plot(f"{bar}, over time", bottom + _BELOW)
    y = Axis(*bounds((wanted, *(value for _, value in measured))), bottom, top)
    x = Axis(0, len(measured) - 1, LEFT + 8, RIGHT - 8, is_log=False)
    plot.grid_y(y, LEFT, RIGHT)
    plot.rule((LEFT, y.at(wanted)), (RIGHT, y.at(wanted)), "bar")
    places = [(x.at(turn), y.at(value)) for turn, (_, value) in enumerate(measured)]
    plot.line(places)
    for place, (one, value) in zip(places, measured, strict=True):
        plot.dot(place, f"{one.started_at}, {one.commit}: {number(value)}")
    for (one, _), at, anchor in ((measured[0], LEFT, "start"), (measured[-1], RIGHT, "end")):
        plot.text((at, bottom + 13), f"{one.started_at[:10]} {one.commit[:7]}", anchor, "tick")
    return plot.root
