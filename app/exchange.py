"""One connection to a provider: one request at a time, one whole reply to it, nothing else.

A reply that is taken for another question's would be a wrong number. So a connection that has said
anything unasked, anything beyond its reply, or not all of it, is closed and never used again.
"""

import asyncio
import select
from collections.abc import Mapping
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

MAX_REPLY_BYTES = 1_048_576
"""With its head, its framing, and all interim replies before it."""
MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 256
JOINED_BYTES = 65_536
"""Up to this size a body is copied behind its head, to go out in one piece."""
INTERIM, OK, NO_CONTENT, NOT_MODIFIED = range(100, 200), 200, 204, 304


class UpstreamReply(Struct, frozen=True, gc=False):
    """A whole reply. Header names are lower-case; of a repeated header the last one stands.

    Of a 200 the headers are left out: a count says all in its body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<UpstreamReply {self.status} of {len(self.body)} bytes>"


class UpstreamUnreachableError(Exception):
    """No reply: the connection was refused, broken, or the deadline passed."""

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out


class UnusableReplyError(Exception):
    """A reply that cannot be an answer: a redirect, not HTTP, or larger than MAX_REPLY_BYTES."""


class UnheardError(UpstreamUnreachableError):
    """The connection ended before a single byte of the reply."""


class Exchange(asyncio.Protocol):
    """The protocol of one connection; httptools reads (llhttp, without any leniency).

    ask ── writes ── data_received … ── message complete ──► reply, and free for the next
                          │ deadline, end, not HTTP, too large, more than the reply
                          └───────────────────────────────► error, and closed
    """

    __slots__ = (
        "_body",
        "_bytes",
        "_fault",
        "_headers",
        "_loop",
        "_news",
        "_parser",
        "_reply",
        "_said",
        "_status",
        "_transport",
        "_waiting",
    )
    _transport: asyncio.Transport | None

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._transport = None
        self._news = select.poll()
        self._waiting: asyncio.Future[UpstreamReply] | None = None
        self._said = False
        """The last request has had its whole reply."""
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._bytes = self._status = 0
        self._reply: UpstreamReply | None = None
        self._fault = ""
        """Why this connection is not used again."""

    async def ask(self, head: bytes, body: bytes, timeout_s: float) -> UpstreamReply:
        """Send a request and wait for the whole of its reply.

        Raises UnheardError, UpstreamUnreachableError and UnusableReplyError; whoever is cancelled
        closes the connection.
        """
        transport = self._transport
        if transport is None:
            raise UnheardError("closed", timed_out=False)
        self._begin()
        self._said = False
        waiting: asyncio.Future[UpstreamReply] = self._loop.create_future()
        self._waiting = waiting
        if len(body) <= JOINED_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        timer = self._loop.call_later(timeout_s, self._expire)
        try:
            return await waiting
        finally:
            timer.cancel()
            self._waiting = None
            del waiting  # which holds its failure, which holds this frame, which holds the body
            self._said = self._reply is not None
            self._headers, self._body, self._reply = [], [], None  # while it is idle it keeps none
            if not self._said:
                self.abort()

    @property
    def is_free(self) -> bool:
        """Whether another request may be sent: it is done, and nothing has come since.

        1 a loop is busy; 2 a provider says something unasked, or closes; 3 who comes next is sent
        before the loop has read that: so the socket itself is looked at.
        """
        return self.is_done and not self._news.poll(0)

    @property
    def is_done(self) -> bool:
        """Whether all has been said, on both sides, and no more."""
        transport = self._transport
        return (
            transport is not None
            and self._waiting is None
            and self._said
            and not self._fault
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, without a request."""
        self._transport = cast("asyncio.Transport", transport)
        self._news.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Read a piece of the reply."""
        waiting = self._waiting
        if waiting is None or waiting.done():
            self.abort()  # nothing was asked
            return
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._fault = "switches to another protocol"
        except HttpParserError as error:
            self._fault = f"no HTTP: {type(error).__name__}"
        if self._bytes > (MAX_REPLY_BYTES if self._status else MAX_HEAD_BYTES):
            self._fail(UnusableReplyError("larger than a count can be"))
        elif self._reply is not None and self._is_premature():
            self._fail(UnusableReplyError("a count of what has not been sent"))
        elif self._reply is not None:  # whatever has come behind it is nobody's
            waiting.set_result(self._reply)
        elif self._fault:
            self._fail(UnusableReplyError(self._fault))

    def eof_received(self) -> None:
        """End a reply that has no other end than that of the connection."""
        waiting = self._waiting
        if waiting is None or waiting.done() or not self._status or self._says_how_long():
            return
        if self._is_premature():
            return
        self._fault = "ended"
        self._reply = self._read()
        waiting.set_result(self._reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        if not self._bytes:
            self._fail(UnheardError(type(exc).__name__ if exc else "closed", timed_out=False))
        self._fail(UpstreamUnreachableError("closed before the end of a reply", timed_out=False))

    # What the parser calls: a reply, or several where the first are interim ones.

    def on_message_begin(self) -> None:
        if self._reply is not None:
            self._fault = "more than was asked"

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status:
            return  # behind a body in chunks: no field of the head
        if len(self._headers) < MAX_HEADERS:
            self._headers.append((name, value))
        else:
            self._fault = "more headers than a reply can have"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._reply is not None:
            return  # of what nobody has asked
        if status in INTERIM:
            self._headers.clear()
        elif status:
            self._status = status
        else:
            self._fault = "no HTTP: a status of 000"

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._status and not self._fault:
            self._reply = self._read()
            if not self._parser.should_keep_alive():
                self._fault = "ends"

    def _is_premature(self) -> bool:
        """Whether a count has come before the question is sent whole: it is another question's."""
        transport = self._transport
        unsent = transport is not None and transport.get_write_buffer_size() > 0
        return self._status == OK and unsent

    def _says_how_long(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        has_none = self._status in {NO_CONTENT, NOT_MODIFIED}
        return has_none or b"content-length" in names or b"transfer-encoding" in names

    def _read(self) -> UpstreamReply:
        headers = {}
        if self._status != OK:
            said = self._headers
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in said
            }
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        return UpstreamReply(self._status, headers, body)

    def _expire(self) -> None:
        self._fail(UpstreamUnreachableError("no answer in time", timed_out=True))

    def _fail(self, error: Exception) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        self.abort()
