"""Sink: spans for an OpenTelemetry collector, over OTLP/HTTP in JSON.

    POST endpoint/v1/traces
    SERVER  count_tokens ALIAS        one for each count that is told of by itself
      CLIENT  count_tokens MODEL      where a provider was asked: first call to last reply

https://opentelemetry.io/docs/specs/otlp/ (1.9, 2026-11): ids in hexadecimal, 64-bit numbers as
strings, kinds and codes as numbers. Names of attributes: the conventions for generative AI, which
have no operation for counting; a count is nothing that was used, so it is no ``gen_ai.usage``.
https://github.com/open-telemetry/semantic-conventions-genai (2026-11)
"""

import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from app.config_sections import Otlp
from app.telemetry.courier import Lost, Parcel, Round
from app.telemetry.event import CountEvent
from app.telemetry.record import pseudonym

OPERATION = "count_tokens"
SERVER, CLIENT = 2, 3
SAMPLED = 1
"""Of a traceparent's flags."""
ERROR = 2
SERVER_ERRORS = 500
PROVIDERS = {
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "bedrock_mantle": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex_claude": "gcp.vertex_ai",
    "vertex_gemini": "gcp.vertex_ai",
}
"""Ours, and the conventions' names; what is not here is given as it is."""
WORTH_ANOTHER = frozenset({429, 502, 503, 504})

Attributes = list[dict[str, Any]]


def otlp(settings: Otlp, pseudonym_key: bytes | None) -> Round:
    """Say where the collector's batches go, and what they look like."""
    headers = {name: value.reveal() for name, value in settings.headers.items()}
    return Round(
        name="otlp",
        url=f"{settings.endpoint.reveal().rstrip('/')}/v1/traces" if settings.endpoint else "",
        batch_events=settings.batch_events,
        flush_s=settings.flush_s,
        timeout_s=settings.timeout_s,
        tells_losses=False,
        worth_another=WORTH_ANOTHER,
        pack=partial(_pack, settings.service_name, headers, pseudonym_key),
    )


def _pack(
    service_name: str,
    headers: Mapping[str, str],
    pseudonym_key: bytes | None,
    events: Sequence[CountEvent],
    lost: Lost,
) -> Parcel:
    del lost  # /metrics tells
    resource = _attributes(
        {
            "service.name": service_name,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    spans = [span for event in events for span in _spans(event, pseudonym_key)]
    scoped = {"scope": {"name": "tallygate"}, "spans": spans}
    traces = {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scoped]}]}
    sent = {"content-type": "application/json", **headers}
    return Parcel(orjson.dumps(traces), lambda: sent)


def _spans(event: CountEvent, pseudonym_key: bytes | None) -> Iterator[dict[str, Any]]:
    """Make a count's spans; none of one whose caller traces, and does not record this trace."""
    if event.traceparent and not int(event.traceparent[-2:], 16) & SAMPLED:
        return
    _, trace_id, parent_id, _ = (event.traceparent or f"-{secrets.token_hex(16)}--").split("-")
    ends_ns = int(event.time_s * 1e9)
    starts_ns = ends_ns - int(event.duration_ms * 1e6)
    server = {
        "traceId": trace_id,
        "spanId": secrets.token_hex(8),
        "parentSpanId": parent_id,
        "name": f"{OPERATION} {event.alias}".rstrip(),
        "kind": SERVER,
        "startTimeUnixNano": str(starts_ns),
        "endTimeUnixNano": str(ends_ns),
        "attributes": _server_attributes(event, pseudonym_key),
        "status": {"code": ERROR} if event.status >= SERVER_ERRORS else {},
    }
    yield server
    if event.upstream_calls:
        asked_ns = starts_ns + int(event.upstream_from_ms * 1e6)
        yield {
            "traceId": trace_id,
            "spanId": secrets.token_hex(8),
            "parentSpanId": server["spanId"],
            "name": f"{OPERATION} {event.upstream_model}",
            "kind": CLIENT,
            "startTimeUnixNano": str(asked_ns),
            "endTimeUnixNano": str(asked_ns + int(event.upstream_ms * 1e6)),
            "attributes": _attributes(
                {
                    **_shared(event),
                    "tallygate.upstream_calls": event.upstream_calls,
                    "error.type": event.error_type,
                }
            ),
            "status": {"code": ERROR} if event.error_type else {},
        }


def _shared(event: CountEvent) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDERS.get(event.provider, event.provider),
        "gen_ai.request.model": event.upstream_model,
        "tallygate.deployment": event.deployment,
    }


def _server_attributes(event: CountEvent, pseudonym_key: bytes | None) -> Attributes:
    end_user = event.end_user
    if pseudonym_key and end_user:
        end_user = pseudonym(pseudonym_key, end_user)
    return _attributes(
        {
            **_shared(event),
            "gen_ai.request.model": event.model,
            "gen_ai.response.model": event.upstream_model,
            "http.request.method": "POST",
            "http.response.status_code": event.status,
            "http.request.body.size": event.body_bytes,
            "user_agent.original": event.user_agent,
            "user.id": end_user,
            "error.type": event.error_type,
            "token_count.input_tokens": event.input_tokens,
            "token_count.source": event.source,
            "cache.hit": event.source == "cache",
            "tallygate.request_id": event.request_id,
            "tallygate.route": event.route,
            "tallygate.caller": event.caller,
            "tallygate.tier": event.tier,
            "tallygate.reason": event.reason,
            "tallygate.one_of": event.one_of if event.one_of > 1 else 0,
        }
    )


def _attributes(values: Mapping[str, str | int | bool]) -> Attributes:
    """Write what is not empty as OTLP's typed values."""
    return [
        {"key": name, "value": _value(value)}
        for name, value in values.items()
        if value or value is False
    ]


def _value(value: str | int | bool) -> dict[str, Any]:  # noqa: FBT001 -- a value, not a switch
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
