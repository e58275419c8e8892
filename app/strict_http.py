"""HTTP/1 read strictly: a subclass of Sanic's protocol and of its parser, which is lax.

Every request is judged here before Sanic acts on it; what is refused ends its connection, so that
bytes which one reader takes for a body and another for a request are never run. The decisions are
in docs/decisions/0011-strict-heads.md.

`app.hitlane` stands on top of it: what it does not answer comes here whole and unchanged.

Of Sanic's internals nothing else is touched than what tests/unit/test_sanic_internals.py lists.
"""

import asyncio
import contextlib
import re
from typing import Any

from sanic.exceptions import RequestTimeout
from sanic.http.constants import Stage
from sanic.http.http1 import HTTP_CONTINUE, Http
from sanic.server.protocols.http_protocol import HttpProtocol

from app.chunks import chunk_line
from app.errors import ProxyError, overloaded, too_large
from app.heads import Head, Heads, malformed
from app.telemetry.layout import CLOSED

PIECE_BYTES = 4096
"""A body is handed on in pieces of this size at least: a list of tiny ones would take far more
memory than the body."""
MIN_BYTES_PER_S = 16 * 1024
LINGER_S = 2.0
HALF_CLOSED_S = 0.5
SMALL_BYTES = 64 * 1024
"""Bodies up to this size are taken however many large ones are held."""
SHED_RETRY_S = 1

_END = b"\r\n\r\n"
_lone_line_end = re.compile(rb"(?<!\r)\n|\r[^\n]").search


class StrictHttp(Http):
    """One connection's requests, judged before they are parsed and bounded in time."""

    __slots__ = ("_body_since_s", "_head", "_held_bytes", "_is_refused", "_raw")

    protocol: "StrictProtocol"
    heads = Heads()
    held_bytes = 0
    """Of all connections of this worker."""
    recv_buffer: bytearray
    request_body: Any  # "chunked", True or None
    request_bytes: int
    request_bytes_left: int

    def __init__(self, protocol: "StrictProtocol") -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.request_body = None
        self._is_refused = False
        self._raw: bytes | None = None
        self._held_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Say whether all requests that have come are answered, and another may follow."""
        return (
            self.stage is Stage.IDLE
            and not self.recv_buffer
            and self.request_body is None
            and self.keep_alive
            and not self._is_refused
        )

    async def http1(self) -> None:
        """Serve one request after the other, until one is refused or the connection ends."""
        try:
            await super().http1()  # type: ignore[no-untyped-call]
        finally:
            self.let_go()
        if self._is_refused:
            await self._linger()

    async def http1_request_header(self) -> None:
        """Judge a head, and only then let Sanic parse it. Raises ProxyError, RequestTimeout."""
        self._is_refused = True
        if self.protocol.is_beyond:
            raise overloaded("too many connections to this server", SHED_RETRY_S)
        end = self.recv_buffer.find(_END)
        if end < 0:
            end = await self._end_of_head()
        raw = bytes(self.recv_buffer[:end])
        if raw != self._raw:  # a client says the same again and again
            self._head = self._judge(raw)
            self._raw = raw
        head = self._head
        self.check_room(head.body_bytes)
        await super().http1_request_header()  # type: ignore[no-untyped-call]
        self._is_refused = False
        self._body_since_s: float | None = None
        # Sanic takes "head" for HEAD, invites where nothing is to come, and stops its timeouts for
        # whoever asks for a web socket, which nobody gets here.
        self.head_only = head.is_for_head
        self.expecting_continue = head.expects_continue
        self.upgrade_websocket = False

    async def read(self) -> bytes | None:
        """Read a piece of the body. Raises ProxyError, RequestTimeout."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        try:
            if self.request_body == "chunked":
                return await self._read_chunks()
            while len(self.recv_buffer) < min(self.request_bytes_left, PIECE_BYTES):
                await self._receive_body()
            self.hold(min(len(self.recv_buffer), self.request_bytes_left))
        except (ProxyError, RequestTimeout):
            self._is_refused, self.keep_alive, self.request_body = True, False, None
            if self.stage is Stage.HANDLER:
                raise
            return None  # the rest of a body whose request has been answered already
        piece = bytes(self.recv_buffer[: self.request_bytes_left])
        del self.recv_buffer[: len(piece)]
        self.request_bytes_left -= len(piece)
        if not self.request_bytes_left:
            self.request_body = None
        return piece

    def init_for_request(self) -> None:
        """Begin anew: the request before has been answered, and its body is let go."""
        self.let_go()
        super().init_for_request()  # type: ignore[no-untyped-call]

    def check_room(self, size_bytes: int) -> None:
        """Look whether there is room for so much more. Raises ProxyError 529.

        Nothing is set aside for what is only announced: it may never come.
        """
        if self._held_bytes + size_bytes <= SMALL_BYTES:
            return
        others_bytes = StrictHttp.held_bytes - self._held_bytes
        most_bytes = self.protocol.app.ctx.settings.server.max_held_bytes
        if others_bytes and StrictHttp.held_bytes + size_bytes > most_bytes:
            raise overloaded("too many large requests at a time", SHED_RETRY_S)

    def hold(self, size_bytes: int) -> None:
        """Count what has come of a body. Raises ProxyError 529 when others hold all the room."""
        self.check_room(size_bytes)
        self._held_bytes += size_bytes
        StrictHttp.held_bytes += size_bytes

    def let_go(self) -> None:
        """Hold nothing any more: the body has been answered, or is handed on."""
        StrictHttp.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def _judge(self, raw: bytes) -> Head:
        if len(raw) >= self.HEADER_MAX_SIZE:
            raise too_large(f"the request's head is larger than {self.HEADER_MAX_SIZE} bytes")
        head = self.heads.judge(raw)
        if head.body_bytes > self.protocol.request_max_size:
            raise self._too_large()
        return head

    async def _end_of_head(self) -> int:
        """Wait for the end of a head that has begun, or for more than a head may be."""
        buffer, seen = self.recv_buffer, 0
        until_s = self.protocol.loop.time() + self.protocol.request_timeout
        while (end := buffer.find(_END, max(0, seen - 3))) < 0:
            if len(buffer) > self.HEADER_MAX_SIZE:
                return len(buffer)
            if _lone_line_end(buffer, max(0, seen - 1)):
                raise malformed("a line that does not end in CR LF")
            seen = len(buffer)
            await self._receive_until(until_s)
        return end

    async def _read_chunks(self) -> bytes:
        buffer, gathered = self.recv_buffer, bytearray()
        while len(gathered) < PIECE_BYTES:
            if not self.request_bytes_left and not await self._next_chunk():
                self.request_body = None
                break
            if not buffer:
                await self._receive_body()
            piece = buffer[: self.request_bytes_left]
            del buffer[: len(piece)]
            self.request_bytes_left -= len(piece)
            self.hold(len(piece))
            gathered += piece
        await asyncio.sleep(0)  # thousands of tiny chunks take a while; others come between
        return bytes(gathered)

    async def _next_chunk(self) -> bool:
        """Read up to a chunk's data; say whether there is any, or the body has ended."""
        buffer = self.recv_buffer
        while (line := chunk_line(buffer)) is None:
            await self._receive_body()
        size, end = line
        del buffer[:end]
        self.request_bytes_left = size
        self.request_bytes += size
        if self.request_bytes > self.protocol.request_max_size:
            raise self._too_large()
        return size > 0

    async def _receive_body(self) -> None:
        """Wait for more of a body: not long at once, and not for one that only trickles."""
        now_s, patience_s = self.protocol.loop.time(), self.protocol.request_timeout
        if self._body_since_s is None:
            self._body_since_s = now_s
        received = self.request_bytes - self.request_bytes_left + len(self.recv_buffer)
        enough_s = self._body_since_s + patience_s + received / MIN_BYTES_PER_S
        await self._receive_until(min(now_s + patience_s, enough_s))

    async def _receive_until(self, until_s: float) -> None:
        try:
            async with asyncio.timeout_at(until_s):
                await self._receive_more()
        except TimeoutError:
            raise RequestTimeout from None

    def _too_large(self) -> ProxyError:
        return too_large(f"the body is larger than {self.protocol.request_max_size} bytes")

    async def _linger(self) -> None:
        """Say that nothing more comes, and read on for a moment.

        A socket that is closed over unread bytes is reset, and a client that is still sending may
        lose the answer that tells it why (RFC 9112 section 9.6).
        """
        transport = self.protocol.transport
        if transport is None or transport.is_closing() or not transport.can_write_eof():
            return
        transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while True:
                    self.recv_buffer.clear()
                    await self._receive_more()


class StrictProtocol(HttpProtocol):
    """Sanic's HTTP protocol with the strict reader, for as many clients as there is room for.

    One beyond ``app.ctx.max_connections`` is told so when it asks, or after a moment when it does
    not; one beyond twice the room that is left then is closed without a word. So the descriptors do
    for those who are in, and for the providers.

    A client that ends its side of the connection may still read, or may have left: nobody can tell.
    It has HALF_CLOSED_S to be answered; asyncio would close the connection at once.
    """

    __slots__ = ("has_ended", "is_beyond")
    has_ended: bool
    is_beyond: bool

    HTTP_CLASS = StrictHttp

    def connection_made(self, transport: Any) -> None:
        """Let a client in, or begin to show it out."""
        self.has_ended = False
        beyond = len(self.connections) - self.app.ctx.max_connections
        self.is_beyond = beyond >= 0
        if beyond >= self.app.ctx.spare_connections:
            self.app.ctx.worker.metrics.http_refusal(CLOSED)
            transport.abort()
        super().connection_made(transport)  # type: ignore[no-untyped-call]
        if self.is_beyond:
            self.loop.call_later(LINGER_S, self.close)

    def eof_received(self) -> bool:
        """Keep the way back open for a moment, if anything has come that may be answered."""
        self.has_ended = True
        self._data_received.set()
        if not self.recv_buffer and (self.http is None or self.http.stage is Stage.IDLE):
            return False
        self.loop.call_later(HALF_CLOSED_S, self._end)
        return True

    async def receive_more(self) -> None:
        """Wait for more. A client that has ended has been answered by now, or never will be."""
        received = len(self.recv_buffer)
        if not self.has_ended:
            await super().receive_more()  # type: ignore[no-untyped-call]
        if self.has_ended and len(self.recv_buffer) == received:
            self._end()
            await self.loop.create_future()  # until `connection_lost` ends this task

    def _end(self) -> None:
        """Close, at last without what the client does not read: nothing else would end it."""
        if self.transport is not None:
            self.transport.close()
            self.loop.call_later(LINGER_S, self.abort)
