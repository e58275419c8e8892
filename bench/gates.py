"""Judges a result by bars, and compares two results by their ratios.

Both look at what carries over to another machine: ratios of figures taken in the same round.
"""

from pathlib import Path
from typing import Literal, get_args

import msgspec
from msgspec import Struct
from rich.table import Table

from bench.named import ALL
from bench.report import FORMAT, Result, Summary

Figure = Literal[
    "throughput",
    "cpu",
    "p99",
    "lane_share",
    "p99_ms",
    "added_p50_ms",
    "worker_mb",
    "growth_mb_per_min",
    "first_answer_s",
]
_STEADY = ("lane_share",)


class Bar(Struct, frozen=True, forbid_unknown_fields=True):
    """What a figure must reach; the first three kinds are ratios to another scenario."""

    scenario: str
    compared_with: str | None = None
    figure: Figure = "throughput"
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a bar is either at_least or at_most")
        if (self.compared_with is None) != (self.figure not in get_args(Figure)[:3]):
            raise ValueError("only throughput, cpu and p99 are compared with a scenario")

    def found(self, result: Result) -> float | None:
        """The figure, of a scenario or of the server it asks; None where it was not measured."""
        summary = result.scenarios.get(self.scenario)
        if summary is None:
            return None
        if self.figure == "first_answer_s":
            scenario = ALL.get(self.scenario)
            server = result.servers.get(scenario.server) if scenario else None
            return server.first_answer_s if server else None
        return self._of(summary)

    def _of(self, summary: Summary) -> float | None:
        match self.figure:
            case "throughput":
                return summary.ratios.get(self.compared_with or "")
            case "cpu":
                return summary.cpu_ratios.get(self.compared_with or "")
            case "lane_share":
                return summary.lane_share
            case "p99_ms":
                return summary.latency_ms["p99"]
            case "added_p50_ms":
                return summary.added_p50_ms
            case "p99":
                return summary.p99_ratios.get(self.compared_with or "")
            case "worker_mb":
                return summary.worker_mb
            case "growth_mb_per_min":
                return summary.growth_mb_per_min
        return None

    def holds(self, found: float, noise: float) -> bool:
        """Whether a figure passes; shares are given no room for noise."""
        room = 0 if self.figure in _STEADY else noise
        if self.at_least is not None:
            return found >= self.at_least * (1 - room)
        return self.at_most is not None and found <= self.at_most * (1 + room)

    def __str__(self) -> str:
        what = f"{self.scenario} / {self.compared_with}" if self.compared_with else self.scenario
        bound = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        return f"{what}, {self.figure.replace('_', ' ')} {bound}"


class Bars(Struct, frozen=True, forbid_unknown_fields=True):
    """The bars of a file; a figure may miss its bar by the share ``noise``."""

    noise: float
    bars: tuple[Bar, ...]
    must_measure: bool = False
    """What was not measured does not pass."""


class Verdict(Struct, frozen=True):
    """A bar, what was measured (None: nothing), and whether that passes."""

    bar: Bar
    found: float | None
    passes: bool


def judge(result: Result, bars: Bars) -> list[Verdict]:
    """Hold a result to its bars. What was not measured says so; it passes where it may."""
    verdicts = []
    for bar in bars.bars:
        found = bar.found(result)
        holds = not bars.must_measure if found is None else bar.holds(found, bars.noise)
        verdicts.append(Verdict(bar, found, holds))
    return verdicts


def verdict_lines(verdicts: list[Verdict], noise: float) -> list[str]:
    """For people: each bar, and how much room it was given."""
    lines = [f"bars (ratios and times may miss theirs by {noise:.0%}):"]
    for verdict in verdicts:
        if verdict.found is None:
            mark = "?   " if verdict.passes else "FAIL"
            lines.append(f"  {mark} {verdict.bar}: not measured")
        else:
            mark = "ok  " if verdict.passes else "FAIL"
            lines.append(f"  {mark} {verdict.bar}: {verdict.found:.3g}")
    return lines


def passes(verdicts: list[Verdict]) -> bool:
    """Whether all bars hold, and any was measured at all."""
    measured = [verdict for verdict in verdicts if verdict.found is not None]
    return bool(measured) and all(verdict.passes for verdict in measured)


def read_bars(file: Path) -> Bars:
    """Raises OSError and msgspec.ValidationError."""
    return msgspec.json.decode(file.read_bytes(), type=Bars)


def read_result(file: Path) -> Result:
    """Raises OSError, and msgspec.ValidationError for anything but a result of this format."""
    result = msgspec.json.decode(file.read_bytes(), type=Result)
    if result.format != FORMAT:
        raise msgspec.ValidationError(f"{file} has format {result.format}, not {FORMAT}")
    return result


class Change(Struct, frozen=True):
    """One ratio in two results; None where a result does not have it."""

    what: str
    before: float | None
    after: float | None

    @property
    def factor(self) -> float | None:
        """Below 1 the later one is worse."""
        return self.after / self.before if self.before and self.after is not None else None


def compare(before: Result, after: Result) -> list[Change]:
    """All ratios of both, worst first; what only one has comes last."""
    old, new = _ratios(before), _ratios(after)
    changes = [Change(what, old.get(what), new.get(what)) for what in {**old, **new}]
    return sorted(changes, key=lambda one: float("inf") if one.factor is None else one.factor)


def _ratios(result: Result) -> dict[str, float]:
    return {
        f"{name} / {other}{by}": ratio
        for name, summary in result.scenarios.items()
        for by, ratios in (("", summary.ratios), (", by CPU", summary.cpu_ratios))
        for other, ratio in ratios.items()
    }


def comparison(changes: list[Change], names: tuple[str, str]) -> Table:
    """The table of ``--compare``."""
    table = Table("ratio", *names, "change", title="worst first", title_justify="left")
    for one in changes:
        cells = (one.before, one.after, one.factor)
        table.add_row(one.what, *("" if cell is None else f"{cell:.2f}" for cell in cells))
    return table
