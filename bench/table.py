"""The table for people."""

from rich.console import Console
from rich.table import Table

from bench.named import ALL
from bench.report import Result, Summary

_WIDTH = 150
FIGURES = (
    "by",
    "requests/s",
    "lowest to highest",
    "server CPU us",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "lane",
    "x other (same round)",
    "by CPU",
)


def show(result: Result) -> None:
    """Print the table, what the servers cost, and what to beware of."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(_table(result))
    for line in (*footnotes(result), *(f"WARNING {warning}" for warning in result.warnings)):
        console.print(line, markup=False, soft_wrap=True)


def _table(result: Result) -> Table:
    rows = Table(title=f"tallygate bench, commit {result.commit}", title_justify="left")
    rows.add_column("scenario", no_wrap=True)
    for heading in FIGURES:
        rows.add_column(heading, justify="right", no_wrap=True)
    for name, summary in result.scenarios.items():
        rows.add_row(name, *cells(summary))
    for name, why in result.missing.items():
        rows.add_row(name, *("",) * (len(FIGURES) - 2), f"not measured: {why}")
    return rows


def cells(summary: Summary) -> tuple[str, ...]:
    """One row: the FIGURES of a scenario."""
    rates = [slice_.requests_per_s for slice_ in summary.rounds]
    timed = summary.requests_per_s is not None
    lane, added_ms = summary.lane_share, summary.added_p50_ms
    return (
        summary.engine,
        f"{summary.requests_per_s:,.0f}" if timed else "",
        f"{min(rates):,.0f} to {max(rates):,.0f}" if timed else "",
        "" if summary.server_cpu_us is None else f"{summary.server_cpu_us:,.1f}",
        *(f"{summary.latency_ms[one]:.2f}" for one in ("p50", "p99", "p99.9")),
        "" if lane is None else f"{lane:.1%}",
        "\n".join(f"{ratio:.2f} x {other}" for other, ratio in summary.ratios.items())
        + ("" if added_ms is None else f"p50 {added_ms:+.2f} ms"),
        "\n".join(
            f"{summary.cpu_ratios[other]:.2f}" if other in summary.cpu_ratios else ""
            for other in summary.ratios
        ),
    )


def footnotes(result: Result) -> list[str]:
    """What the servers cost, and what the own generator can do."""
    lines = []
    for name, facts in result.servers.items():
        line = f"{name}: first answer {facts.first_answer_s:.2f} s after its start"
        if facts.worker_rss_bytes:
            sizes = ", ".join(f"{size / 2**20:.0f} MiB" for size in facts.worker_rss_bytes)
            line += f"; resident memory per worker after the run {sizes}"
        lines.append(line)
    for name, summary in result.scenarios.items():
        if (growth := summary.growth_mb_per_min) is not None:
            p99s = ", ".join(f"{part.latency_ms['p99']:.2f}" for part in summary.rounds)
            sizes = ", ".join(f"{part.worker_mb}" for part in summary.rounds)
            lines.append(
                f"{name}: memory of a worker {growth:+.2f} MB a minute at the end ({sizes});"
                f" p99 of each part {p99s} ms"
            )
        elif (scenario := ALL.get(name)) is not None and scenario.is_long:
            asked = sum(part.requests for part in summary.rounds)
            lines.append(f"{name}: {asked:,} requests, then {summary.worker_mb} MB in a worker")
    ceilings = {
        name: f"{summary.ceiling_requests_per_s:,.0f}"
        for name, summary in result.scenarios.items()
        if summary.ceiling_requests_per_s
    }
    if ceilings:
        each = ", ".join(f"{name} {ceiling}" for name, ceiling in ceilings.items())
        lines.append(f"own generator's ceiling, requests/s: {each}")
    lines += result.notes
    return lines
