"""``python -m bench simulate``: draws docs/scale-*.svg from the model of a fleet, and tells it.

The figures stand in docs/scale.md. The same arguments give the same bytes.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from bench import machine, validation
from bench.fleet import Fleet, Flow, flow
from bench.fleet_charts import Line, Panel, draw

HOSTS = (1, 2, 4, 8, 16, 32, 64)
MOST_RATE = 1_000_000
RATE_OF_HOST = MOST_RATE / HOSTS[-1]
QUIET_RATE_OF_HOST = 100
CATALOGUES = (10_000, 1_000_000, 100_000_000)
HOUR_S, DAY_S = 3_600.0, 86_400.0
HITS, CALLS = "scale-hits.svg", "scale-calls.svg"
_COLOURS = {0.8: "#0072b2", 1.0: "#d55e00", 1.2: "#009e73"}
"""By exponent; told apart without seeing all colours."""
_HEADINGS = (
    "questions",
    "s",
    "hits, no Redis",
    "hits, Redis",
    "own memory",
    "calls/min, no Redis",
    "calls/min, Redis",
    "Redis ops/s",
    "fresh counts",
    "cores of a host",
)


class Case(NamedTuple):
    """One line of a chart; each host is asked as much, whatever their number."""

    catalogue: int
    s: float
    is_shared: bool
    ttl_s: float = HOUR_S
    rate_of_host: float = RATE_OF_HOST

    def flow(self, hosts: int) -> Flow:
        """Of so many hosts."""
        return flow(
            Fleet(
                hosts=hosts,
                rate=self.rate_of_host * hosts,
                catalogue=self.catalogue,
                s=self.s,
                ttl_s=self.ttl_s,
                is_shared=self.is_shared,
            )
        )


def drawings() -> dict[str, str]:
    """The SVG files by name: hit rate and calls to providers by number of hosts."""
    cases = itertools.starmap(Case, itertools.product(CATALOGUES, _COLOURS, (True, False)))
    found = {case: [case.flow(hosts) for hosts in HOSTS] for case in cases}

    def panels(figure: Callable[[Flow], float]) -> list[Panel]:
        return [
            Panel(
                f"{catalogue:,} questions",
                [
                    _line(case, [figure(one) for one in flows])
                    for case, flows in found.items()
                    if case.catalogue == catalogue
                ],
            )
            for catalogue in CATALOGUES
        ]

    said = f"{RATE_OF_HOST:,.0f} questions/s for each host, counts fresh for an hour"
    hits = panels(lambda one: one.hit_share * 100)
    calls = panels(lambda one: one.upstream_per_s * 60)
    return {
        HITS: draw(f"Hits in % by number of hosts; {said}", hits, is_log=False),
        CALLS: draw(f"Calls to providers a minute by number of hosts; {said}", calls, is_log=True),
    }


def _line(case: Case, values: list[float]) -> Line:
    return Line(
        name=f"s = {case.s:g}, {'Redis' if case.is_shared else 'no Redis'}",
        colour=_COLOURS[case.s],
        is_dashed=not case.is_shared,
        points=list(zip(HOSTS, values, strict=True)),
    )


def table(ttl_s: float, rate_of_host: float) -> Table:
    """All catalogues and exponents for the most hosts."""
    title = f"{HOSTS[-1]} hosts, {rate_of_host * HOSTS[-1]:,.0f}/s, fresh for {ttl_s / HOUR_S:g} h"
    rows = Table(*_HEADINGS, title=title)
    for catalogue, s in itertools.product(CATALOGUES, _COLOURS):
        alone, shared = (
            Case(catalogue, s, is_shared, ttl_s, rate_of_host).flow(HOSTS[-1])
            for is_shared in (False, True)
        )
        rows.add_row(
            f"{catalogue:,}",
            f"{s:g}",
            f"{alone.hit_share:.2%}",
            f"{shared.hit_share:.2%}",
            f"{shared.local_share:.1%}",
            f"{alone.upstream_per_s * 60:,.0f}",
            f"{shared.upstream_per_s * 60:,.0f}",
            f"{shared.redis_per_s:,.0f}",
            f"{shared.fresh:,.0f}",
            f"{shared.cores_of_host:.1f}",
        )
    return rows


def main(arguments: list[str]) -> None:
    """Draw, and print the tables; or hold the model to a real run."""
    parser = argparse.ArgumentParser(prog="python -m bench simulate", description=__doc__)
    parser.add_argument("--folder", type=Path, default=machine.ROOT / "docs")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="instead: two real servers, with and without Redis, beside the model",
    )
    options = parser.parse_args(arguments)
    if options.validate:
        validation.main()
        return
    for name, drawn in drawings().items():
        (options.folder / name).write_text(drawn)
        print(f"written to {options.folder / name}")
    console = Console(width=140)
    for ttl_s, rate_of_host in (
        (HOUR_S, RATE_OF_HOST),
        (DAY_S, RATE_OF_HOST),
        (HOUR_S, QUIET_RATE_OF_HOST),
    ):
        console.print(table(ttl_s, rate_of_host))
