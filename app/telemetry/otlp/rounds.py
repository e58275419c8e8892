"""Where a collector's batches go, and what comes of its answers.

    POST endpoint/v1/traces, /v1/logs and /v1/metrics

An answer may say that a part was not taken (``partialSuccess``): that part is not sent again.
https://opentelemetry.io/docs/specs/otlp/#otlphttp (1.9, 2026-11)
"""

import gzip
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from app.config_sections import Otlp
from app.telemetry.courier import Lost, Round
from app.telemetry.event import CountEvent
from app.telemetry.otlp.logs import logs_of
from app.telemetry.otlp.spans import has_spans, spans_of
from app.telemetry.otlp.values import resource
from app.telemetry.post import Parcel

WORTH_ANOTHER = frozenset({429, 502, 503, 504})
FAST = 1
"""Of gzip's levels: what JSON repeats is found at once."""

Write = Callable[[dict[str, Any], Iterable[CountEvent]], dict[str, Any]]


def traces(settings: Otlp, pseudonym_key: bytes | None) -> Round:
    """Say where spans go, and what they look like."""
    write = partial(spans_of, pseudonym_key=pseudonym_key)
    return _round("otlp", settings, "traces", write, wants=has_spans)


def logs(settings: Otlp, pseudonym_key: bytes | None) -> Round:
    """Say where log records go, and what they look like."""
    write = partial(logs_of, pseudonym_key=pseudonym_key, has_spans=settings.has_spans)
    return _round("otlp_logs", settings, "logs", write)


def _round(
    name: str,
    settings: Otlp,
    signal: str,
    write: Write,
    wants: Callable[[CountEvent], bool] | None = None,
) -> Round:
    source = resource(settings.service_name)

    def pack(events: Iterable[CountEvent], lost: Lost) -> Parcel:
        del lost  # /metrics tells
        return parcel(settings, write(source, events))

    return Round(
        name=name,
        url=address(settings, signal),
        batch_events=settings.batch_events,
        flush_s=settings.flush_s,
        timeout_s=settings.timeout_s,
        tells_losses=False,
        worth_another=WORTH_ANOTHER,
        pack=pack,
        wants=wants,
        rejected=rejected,
    )


def address(settings: Otlp, signal: str) -> str:
    """Say where a signal goes; empty without an endpoint."""
    if settings.endpoint is None:
        return ""
    return f"{settings.endpoint.reveal().rstrip('/')}/v1/{signal}"


def parcel(settings: Otlp, message: dict[str, Any]) -> Parcel:
    """Write a message as it is sent."""
    sent = {name.lower(): value.reveal() for name, value in settings.headers.items()}
    sent["content-type"] = "application/json"
    body = orjson.dumps(message)
    if settings.compression == "gzip":
        sent["content-encoding"] = "gzip"
        body = gzip.compress(body, FAST, mtime=0)
    return Parcel(body, lambda: sent)


class _Partial(Struct):
    rejected_spans: int = msgspec.field(default=0, name="rejectedSpans")
    rejected_records: int = msgspec.field(default=0, name="rejectedLogRecords")
    rejected_points: int = msgspec.field(default=0, name="rejectedDataPoints")


class _Answer(Struct):
    partial: _Partial | None = msgspec.field(default=None, name="partialSuccess")


_answer = msgspec.json.Decoder(_Answer, strict=False)


def rejected(said: bytes) -> int:
    """Read how much was not taken; what cannot be read says nothing.

    What an answer says besides may repeat what was sent, headers too: it is not told.
    """
    try:
        part = _answer.decode(said).partial
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0
    if part is None:
        return 0
    return max(part.rejected_spans, part.rejected_records, part.rejected_points, 0)
