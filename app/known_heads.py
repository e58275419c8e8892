"""The heads of requests that the hit lane has understood before, by what does not vary in them."""

import hashlib
import re
from typing import NamedTuple

from msgspec import Struct
from sanic.compat import Header

from app import answers
from app.auth import Authenticator, Caller, upstream_credential
from app.config import Settings
from app.errors import ProxyError
from app.heads import judged
from app.origin import PROXY_HEADERS
from app.question import Said, check_content, check_query, said
from app.recent import Recent
from app.repeats import LARGE_BYTES, Digest, Repeats, begin
from app.telemetry import plain_text, trace_of
from app.telling import Asker

END = b"\r\n\r\n"
MAX_HEADS = 4096
MAX_BY_LENGTH = 1024
MAX_AROUND_BYTES = 2048
"""Heads that are known by all their bytes but the length, and how long one may be."""
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
_ONCE = "x-request-id", "traceparent", "tracestate"
_SAID_AGAIN = {b"content-length", b"x-stainless-retry-count"}
"""Of these what a client says in the same words for the same question."""
_split = re.compile(
    rb"\r\n(%b):[\t ]*([\x20-\x7e]*)(?=\r\n|\Z)" % "|".join(VARYING).encode(), re.IGNORECASE
).split
_LENGTHS = b"\r\ncontent-length: ", b"\r\nContent-Length: "
_MAX_DIGITS = 9


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
    forwards: tuple[str, ...]
    """The headers by which a proxy speaks for somebody else."""
    who: tuple[str, str] = ("", "")
    """The caller's name, and the end user that the head names."""


class Begun(NamedTuple):
    """A request whose head has been understood."""

    known: Known
    body_bytes: int
    echo: str
    """The client's own id, to be given back."""
    is_plain: bool
    """Nothing in the head is likely to be said only once."""
    traceparent: str = ""
    tracestate: str = ""

    def asker(self, request_id: str, *, end_user: str, alias: str, model: str) -> Asker:
        """Say who asks what, for the event."""
        known = self.known
        return Asker(
            request_id=request_id,
            route=known.route,
            body_bytes=self.body_bytes,
            client_request_id=self.echo,
            user_agent=known.user_agent,
            traceparent=self.traceparent,
            caller=known.caller.name,
            end_user=end_user,
            alias=alias,
            model=model,
        )

    def digest(self) -> Digest:
        """Begin to digest the request: its body is to follow."""
        if self.body_bytes >= LARGE_BYTES:
            return begin(self.known.says_all, self.body_bytes)
        return self.known.small.copy()


NOT_OURS = Known("", Caller(""), b"", begin(b"", 0), None, said({}), "", ())
"""A head that is well-formed and whose requests go the ordinary way."""


class KnownHeads:
    """Understands heads: by what it has learned of one that differs in the varying fields only."""

    def __init__(self, settings: Settings, authenticator: Authenticator, repeats: Repeats) -> None:
        self._settings = settings
        self._max_body_bytes = settings.server.max_body_bytes
        self._authenticator = authenticator
        self._repeats = repeats
        # The configuration may let one of them name the end user: then it is not the same to us.
        self._telling = set(VARYING) & set(settings.end_user_headers)
        self._known: Recent[Known] = Recent(MAX_HEADS)
        self._by_length: Recent[Known] = Recent(MAX_BY_LENGTH)

    def understand(self, raw: bytes) -> Begun | None:
        """Read a head without its closing empty line; None for what goes the ordinary way."""
        # Most heads differ from known ones in the length alone: by shape takes twice as long.
        found = max(raw.find(_LENGTHS[0]), raw.find(_LENGTHS[1]))
        if found < 0:  # written otherwise
            return self._understand(raw)
        at = found + len(_LENGTHS[0])
        end = raw.find(b"\r\n", at)
        digits, rest = (raw[at:end], raw[end:]) if end >= 0 else (raw[at:], b"")
        around = raw[:at] + rest
        known = self._by_length.get(around)
        if known is None:
            return self._understand(raw, around)
        body_bytes = _body_bytes(digits, self._max_body_bytes)
        return Begun(known, body_bytes, "", is_plain=True) if body_bytes else None

    def _understand(self, raw: bytes, around: bytes = b"") -> Begun | None:
        """Read a head by its shape; ``around`` is what stands around its length, if known."""
        shape = _split(raw)
        said: dict[bytes, bytes] = {}
        for at in range(1, len(shape), 3):
            said.setdefault(shape[at].lower(), shape[at + 1])
            shape[at + 1] = b""
        digits = said.get(b"content-length", b"").rstrip(b" ")
        body_bytes = _body_bytes(digits, self._max_body_bytes)
        if not body_bytes:
            return None
        key = hashlib.sha256(b"\r\n".join(shape)).digest()
        known = self._known.get(key)
        if known is None:
            known = self._learn(raw)
            if known is None:
                return None
            self._known.put(key, known)
        if known is NOT_OURS:
            return None
        is_plain = said.keys() <= _SAID_AGAIN
        if is_plain and 0 < len(around) <= MAX_AROUND_BYTES:
            self._by_length.put(around, known)
        echo, trace = said.get(b"x-request-id", b""), said.get(b"traceparent", b"")
        state = said.get(b"tracestate", b"").decode()
        echoed, trace_id = answers.echoed(echo.decode()), trace_of(trace.decode())
        return Begun(known, body_bytes, echoed, is_plain, trace_id, state)

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
        # The first of several counts, and may be literal here.
        if any(len(headers.getall(name, ())) > 1 for name in _ONCE):
            return NOT_OURS
        if any(name in headers for name in self._telling):
            return NOT_OURS
        try:
            caller = self._authenticator.caller(headers)
        except ProxyError:
            return None
        if upstream_credential(headers, has_keys=bool(self._settings.keys)) is not None:
            return NOT_OURS
        query = (asked[2] or b"").decode() if route == "pass_through" else None
        says_all = self._repeats.head(headers, query, caller)
        if says_all is None or len(says_all) > MAX_SAYS_BYTES:
            return NOT_OURS
        try:
            check_content(headers)
            check_query(query or "")
            says = said(headers, self._settings.end_user_headers)
        except ProxyError:
            return NOT_OURS
        agent = plain_text(headers.get("user-agent", ""))
        forwards = tuple(name for name in PROXY_HEADERS if name in headers)
        small, who = begin(says_all, 0), (caller.name, says.end_user)
        return Known(route, caller, says_all, small, query, says, agent, forwards, who)


def _body_bytes(digits: bytes, most_bytes: int) -> int:
    """Read a length as the ordinary way would; 0 for what is not the lane's."""
    if not digits.isdigit() or digits[0] == ord("0") or len(digits) > _MAX_DIGITS:
        return 0
    body_bytes = int(digits)
    return body_bytes if body_bytes <= most_bytes else 0


def headers_of(raw: bytes) -> tuple[bytes, Header]:
    """Split a well-formed head into its first line and its fields, as Sanic does (25.12.1)."""
    line, _, rest = raw.partition(b"\r\n")
    fields = (one.split(":", 1) for one in rest.decode().split("\r\n"))
    return line, Header([(name.lower(), value.lstrip()) for name, value in fields])
