"""Connections to providers that wait for their next question."""

import asyncio
import time
from collections import deque

from app.dial import Way
from app.exchange import Exchange

IDLE_CONNECTION_S = 60.0
SWEEP_S = 15.0


class IdleConnections:
    """The connections of one worker that nobody uses, ``most`` of a kind at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: dict[Way, deque[tuple[float, Exchange]]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take(self, way: Way) -> Exchange | None:
        """Take the connection that was used last."""
        idle = self._idle.get(way)
        oldest = time.monotonic() - IDLE_CONNECTION_S
        while idle:
            since, connection = idle.pop()
            if connection.is_free and since > oldest:
                return connection
            connection.abort()
        return None

    def put(self, way: Way, connection: Exchange) -> None:
        """Keep a connection, or close one that cannot be used again."""
        if not connection.is_free or self._is_closed:
            connection.abort()
            return
        idle = self._idle.setdefault(way, deque())
        idle.append((time.monotonic(), connection))
        if len(idle) > self._most:
            idle.popleft()[1].abort()
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Close what has been idle for too long, and forget what the other side has closed."""
        oldest = time.monotonic() - IDLE_CONNECTION_S
        for way, idle in list(self._idle.items()):
            while idle and not (idle[0][1].is_free and idle[0][0] > oldest):
                idle.popleft()[1].abort()
            if not idle:
                del self._idle[way]
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
