"""The sums of /metrics as OTLP's metrics: the same names, the same labels, cumulative."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from app.telemetry.exposition import HELP
from app.telemetry.layout import BUCKETS_S, Layout, family_of
from app.telemetry.otlp.values import SCOPE, attributes

CUMULATIVE = 2
"""Of aggregation temporalities."""


def metrics_of(
    resource: dict[str, Any], layout: Layout, sums: Sequence[float], started_ns: int, now_ns: int
) -> dict[str, Any]:
    """Write an ExportMetricsServiceRequest of ``sums``, a sum for each slot of the layout.

    Counters that have counted nothing are left out: from ``started_ns`` on they are zero.
    """
    times = {"startTimeUnixNano": str(started_ns), "timeUnixNano": str(now_ns)}
    metrics = []
    for family, slots in groupby(layout.slots.items(), lambda one: family_of(one[0][0])):
        kind, text = HELP[family]
        named = {"name": family, "description": text}
        series = [(dict(labels), name, sums[slot]) for (name, labels), slot in slots]
        if kind == "histogram":
            points = list(_histograms(series, times))
            told: dict[str, Any] = {"unit": "s", "histogram": _cumulative(points)}
        else:
            points = list(_numbers(series, times, is_gauge=kind == "gauge"))
            told = {"gauge": {"dataPoints": points}}
            if kind == "counter":
                told = {"sum": {**_cumulative(points), "isMonotonic": True}}
        if points:
            metrics.append({**named, **told})
    scoped = {"scope": SCOPE, "metrics": metrics}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [scoped]}]}


def _cumulative(points: list[dict[str, Any]]) -> dict[str, Any]:
    return {"aggregationTemporality": CUMULATIVE, "dataPoints": points}


Series = tuple[dict[str, str], str, float]


def _numbers(
    series: list[Series], times: dict[str, str], *, is_gauge: bool
) -> Iterator[dict[str, Any]]:
    for labels, _name, value in series:
        if value or is_gauge:
            whole = value == int(value)
            number = {"asInt": str(int(value))} if whole else {"asDouble": value}
            yield {"attributes": attributes(labels), **times, **number}


def _histograms(series: list[Series], times: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Gather the buckets and the sum of each outcome."""
    buckets: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    labelled: dict[str, dict[str, str]] = {}
    for labels, name, value in series:
        rest = {label: text for label, text in labels.items() if label != "le"}
        key = repr(rest)
        labelled[key] = rest
        if name.endswith("_bucket"):
            buckets.setdefault(key, []).append(int(value))
        else:
            seconds[key] = value
    for key, counts in buckets.items():
        if any(counts):
            yield {
                "attributes": attributes(labelled[key]),
                **times,
                "count": str(sum(counts)),
                "sum": seconds[key],
                "bucketCounts": [str(count) for count in counts],
                "explicitBounds": list(BUCKETS_S),
            }
