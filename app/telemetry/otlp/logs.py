"""Events as log records: one for each that is told of by itself, beside its span."""

from collections.abc import Iterable
from typing import Any

from app.telemetry.event import CountEvent
from app.telemetry.otlp.values import OPERATION, SCOPE, SERVER_ERRORS, of_count
from app.telemetry.trace import Ids, ids_of

EVENT_NAME = "tallygate.count"
INFO, WARN, ERROR = (9, "INFO"), (13, "WARN"), (17, "ERROR")
CLIENT_ERRORS = 400


def logs_of(
    resource: dict[str, Any],
    events: Iterable[CountEvent],
    pseudonym_key: bytes | None,
    *,
    has_spans: bool,
) -> dict[str, Any]:
    """Write an ExportLogsServiceRequest.

    A record names the span of its count; where none are made, the caller's own, if it has one.
    """
    records = [_record(event, pseudonym_key, has_spans=has_spans) for event in events]
    scoped = {"scope": SCOPE, "logRecords": records}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [scoped]}]}


def _record(event: CountEvent, pseudonym_key: bytes | None, *, has_spans: bool) -> dict[str, Any]:
    number, text = _severity(event.status)
    time_ns = str(int(event.time_s * 1e9))
    record = {
        "timeUnixNano": time_ns,
        "observedTimeUnixNano": time_ns,
        "severityNumber": number,
        "severityText": text,
        "eventName": EVENT_NAME,
        "body": {"stringValue": _body(event)},
        "attributes": of_count(event, pseudonym_key),
    }
    ids = ids_of(event.request_id, event.traceparent)
    return {**record, **_place(ids, has_spans=has_spans)}


def _place(ids: Ids, *, has_spans: bool) -> dict[str, Any]:
    span = ids.span if has_spans else ids.parent
    return {"traceId": ids.trace, "spanId": span, "flags": ids.flags} if span else {}


def _severity(status: int) -> tuple[int, str]:
    if status >= SERVER_ERRORS:
        return ERROR
    return WARN if status >= CLIENT_ERRORS else INFO


def _body(event: CountEvent) -> str:
    """Say in a line what came of it."""
    came = f"{event.input_tokens} ({event.source})" if event.source else event.error_type
    return f"{OPERATION} {event.alias or '-'}: {event.status} {came}"
