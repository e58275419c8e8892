"""Connections to others: an idle one for the next question, or a new one."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from app.dial import Dialer, ProxyLoginError, Way, way_to
from app.exchange import (
    Exchange,
    UnheardError,
    UpstreamReply,
    UpstreamUnreachableError,
)
from app.request_head import request_head

IDLE_CONNECTION_S = 60.0
SWEEP_S = 15.0
LOGIN_WANTED = 407


class Sent(Protocol):
    """What is sent: `adapters.base.UpstreamRequest`."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def body(self) -> bytes: ...


class Connections:
    """All connections of one loop; bounded by whoever asks."""

    def __init__(
        self, environ: Mapping[str, str], most_idle: int, *, speaks_tls: bool = False
    ) -> None:
        """``most_idle`` of a kind are kept. Raises as `Dialer`."""
        self._environ = environ
        self._dialer = Dialer(environ, speaks_tls=speaks_tls)
        self._ways: dict[str, Way] = {}
        self._idle = IdleConnections(most_idle)

    async def send(
        self, request: Sent, base_url: str, until: float, again: Callable[[], None]
    ) -> UpstreamReply:
        """Send by a connection that is there, or by a new one; ``until`` on the monotonic clock.

        ``again`` hears that what was sent by an idle connection is sent once more: whether it
        arrived there nobody knows. Raises UpstreamUnreachableError and UnusableReplyError.
        """
        way = self._way(base_url)
        start = request_head(
            request.method, request.url, request.headers, way.login, whole=way.is_whole
        )
        head = b"%bcontent-length: %d\r\n\r\n" % (start, len(request.body))
        connection = self._idle.take(base_url)
        if connection is not None:
            try:
                return await self._ask(base_url, connection, head, request.body, until)
            except UnheardError:  # it was closed while it was idle, or just now
                again()
        try:
            async with asyncio.timeout(_left_s(until)):
                connection = await self._dialer.dial(way)
        except TimeoutError:
            raise UpstreamUnreachableError("no connection in time", timed_out=True) from None
        except ProxyLoginError:
            return UpstreamReply(LOGIN_WANTED, {}, b"")
        return await self._ask(base_url, connection, head, request.body, until)

    async def _ask(
        self, base_url: str, connection: Exchange, head: bytes, body: bytes, until: float
    ) -> UpstreamReply:
        try:
            return await connection.ask(head, body, _left_s(until))
        finally:
            self._idle.put(base_url, connection)

    def _way(self, base_url: str) -> Way:
        way = self._ways.get(base_url)
        if way is None:
            way = self._ways[base_url] = way_to(base_url, self._environ)
        return way

    async def close(self) -> None:
        """Close every connection that is not in use; those in use close when they are free."""
        self._idle.close()
        await asyncio.sleep(0)  # the transports close in the loop's next turn


class IdleConnections:
    """The connections of one worker that nobody uses, ``most`` to an address at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: dict[str, deque[tuple[float, Exchange]]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take(self, base_url: str) -> Exchange | None:
        """Take the connection that was used last."""
        idle = self._idle.get(base_url)
        oldest = time.monotonic() - IDLE_CONNECTION_S
        while idle:
            since, connection = idle.pop()
            if connection.is_free and since > oldest:
                return connection
            connection.abort()
        return None

    def put(self, base_url: str, connection: Exchange) -> None:
        """Keep a connection, or close one that cannot be used again."""
        if not connection.is_done or self._is_closed:
            connection.abort()
            return
        idle = self._idle.setdefault(base_url, deque())
        idle.append((time.monotonic(), connection))
        if len(idle) > self._most:
            idle.popleft()[1].abort()
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Close what has been idle for too long, and forget what the other side has closed."""
        oldest = time.monotonic() - IDLE_CONNECTION_S
        for base_url, idle in list(self._idle.items()):
            while idle and not (idle[0][1].is_free and idle[0][0] > oldest):
                idle.popleft()[1].abort()
            if not idle:
                del self._idle[base_url]
        again = asyncio.get_running_loop().call_later
        self._sweep = again(SWEEP_S, self._sweep_idle) if self._idle else None

    def close(self) -> None:
        """Close all of them, and from now on each that is put here."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for idle in self._idle.values():
            for _, connection in idle:
                connection.abort()
        self._idle.clear()


def _left_s(until: float) -> float:
    return max(until - time.monotonic(), 0.001)
