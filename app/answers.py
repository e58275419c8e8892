"""A count's answer on the wire: the same headers and the same body, by whichever way they leave."""

import time
from functools import lru_cache

from sanic.helpers import STATUS_CODES

from app.errors import ProxyError
from app.keys import Answer
from app.replies import JSON, counted

PREPARED = 1024
"""How many sets of headers stay ready as bytes."""
MAX_ECHO = 128

_LINE_ENDS = str.maketrans("", "", "\r\n\x00")

Pairs = tuple[tuple[bytes, bytes], ...]


def pairs(answer: Answer) -> Pairs:
    """Give the headers that say what was answered: all but the ids of the one request."""
    record = answer.record
    model = answer.deployment.endpoint.upstream_model
    says = cache_status(answer), answer.source, answer.provider, model
    return _pairs(says, record.counted_at_s, record.dropped)


def body(answer: Answer) -> bytes:
    """Write ``{"input_tokens":N}`` and what the provider adds to it."""
    return counted(answer.record.input_tokens, answer.record.extra)


def rest(answer: Answer, *, stays_open: bool) -> bytes:
    """Write all but the beginning of an answer; ``begin`` writes what comes before."""
    return b"".join(b"%b: %b\r\n" % pair for pair in pairs(answer)) + _framed(
        body(answer), stays_open=stays_open
    )


def begin(request_id: str, echo: str) -> bytes:
    """Write the beginning of an answer: the ids of the one request."""
    if echo:
        echo = f"x-request-id: {echo}\r\n"
    return f"HTTP/1.1 200 OK\r\nrequest-id: {request_id}\r\n{echo}".encode()


def refusal(
    error: ProxyError, request_id: str, echo: str, *, on_loopback: bool, stays_open: bool
) -> bytes:
    """Write a whole refusal."""
    headers = {"request-id": request_id, **error.headers}
    if echo:
        headers["x-request-id"] = echo
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    told_body = error.body(request_id, on_loopback=on_loopback)
    status = STATUS_CODES.get(error.status, b"UNKNOWN")
    return b"HTTP/1.1 %d %b\r\n%b%b" % (
        error.status,
        status,
        lines.encode(errors="surrogateescape"),
        _framed(told_body, stays_open=stays_open),
    )


def _framed(told_body: bytes, *, stays_open: bool) -> bytes:
    """Write the end of a head, and the body, as Sanic does (25.12.1)."""
    stays = b"keep-alive" if stays_open else b"close"
    return b"content-length: %d\r\nconnection: %b\r\ncontent-type: %b\r\n\r\n%b" % (
        len(told_body),
        stays,
        JSON.encode(),
        told_body,
    )


def echoed(client_request_id: str) -> str:
    """Return the client's own id where it may be given back, else an empty string."""
    fits = len(client_request_id) <= MAX_ECHO
    plain = client_request_id.isascii() and client_request_id.isprintable()
    return client_request_id if fits and plain else ""


def cache_status(answer: Answer) -> str:
    """Say in RFC 9211's words what the cache did."""
    match answer.source:
        case "cache":
            return "tallygate; hit"
        case "coalesced":
            return "tallygate; fwd=miss; collapsed"
        case "stale":
            return "tallygate; fwd=stale"
        case "estimate":
            return "tallygate; fwd=bypass"
        case _:
            return "tallygate; fwd=miss; stored" if answer.stored else "tallygate; fwd=miss"


def rfc3339(seconds: int) -> str:
    """Write a time as ``2026-11-23T08:00:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@lru_cache(PREPARED)
def _pairs(says: tuple[str, str, str, str], counted_at_s: int, dropped: bytes) -> Pairs:
    status, source, provider, model = says
    found = [
        (b"cache-status", status.encode()),
        (b"x-tallygate-source", source.encode()),
        (b"x-tallygate-provider", provider.encode()),
        # Behind a wildcard the client has named it.
        (b"x-tallygate-model", model.translate(_LINE_ENDS).encode(errors="surrogateescape")),
        (b"x-tallygate-counted-at", rfc3339(counted_at_s).encode()),
    ]
    if dropped:
        found.append((b"x-tallygate-dropped", dropped))
    return tuple(found)
