"""A question that the lane has read and nobody here remembers: counted, without the framework.

It goes THE way of a count (`app.counter`), with the same events and the same answers as by the
ordinary way; only what the framework would make of the request's bytes is not made.
"""

import time

from msgspec import Struct

from app import answers
from app.errors import ProxyError, from_framework
from app.keys import Answer, Place
from app.known_heads import Begun
from app.leader import Journey
from app.log import warn_operator
from app.origin import from_this_machine
from app.question import Question
from app.routing import Route
from app.telling import tell
from app.workers import Worker


class Unknown(Struct, frozen=True, gc=False):
    """A question as the lane has read it."""

    begun: Begun
    digest: bytes
    question: Question
    route: Route
    place: Place | None
    started_s: float
    """On the clock of ``time.monotonic``."""


async def ask(worker: Worker, unknown: Unknown, request_id: str) -> Answer | ProxyError:
    """Count, and tell of it once, whatever happens. Raises CancelledError: the client has left."""
    begun, question, route = unknown.begun, unknown.question, unknown.route
    trace = worker.tracing.of(request_id, begun.traceparent, begun.tracestate)
    known, journey = begun.known, Journey(trace=trace)
    outcome: Answer | ProxyError | None = None
    try:
        count = worker.counter.count
        outcome = await count(question, known.caller, route, journey, unknown.place)
        worker.repeats.learn(unknown.digest, question, route, outcome)
        if worker.sentinel.wants(outcome, time.monotonic()):  # another process remembered it
            worker.sentinel.recount(lambda: question, known.caller, outcome)
    except Exception as error:  # noqa: BLE001 -- the last stop
        outcome = from_framework(error).with_traceback(None)  # else: a cycle
        if outcome.operator_detail:
            warn_operator(outcome.operator_detail)
    finally:
        alias, model, end_user = route.alias, question.model, question.end_user
        asker = begun.asker(request_id, end_user=end_user, alias=alias, model=model)
        tell(worker.telemetry, asker, journey, unknown.started_s, outcome)
    return outcome


def written(
    unknown: Unknown, request_id: str, outcome: Answer | ProxyError, ip: str, *, stays_open: bool
) -> bytes:
    """Write an outcome as the ordinary way would."""
    begun = unknown.begun
    if isinstance(outcome, Answer):
        rest = answers.rest(outcome, stays_open=stays_open)
        return answers.begin(request_id, begun.echo) + rest
    is_near = from_this_machine(ip, begun.known.forwards)
    return answers.refusal(
        outcome, request_id, begun.echo, on_loopback=is_near, stays_open=stays_open
    )
