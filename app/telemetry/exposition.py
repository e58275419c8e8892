"""Prometheus' text format, version 0.0.4: what a scrape of ``/metrics`` is told.

https://prometheus.io/docs/instrumenting/exposition_formats/ (2026-11)
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from app.telemetry.layout import Labels, family_of

HELP = {
    "tallygate_requests_total": ("counter", "Requests to count, by model and status."),
    "tallygate_counts_total": ("counter", "Counts answered, by model and where each came from."),
    "tallygate_input_tokens_total": ("counter", "Tokens counted, by model and source."),
    "tallygate_errors_total": ("counter", "Requests refused, by Anthropic's error type."),
    "tallygate_upstream_calls_total": ("counter", "Requests sent to providers."),
    "tallygate_cache_total": ("counter", "Look-ups and writes of each tier, by what came of them."),
    "tallygate_lane_hits_total": ("counter", "Repeats answered before the framework wakes."),
    "tallygate_recounts_total": ("counter", "Remembered counts asked again to find drift."),
    "tallygate_records_total": ("counter", "Events handed on by a sink, or lost by it."),
    "tallygate_limited_total": ("counter", "Calls refused by our own limits, by which."),
    "tallygate_http_refusals_total": ("counter", "Refused before any handler, or beside all."),
    "tallygate_request_seconds": ("histogram", "Time to answer, in seconds."),
    "tallygate_deployment_calls_total": ("counter", "Questions sent to each deployment."),
    "tallygate_deployment_failures_total": ("counter", "Of these, failures: see the breaker."),
    "tallygate_deployment_limited_total": ("counter", "Of these, refused as too many (429)."),
    "tallygate_breaker_openings_total": ("counter", "How often a deployment's breaker opened."),
    "tallygate_retries_total": ("counter", "Questions asked a second time, of each deployment."),
}


class Gauge(NamedTuple):
    """What stands at some value just now, read when it is asked for."""

    name: str
    help: str
    samples: Sequence[tuple[Labels, float]]


def render(sums: Mapping[tuple[str, Labels], float], gauges: Iterable[Gauge]) -> bytes:
    """Write all series, family by family, with histogram buckets made cumulative."""
    lines: list[str] = []
    family = ""
    running = 0.0
    for (name, labels), value in sums.items():
        if family_of(name) != family:
            family = family_of(name)
            lines += _header(family)
        shown = value
        if name.endswith("_bucket"):
            running = value if labels[-1][1] == "0.0001" else running + value
            shown = running
            if labels[-1][1] == "+Inf":
                lines.append(_line("tallygate_request_seconds_count", labels[:1], shown))
        lines.append(_line(name, labels, shown))
    for gauge in gauges:
        lines += [f"# HELP {gauge.name} {gauge.help}", f"# TYPE {gauge.name} gauge"]
        lines += [_line(gauge.name, labels, value) for labels, value in gauge.samples]
    return ("\n".join(lines) + "\n").encode()


def _header(family: str) -> list[str]:
    kind, text = HELP[family]
    return [f"# HELP {family} {text}", f"# TYPE {family} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    if not labels:
        return f"{name} {_number(value)}"
    inner = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    return f"{name}{{{inner}}} {_number(value)}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
