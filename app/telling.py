"""The event that tells of a request to count, whichever way it was answered."""

import time

from msgspec import Struct
from msgspec.structs import replace

from app.errors import ProxyError
from app.keys import Answer
from app.leader import Asked, Journey
from app.telemetry import CountEvent, Telemetry
from app.telemetry.event import Call
from app.telemetry.layout import ERROR_TYPES

OK, CLIENT_CLOSED = 200, 499
"""The second: what is told of a client that left before its answer."""


class Asker(Struct, gc=False):
    """Who asks what, as far as it is known by now."""

    request_id: str
    route: str
    body_bytes: int
    client_request_id: str
    user_agent: str
    traceparent: str
    caller: str = ""
    end_user: str = ""
    alias: str = ""
    model: str = ""


def tell(
    telemetry: Telemetry,
    asker: Asker,
    journey: Journey,
    started_s: float,
    outcome: Answer | ProxyError | None,
) -> None:
    """Tell of a request once. Of a client that has left: when its question has been answered.

    Only then is known how often a provider was asked. ``started_s`` is as below.
    """
    event = event_of(asker, journey, started_s, outcome)
    if outcome is not None:
        telemetry.emit(event)
    else:
        journey.tell(lambda: telemetry.emit(_landed(asker, journey, started_s, event)))


def _landed(asker: Asker, journey: Journey, started_s: float, left: CountEvent) -> CountEvent:
    """Complete the event of a client that has left; its times are those until then."""
    return replace(
        event_of(asker, journey, started_s, None),
        time_s=left.time_s,
        duration_ms=left.duration_ms,
        upstream_ms=left.upstream_ms,
    )


def event_of(
    asker: Asker, journey: Journey, started_s: float, outcome: Answer | ProxyError | None
) -> CountEvent:
    """Tell of an answer or a refusal; of neither: that the client has left.

    ``started_s`` is on the clock of ``time.monotonic``.
    """
    answer = outcome if isinstance(outcome, Answer) else None
    error = outcome if isinstance(outcome, ProxyError) else None
    status = OK if answer else error.status if error else CLIENT_CLOSED
    dropped = answer.record.dropped.decode() if answer else ""
    deployment = answer.deployment if answer else journey.deployment
    now_s, asked_at = time.monotonic(), journey.asked_at
    # Of a call that this caller has not waited for: as long as it has.
    out_ms = (now_s - asked_at) * 1000 if asked_at and not journey.upstream_ms else 0.0
    return CountEvent(
        time_s=time.time(),  # noqa: TID251 -- the event's own wall-clock time
        request_id=asker.request_id,
        status=status,
        duration_ms=(now_s - started_s) * 1000,
        route=asker.route,
        source=answer.source if answer else "",
        tier=answer.tier if answer else "",
        error_type="" if answer else _error_type(error),
        reason=error.reason if error else "",
        input_tokens=answer.record.input_tokens if answer else 0,
        caller=asker.caller,
        end_user=asker.end_user,
        alias=asker.alias,
        model=asker.model,
        provider=deployment.provider if deployment else "",
        upstream_model=deployment.endpoint.upstream_model if deployment else "",
        deployment=deployment.name if deployment else "",
        body_bytes=asker.body_bytes,
        upstream_ms=journey.upstream_ms or out_ms,
        upstream_from_ms=(asked_at - started_s) * 1000 if asked_at else 0.0,
        upstream_calls=journey.upstream_calls,
        budget_wait_ms=journey.budget_wait_ms,
        dropped=tuple(dropped.split(",")) if dropped else (),
        client_request_id=asker.client_request_id,
        user_agent=asker.user_agent,
        traceparent=asker.traceparent,
        calls=tuple(_call(one, started_s, now_s) for one in journey.asked) if journey.asked else (),
    )


def _call(asked: Asked, started_s: float, now_s: float) -> Call:
    deployment = asked.deployment
    return Call(
        provider=deployment.provider,
        upstream_model=deployment.endpoint.upstream_model,
        deployment=deployment.name,
        from_ms=(asked.began_s - started_s) * 1000,
        took_ms=((asked.ended_s or now_s) - asked.began_s) * 1000,
        status=asked.status,
    )


def _error_type(error: ProxyError | None) -> str:
    """Keep to the closed list: a type that a provider made up is its text, and may quote."""
    if error is None:
        return "client_closed"
    return error.type if error.type in ERROR_TYPES else "other"
