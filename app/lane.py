"""What the hit lane knows: heads that were read before, and the answers to what follows them.

It decides nothing. A head is judged and understood by the functions of the ordinary way, a body is
looked up in the memo that the ordinary way fills, and what is not found there goes that way.
"""

import hashlib
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct
from sanic.compat import Header

from app import answers
from app.auth import Caller, upstream_credential
from app.errors import ProxyError
from app.heads import judged
from app.ids import new_request_id
from app.keys import Answer
from app.question import Question, Said, check_content, check_query, decode_after, said
from app.recent import Recent
from app.repeats import LARGE_BYTES, Digest, Repeat, begin
from app.telemetry import CountEvent, plain_text, told_again
from app.workers import Worker
from cache.tiers import Record

END = b"\r\n\r\n"
MAX_HEADS = 4096
MAX_READY = 8192
"""Answers that stay written; each is about a kilobyte with its event."""
MAX_SAYS_BYTES = 1024
"""Of what decides what is asked, but the body: with it a head takes up to six kilobytes."""
ROUTES = {
    b"/v1/messages/count_tokens": "messages",
    b"/anthropic/v1/messages/count_tokens": "pass_through",
}

_request_line = re.compile(rb"POST ([^ ?]+)(?:\?([^ ]*))? HTTP/1\.1").fullmatch
VARYING = (
    "content-length",
    "x-request-id",
    "traceparent",
    "tracestate",
    "x-stainless-retry-count",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "idempotency-key",
)
"""What a client says otherwise in each request, and what is the same to us whatever it says."""
_split = re.compile(
    rb"\r\n(%b):[\t ]*([\x20-\x7e]*)(?=\r\n|\Z)" % "|".join(VARYING).encode(), re.IGNORECASE
).split
_length = re.compile(rb"(0|[1-9][0-9]{0,8}) *").fullmatch


class Known(Struct, frozen=True):
    """What the heads of one shape say, whatever stands in the fields that vary."""

    route: str
    caller: Caller
    says_all: bytes
    """Everything that decides what is asked, but the body."""
    small: Digest
    """The same, begun to be digested for a small body; for a large one it would take 2 KB."""
    query: str | None
    """None on the unified route, where it means nothing."""
    said: Said
    user_agent: str


class Ready(Struct):
    """An answer as it was written before, and what was told of it when it was last asked for."""

    repeat: Repeat
    record: Record
    answer: Answer
    written: bytes
    known: Known
    event: CountEvent


class Begun(NamedTuple):
    """A request whose head has been understood."""

    known: Known
    body_bytes: int
    echo: str
    """The client's own id, to be given back."""

    def digest(self) -> Digest:
        """Begin to digest the request: its body is to follow."""
        if self.body_bytes >= LARGE_BYTES:
            return begin(self.known.says_all, self.body_bytes)
        return self.known.small.copy()


NOT_OURS = Known("", Caller(""), b"", begin(b"", 0), None, said({}), "")
"""A head that is well-formed and whose requests go the ordinary way."""
NOTHING_TOLD = CountEvent(time_s=0, request_id="", status=0, duration_ms=0, route="")


class HitLane:
    """One worker's knowledge of heads, and its answers to repeats."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._max_body_bytes = worker.settings.server.max_body_bytes
        # The configuration may let one of them name the end user: then it is not the same to us.
        self._telling = set(VARYING) & set(worker.settings.end_user_headers)
        self._heads: Recent[Known] = Recent(MAX_HEADS)
        self._ready: Recent[Ready] = Recent(MAX_READY)

    def understand(self, raw: bytes) -> Begun | None:
        """Read a head without its closing empty line; None for what goes the ordinary way."""
        shape = _split(raw)
        length = echo = b""
        for at in range(1, len(shape), 3):
            name = shape[at].lower()
            if name == b"content-length":
                length = shape[at + 1]
            elif name == b"x-request-id":
                echo = shape[at + 1]
            shape[at + 1] = b""
        digits = _length(length)
        if digits is None or not 0 < (body_bytes := int(digits[1])) <= self._max_body_bytes:
            return None
        key = hashlib.sha256(b"\r\n".join(shape)).digest()
        known = self._heads.get(key)
        if known is None:
            known = self._learn(raw)
            if known is None:
                return None
            self._heads.put(key, known)
        if known is NOT_OURS:
            return None
        return Begun(known, body_bytes, answers.echoed(echo.decode()) if echo else "")

    def answer(
        self, begun: Begun, digest: bytes, pieces: Sequence[bytes], started_s: float
    ) -> bytes | None:
        """Answer what this worker remembers, and tell of it; None for all else.

        ``pieces`` are the whole request, ``started_s`` is on the clock of ``time.perf_counter``.
        """
        known, worker = begun.known, self._worker
        found = worker.repeats.find(digest, known.caller) or self._find(begun, digest, pieces)
        if found is None:
            return None
        repeat, record = found
        ready = self._ready.get(digest)
        if ready is None or ready.record is not record or ready.repeat is not repeat:
            ready = self._ready.put(digest, _prepare(repeat, record))
        if ready.known is not known:
            ready.known, ready.event = known, _event(begun, repeat, ready.answer)
        if worker.sentinel.wants(ready.answer, time.monotonic()):
            caller, answer = known.caller, ready.answer
            worker.sentinel.recount(lambda: _read(pieces, known), caller, answer)
        request_id = new_request_id()
        written = answers.begin(request_id, begun.echo) + ready.written
        worker.metrics.lane_hit()
        now_s = time.time()  # noqa: TID251 -- the event's own wall-clock time
        duration_ms = (time.perf_counter() - started_s) * 1000
        worker.telemetry.emit(told_again(ready.event, request_id, begun.echo, duration_ms, now_s))
        return written

    def _find(
        self, begun: Begun, digest: bytes, pieces: Sequence[bytes]
    ) -> tuple[Repeat, Record] | None:
        """Look up a question that was asked before in other bytes.

        Not a large one: of a miss it would be decoded twice, 11 ms a megabyte.
        """
        if begun.body_bytes >= LARGE_BYTES:
            return None
        known = begun.known
        counter, caller = self._worker.counter, known.caller
        try:
            question = _read(pieces, known)
            route = counter.route(question, caller)
        except ProxyError:
            return None
        answer = counter.known(question, caller, route)
        if answer is None:
            return None
        repeat = self._worker.repeats.learn(digest, question, route, answer)
        return None if repeat is None else (repeat, answer.record)

    def _learn(self, raw: bytes) -> Known | None:
        """Understand a head as the ordinary way does; None for one that it refuses."""
        try:
            head = judged(raw)
        except ProxyError:
            return None
        line, headers = headers_of(raw)
        asked = _request_line(line)
        route = ROUTES.get(asked[1]) if asked else None
        stays = all(one.lower() == "keep-alive" for one in headers.getall("connection", ()))
        if asked is None or route is None or not stays or head.expects_continue:
            return NOT_OURS
        if len(headers.getall("x-request-id", ())) > 1:  # the first counts, and may be literal here
            return NOT_OURS
        if any(name in headers for name in self._telling):
            return NOT_OURS
        worker = self._worker
        try:
            caller = worker.authenticator.caller(headers)
        except ProxyError:
            return None
        if upstream_credential(headers, has_keys=bool(worker.settings.keys)) is not None:
            return NOT_OURS
        query = (asked[2] or b"").decode() if route == "pass_through" else None
        says_all = worker.repeats.head(headers, query, caller)
        if says_all is None or len(says_all) > MAX_SAYS_BYTES:
            return NOT_OURS
        try:
            check_content(headers)
            check_query(query or "")
            says = said(headers, worker.settings.end_user_headers)
        except ProxyError:
            return NOT_OURS
        agent = plain_text(headers.get("user-agent", ""))
        return Known(route, caller, says_all, begin(says_all, 0), query, says, agent)


def _read(pieces: Sequence[bytes], known: Known) -> Question:
    """Decode a request whose head is known. Raises ProxyError."""
    raw = b"".join(pieces)
    return decode_after(known.said, raw[raw.index(END) + len(END) :], known.query)


def _prepare(repeat: Repeat, record: Record) -> Ready:
    answer = repeat.answer(record)
    return Ready(repeat, record, answer, answers.hit(answer), NOT_OURS, NOTHING_TOLD)


def _event(begun: Begun, repeat: Repeat, answer: Answer) -> CountEvent:
    """Tell of a hit, all but its ids and times."""
    known, record, deployment = begun.known, answer.record, answer.deployment
    return CountEvent(
        time_s=0,
        request_id="",
        status=200,
        duration_ms=0,
        route=known.route,
        source=answer.source,
        tier=answer.tier,
        input_tokens=record.input_tokens,
        caller=known.caller.name,
        end_user=known.said.end_user or repeat.body_end_user,
        alias=repeat.route.alias,
        model=repeat.model,
        provider=deployment.provider,
        upstream_model=deployment.endpoint.upstream_model,
        deployment=deployment.name,
        body_bytes=begun.body_bytes,
        dropped=tuple(record.dropped.decode().split(",")) if record.dropped else (),
        user_agent=known.user_agent,
    )


def headers_of(raw: bytes) -> tuple[bytes, Header]:
    """Split a well-formed head into its first line and its fields, as Sanic does (25.12.1)."""
    line, _, rest = raw.partition(b"\r\n")
    fields = (one.split(":", 1) for one in rest.decode().split("\r\n"))
    return line, Header([(name.lower(), value.lstrip()) for name, value in fields])
