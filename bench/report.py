"""The result of a run as figures: medians over rounds, ratios within rounds, warnings."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from bench.load import Run
from bench.named import ALL
from bench.scenarios import Scenario

FORMAT = 2
_PERCENTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)
_NEAR_CEILING = 0.8
_UNSTEADY = 0.3
_SLOW_MS = 1.0


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
    lane_share: float | None
    """Of all hits, those that the hit lane has answered; None where nobody can say."""
    latency_ms: dict[str, float]
    worker_mb: float | None = None
    """Resident memory of the largest worker at its end, in 10^6 bytes; None if nobody looked."""


class Summary(Struct, frozen=True):
    """One scenario over all rounds; single figures are medians of the rounds."""

    says: str
    engine: str
    requests_per_s: float | None
    """None for a scenario whose connections ask once."""
    server_cpu_us: float | None
    lane_share: float | None
    latency_ms: dict[str, float]
    ratios: dict[str, float]
    """Throughput divided by that of another scenario: the median of the rounds' own ratios."""
    cpu_ratios: dict[str, float]
    """Answers for the same processor time of the server, divided by the other's; likewise."""
    added_p50_ms: float | None
    """The median latency less that of the scenario it is compared with; likewise."""
    ceiling_requests_per_s: float | None
    """Of the own generator; None where it did not ask, or each connection asks once."""
    rounds: tuple[Slice, ...]
    p99_ratios: dict[str, float] = {}
    """The 99th percentile of the latency divided by the other's, as ``ratios``."""
    worker_mb: float | None = None
    """Resident memory of the largest worker after the last slice, in 10^6 bytes."""
    growth_mb_per_min: float | None = None
    """Of a long scenario's memory: a line through the second half of its slices."""


class Result(Struct, frozen=True):
    """A whole run, as it is written to a file."""

    format: int
    started_at: str
    commit: str
    machine: dict[str, Any]
    versions: dict[str, str]
    settings: dict[str, Any]
    servers: dict[str, ServerFacts]
    scenarios: dict[str, Summary]
    missing: dict[str, str]
    """Scenarios that were asked for and could not be measured, and why."""
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What was seen beside the figures."""


def _slice(run: Run) -> Slice:
    found = run.latency.percentiles_ns(_PERCENTS)
    return Slice(
        requests=len(run.latency),
        requests_per_s=round(run.rate, 1),
        client_cpu_share=round(run.client_cpu_s / run.seconds, 3),
        server_cpu_us=(
            None if run.server_cpu_s is None else round(run.server_cpu_s / run.answers * 1e6, 1)
        ),
        lane_share=None if run.lane_share is None else round(run.lane_share, 4),
        latency_ms={f"p{percent:g}": value / 1e6 for percent, value in found.items()},
        worker_mb=None if run.rss_bytes is None else round(max(run.rss_bytes) / 1e6, 1),
    )


def _median(figures: Iterable[float | None]) -> float | None:
    seen = [figure for figure in figures if figure is not None]
    return statistics.median(seen) if seen else None


def summarise(
    runs: dict[str, list[Run]],
    ceilings: dict[str, float],
    scenarios: Mapping[str, Scenario] = ALL,
) -> dict[str, Summary]:
    """Medians over rounds and ratios within rounds; ``ceilings`` are by scenario."""
    slices = {name: tuple(map(_slice, rounds)) for name, rounds in runs.items()}
    summaries = {}
    for name, rounds in slices.items():
        scenario = scenarios[name]
        others = {other: slices[other] for other in scenario.compared_with if other in slices}
        base = slices.get(scenario.added_to or "", ())
        rates = [one.requests_per_s for one in rounds]
        summaries[name] = Summary(
            says=scenario.says,
            engine=runs[name][0].engine,
            requests_per_s=None if scenario.at_once else statistics.median(rates),
            server_cpu_us=_median(one.server_cpu_us for one in rounds),
            lane_share=_median(one.lane_share for one in rounds),
            latency_ms={
                percent: statistics.median(one.latency_ms[percent] for one in rounds)
                for percent in rounds[0].latency_ms
            },
            ratios={
                other: statistics.median(
                    a.requests_per_s / b.requests_per_s for a, b in zip(rounds, them, strict=True)
                )
                for other, them in others.items()
            },
            cpu_ratios={
                other: ratio
                for other, them in others.items()
                if (ratio := _cpu_ratio(rounds, them)) is not None
            },
            added_p50_ms=_median(
                a.latency_ms["p50"] - b.latency_ms["p50"]
                for a, b in zip(rounds, base, strict=False)
            ),
            ceiling_requests_per_s=ceilings.get(name),
            rounds=rounds,
            p99_ratios={
                other: statistics.median(
                    a.latency_ms["p99"] / b.latency_ms["p99"]
                    for a, b in zip(rounds, them, strict=True)
                )
                for other, them in others.items()
            },
            worker_mb=rounds[-1].worker_mb,
            growth_mb_per_min=_growth(runs[name]) if scenario.is_soak else None,
        )
    return summaries


def _cpu_ratio(rounds: tuple[Slice, ...], others: tuple[Slice, ...]) -> float | None:
    return _median(
        b.server_cpu_us / a.server_cpu_us if a.server_cpu_us and b.server_cpu_us else None
        for a, b in zip(rounds, others, strict=True)
    )


def _growth(runs: list[Run]) -> float | None:
    half = runs[len(runs) // 2 :]
    sizes_mb = [max(run.rss_bytes) / 1e6 for run in half if run.rss_bytes]
    if len(sizes_mb) < 2:
        return None
    times_min = [run.ended_s / 60 for run in half]
    return statistics.linear_regression(times_min, sizes_mb).slope


def warnings(summaries: dict[str, Summary]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    floor = summaries.get("open-loop-raw")
    if floor is not None and (own_ms := floor.latency_ms["p99"]) > _SLOW_MS:
        found.append(
            f"open-loop: against a raw socket the load generator itself sees {own_ms:.1f} ms (p99)"
        )
    for name, summary in summaries.items():
        rate, ceiling = summary.requests_per_s, summary.ceiling_requests_per_s
        if rate is None:
            continue
        if ceiling is not None and rate > _NEAR_CEILING * ceiling:
            found.append(
                f"{name}: {rate:,.0f} requests/s is within 20 % of what the load generator can do"
                f" ({ceiling:,.0f}): the server may be faster"
            )
        rates = [slice_.requests_per_s for slice_ in summary.rounds]
        if max(rates) - min(rates) > _UNSTEADY * rate:
            found.append(f"{name}: its rounds differ by more than {_UNSTEADY:.0%}: a busy machine?")
    return found
