"""W3C's trace context: whose trace a count belongs to, and what a provider is told of it.

https://www.w3.org/TR/trace-context/ (2021-11). A count's ids are made from its request id, so that
a span, a log record and the header that a provider was sent agree, wherever each is written.
"""

import hashlib
import re

from msgspec import Struct

SAMPLED = 1
"""Of a traceparent's flags."""
MAX_STATE = 512
MAX_MEMBERS = 32

_traceparent = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_member = re.compile(
    r"[ \t]*(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e][ \t]*"
).fullmatch


def trace_of(traceparent: str) -> str:
    """Take a well-formed ``traceparent``; empty for any other: it is as if it were not there."""
    return traceparent if _traceparent(traceparent) else ""


def state_of(tracestate: str) -> str:
    """Take a well-formed ``tracestate`` of MAX_STATE characters at most; empty for any other."""
    if len(tracestate) > MAX_STATE:
        return ""
    members = [one for one in tracestate.split(",") if one.strip(" \t")]
    known = len(members) <= MAX_MEMBERS and all(map(_member, members))
    return tracestate if known and members else ""


def is_sampled(traceparent: str) -> bool:
    """Say whether the caller records this trace; what nobody has decided is recorded."""
    return not traceparent or bool(int(traceparent[-2:], 16) & SAMPLED)


class Ids(Struct, frozen=True):
    """A count's place in a trace; of what its caller has not begun, ``parent`` is empty."""

    trace: str
    span: str
    """Of the SERVER span."""
    parent: str
    flags: int


def ids_of(request_id: str, traceparent: str) -> Ids:
    """Say where a count stands; ``traceparent`` is its caller's own, well-formed or empty."""
    span = call_id(request_id, 0)
    if not traceparent:
        return Ids(_digest(f"{request_id} trace", 16), span, "", SAMPLED)
    _, trace, parent, flags = traceparent.split("-")
    return Ids(trace, span, parent, int(flags, 16))


def call_id(request_id: str, call: int) -> str:
    """Name the CLIENT span of the ``call``-th request to a provider, counted from 1."""
    return _digest(f"{request_id} {call}", 8)


def _digest(text: str, size: int) -> str:
    # Never all zero, which is no id: so unlikely that nobody will see it.
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


class Trace(Struct, frozen=True):
    """What the requests that one count sends to providers say of its trace."""

    request_id: str
    traceparent: str
    tracestate: str
    has_spans: bool
    """We make spans: a provider's is a child of ours, else of the caller's own."""

    def onward(self, call: int) -> tuple[tuple[str, str], ...]:
        """Write the headers of the ``call``-th request, counted from 1."""
        parent = self.traceparent
        if self.has_spans:
            ids = ids_of(self.request_id, self.traceparent)
            # Bits that version 00 does not define are not handed on.
            flags = ids.flags & SAMPLED
            parent = f"00-{ids.trace}-{call_id(self.request_id, call)}-{flags:02x}"
        if not parent:
            return ()
        state = (("tracestate", self.tracestate),) if self.traceparent and self.tracestate else ()
        return (("traceparent", parent), *state)


class Tracing(Struct, frozen=True):
    """Whether spans are made, and whether providers are told of traces."""

    has_spans: bool
    tells_providers: bool

    def of(self, request_id: str, traceparent: str, tracestate: str) -> Trace | None:
        """Say what providers are told of a count whose caller has said this; None: nothing."""
        if not self.tells_providers or not (self.has_spans or traceparent):
            return None
        return Trace(request_id, traceparent, state_of(tracestate), self.has_spans)
