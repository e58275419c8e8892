"""The result of a run: the table for people and the JSON for machines."""

import os
import platform
import statistics
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.load import Run
from bench.scenarios import SCENARIOS

ROOT = Path(__file__).parent.parent
FORMAT = 1
_PERCENTS = (50.0, 90.0, 99.0, 99.9, 99.99)
_PACKAGES = ("sanic", "uvloop", "msgspec", "orjson", "httpx", "pyreqwest", "aiocache")
_NEAR_CEILING = 0.8
_UNSTEADY = 0.3
_WIDTH = 120
_FIGURES = (
    "requests/s",
    "lowest to highest",
    "server CPU us",
    "p50 ms",
    "p99 ms",
    "x other (same round)",
)
_LISTEN = "0A"
"""State of a listening socket in /proc/net/tcp."""


class ServerFacts(Struct, frozen=True):
    """What starting and holding a server costs; None where the system does not say."""

    first_answer_s: float
    worker_rss_bytes: tuple[int, ...] | None


class Slice(Struct, frozen=True):
    """One scenario in one round."""

    requests: int
    requests_per_s: float
    client_cpu_share: float
    server_cpu_us: float | None
    """Processor time of the server's workers for each answer; None where nobody can see it."""
    latency_ms: dict[str, float]


class Summary(Struct, frozen=True):
    """One scenario over all rounds; single figures are medians of the rounds."""

    says: str
    requests_per_s: float | None
    """None for a scenario whose connections ask once."""
    server_cpu_us: float | None
    latency_ms: dict[str, float]
    ratios: dict[str, float]
    """Throughput divided by that of another scenario: the median of the rounds' own ratios."""
    ceiling_requests_per_s: float | None
    rounds: tuple[Slice, ...]


class Result(Struct, frozen=True):
    """A whole run: what ``--json`` writes."""

    format: int
    started_at: str
    commit: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    servers: dict[str, ServerFacts]
    scenarios: dict[str, Summary]
    warnings: tuple[str, ...]


def _slice(run: Run) -> Slice:
    found = run.latency.percentiles_ns(_PERCENTS)
    return Slice(
        requests=len(run.latency),
        requests_per_s=round(run.rate, 1),
        client_cpu_share=round(run.client_cpu_s / run.seconds, 3),
        server_cpu_us=(
            None if run.server_cpu_s is None else round(run.server_cpu_s / run.answers * 1e6, 1)
        ),
        latency_ms={f"p{percent:g}": value / 1e6 for percent, value in found.items()},
    )


def _median(figures: list[float | None]) -> float | None:
    seen = [figure for figure in figures if figure is not None]
    return statistics.median(seen) if seen else None


def summarise(runs: dict[str, list[Run]], ceilings: dict[int, float]) -> dict[str, Summary]:
    """Medians over rounds and ratios within rounds; ``ceilings`` are by size of body."""
    summaries = {}
    for name, rounds in runs.items():
        scenario, slices = SCENARIOS[name], tuple(_slice(run) for run in rounds)
        summaries[name] = Summary(
            says=scenario.says,
            requests_per_s=(
                None
                if scenario.at_once
                else statistics.median(slice_.requests_per_s for slice_ in slices)
            ),
            server_cpu_us=_median([slice_.server_cpu_us for slice_ in slices]),
            latency_ms={
                percent: statistics.median(slice_.latency_ms[percent] for slice_ in slices)
                for percent in slices[0].latency_ms
            },
            ratios={
                other: statistics.median(
                    a.rate / b.rate for a, b in zip(rounds, runs[other], strict=True)
                )
                for other in scenario.compared_with
                if other in runs
            },
            ceiling_requests_per_s=None if scenario.at_once else ceilings[scenario.body_bytes],
            rounds=slices,
        )
    return summaries


def warnings(summaries: dict[str, Summary]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    for name, summary in summaries.items():
        rate, ceiling = summary.requests_per_s, summary.ceiling_requests_per_s
        if rate is None or ceiling is None:
            continue
        if rate > _NEAR_CEILING * ceiling:
            found.append(
                f"{name}: {rate:,.0f} requests/s is within 20 % of what the load generator can do"
                f" ({ceiling:,.0f}): the server may be faster"
            )
        rates = [slice_.requests_per_s for slice_ in summary.rounds]
        if max(rates) - min(rates) > _UNSTEADY * rate:
            found.append(f"{name}: its rounds differ by more than {_UNSTEADY:.0%}: a busy machine?")
    return found


def show(result: Result) -> None:
    """Print the table, what the servers cost, and what to beware of."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(_table(result))
    for line in (*_footnotes(result), *(f"WARNING {warning}" for warning in result.warnings)):
        console.print(line, markup=False, soft_wrap=True)


def _table(result: Result) -> Table:
    rows = Table(title=f"tallygate bench, commit {result.commit}", title_justify="left")
    rows.add_column("scenario", no_wrap=True)
    for heading in _FIGURES:
        rows.add_column(heading, justify="right", no_wrap=True)
    for name, summary in result.scenarios.items():
        rates = [slice_.requests_per_s for slice_ in summary.rounds]
        timed = summary.requests_per_s is not None
        rows.add_row(
            name,
            f"{summary.requests_per_s:,.0f}" if timed else "",
            f"{min(rates):,.0f} to {max(rates):,.0f}" if timed else "",
            "" if summary.server_cpu_us is None else f"{summary.server_cpu_us:,.0f}",
            f"{summary.latency_ms['p50']:.2f}",
            f"{summary.latency_ms['p99']:.2f}",
            "\n".join(f"{ratio:.2f} x {other}" for other, ratio in summary.ratios.items()),
        )
    return rows


def _footnotes(result: Result) -> list[str]:
    lines = []
    for name, facts in result.servers.items():
        line = f"{name}: first answer {facts.first_answer_s:.2f} s after its start"
        if facts.worker_rss_bytes:
            sizes = ", ".join(f"{size / 2**20:.0f} MiB" for size in facts.worker_rss_bytes)
            line += f"; resident memory per worker after the run {sizes}"
        lines.append(line)
    ceilings = {
        f"{SCENARIOS[name].body_bytes} B: {summary.ceiling_requests_per_s:,.0f} requests/s"
        for name, summary in result.scenarios.items()
        if summary.ceiling_requests_per_s
    }
    if ceilings:
        lines.append("load generator's own ceiling, " + "; ".join(sorted(ceilings)))
    return lines


def workers(main_pid: int, port: int) -> tuple[str, ...] | None:
    """Process ids of the children that hold the listening socket; None without /proc."""
    try:
        listening = {
            fields[9]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if (fields := line.split())[1].endswith(f":{port:04X}") and fields[3] == _LISTEN
        }
        children = Path(f"/proc/{main_pid}/task/{main_pid}/children").read_text().split()
        return tuple(pid for pid in children if _socket_inodes(pid) & listening)
    except OSError:
        return None


def _socket_inodes(pid: str) -> set[str]:
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def rss_bytes(pid: str) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def cpu_s(pid: str) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Python's and those of the packages that decide speed, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, with ``+`` when files differ from it; ``unknown`` without git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ("git", "-C", str(ROOT), *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
