"""Events as spans.

SERVER  count_tokens ALIAS        one for each count that is told of by itself
  CLIENT  count_tokens MODEL      one for each request to a provider: a retry is another
"""

from collections.abc import Iterable, Iterator
from typing import Any

from app.telemetry.event import Call, CountEvent
from app.telemetry.otlp.values import (
    OPERATION,
    SCOPE,
    SERVER_ERRORS,
    attributes,
    of_count,
    provider_name,
)
from app.telemetry.trace import Ids, call_id, ids_of, is_sampled

SERVER, CLIENT = 2, 3
ERROR = 2
OK = 200


def has_spans(event: CountEvent) -> bool:
    """Say whether there are spans of it: none of one whose caller traces, but not this time."""
    return is_sampled(event.traceparent)


def spans_of(
    resource: dict[str, Any], events: Iterable[CountEvent], pseudonym_key: bytes | None
) -> dict[str, Any]:
    """Write an ExportTraceServiceRequest."""
    spans = [span for event in events for span in _spans(event, pseudonym_key)]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [_scoped(spans)]}]}


def _scoped(spans: list[dict[str, Any]]) -> dict[str, Any]:
    return {"scope": SCOPE, "spans": spans}


def _spans(event: CountEvent, pseudonym_key: bytes | None) -> Iterator[dict[str, Any]]:
    ids = ids_of(event.request_id, event.traceparent)
    ends_ns = int(event.time_s * 1e9)
    starts_ns = ends_ns - int(event.duration_ms * 1e6)
    yield {
        "traceId": ids.trace,
        "spanId": ids.span,
        "parentSpanId": ids.parent,
        "flags": ids.flags,
        "name": f"{OPERATION} {event.alias}".rstrip(),
        "kind": SERVER,
        "startTimeUnixNano": str(starts_ns),
        "endTimeUnixNano": str(ends_ns),
        "attributes": of_count(event, pseudonym_key),
        "status": {"code": ERROR} if event.status >= SERVER_ERRORS else {},
    }
    for number in range(1, len(event.calls) + 1):
        yield _client(event, ids, number, starts_ns)


def _client(event: CountEvent, ids: Ids, number: int, starts_ns: int) -> dict[str, Any]:
    """Write the ``number``-th call, counted from 1."""
    call = event.calls[number - 1]
    is_last = number == len(event.calls)
    error = (event.error_type if is_last else "") or _failure(call)
    asked_ns = starts_ns + int(call.from_ms * 1e6)
    said: dict[str, str | int | bool] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": provider_name(call.provider),
        "gen_ai.request.model": call.upstream_model,
        "http.request.method": "POST",
        "http.response.status_code": call.status,
        "http.request.resend_count": number - 1,
        "tallygate.deployment": call.deployment,
        "error.type": error,
    }
    return {
        "traceId": ids.trace,
        "spanId": call_id(event.request_id, number),
        "parentSpanId": ids.span,
        "flags": ids.flags,
        "name": f"{OPERATION} {call.upstream_model}",
        "kind": CLIENT,
        "startTimeUnixNano": str(asked_ns),
        "endTimeUnixNano": str(asked_ns + int(call.took_ms * 1e6)),
        "attributes": attributes(said),
        "status": {"code": ERROR} if error else {},
    }


def _failure(call: Call) -> str:
    """Name what went wrong with a call, whatever was answered: the status, as is the convention."""
    if call.status == OK:
        return ""
    return str(call.status) if call.status else "no_answer"
