"""Listening sockets: one per worker, opened once by the main process and outliving every worker.

With one shared socket the worker that wakes first takes all that waits. With SO_REUSEPORT the
kernel spreads connections over the sockets. The main process keeps every socket open, so what
waits in a dead worker's queue is served by its successor.
"""

import asyncio
import contextlib
import os
import socket
from functools import partial
from typing import Any

import uvloop

from app.process_life.board import own_name, worker_number
from app.process_life.sanic_inside import Connections, handed_over

BACKLOG = 1024
LET_GO_S = 0.02
SOCKETS = "listening"

Sockets = tuple[socket.socket, ...]


def listen(host: str, port: int, count: int) -> Sockets:
    """Open ``count`` sockets on one address. Raises OSError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    first = _bind(family, (host, port), share=False)
    if count == 1:
        first.listen(BACKLOG)
        return (first,)
    # Bound alone first: with SO_REUSEPORT a second server would take half of our connections, and
    # neither would know.
    address = first.getsockname()
    first.close()
    sockets = tuple(_bind(family, address, share=True) for _worker in range(count))
    for one in sockets:
        one.listen(BACKLOG)
    return sockets


def _bind(family: int, address: tuple[Any, ...], *, share: bool) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(True)
    return sock


class Listener:
    """A server's open ear and its connections, in a worker."""

    def __init__(
        self,
        server: asyncio.Server,
        factory: partial[asyncio.Protocol],
        ssl: Any,
    ) -> None:
        self._server = server
        self._factory = factory
        self._ssl = ssl
        self.connections = Connections(factory)

    def close(self) -> None:
        """Leave what waits in the queue to the others who hold the socket."""
        self._server.close()

    async def close_after_all(self) -> None:
        """Take what waits in the queue, and close: nobody else holds the socket.

        A connection that waits when the last holder closes is reset. A duplicate keeps the socket
        alive while the loop lets go of it, which takes it some turns; then the last look at the
        queue and the end stand side by side:

        loop       close ─ … ─ let go
        duplicate  ═══ connections may still come ═══ accept … accept, none left ─ close
        """
        queues = []
        with contextlib.suppress(OSError):  # out of descriptors
            for one in self._server.sockets:
                queues.append(socket.socket(fileno=os.dup(one.fileno())))  # noqa: PERF401
        self._server.close()
        await asyncio.sleep(LET_GO_S)
        for queue in queues:
            await self._take_over(queue)

    async def _take_over(self, queue: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        taken = []
        queue.settimeout(0)
        with contextlib.suppress(OSError):  # BlockingIOError: the queue is empty
            while True:
                taken.append(queue.accept()[0])
        queue.close()
        for one in taken:
            one.settimeout(0)
            with contextlib.suppress(OSError):  # it has gone meanwhile
                await loop.connect_accepted_socket(self._factory, one, ssl=self._ssl)


class ServingLoop(uvloop.Loop):
    """A loop that listens on the worker's own socket, and remembers the listener.

    Sanic keeps its server in a local variable; a drain must close the ear first and the
    connections one by one.
    """

    listener: Listener | None = None

    async def create_server(self, protocol_factory: Any, *arguments: Any, **options: Any) -> Any:
        """Create a server as asked, on this worker's socket where there is one per worker."""
        is_sanics = isinstance(protocol_factory, partial) and self.listener is None
        if is_sanics and options.get("sock") is not None:
            sockets: Sockets = handed_over(protocol_factory.keywords["app"], SOCKETS) or ()
            options["sock"] = _own(sockets, options["sock"])
        server: Any = await super().create_server(protocol_factory, *arguments, **options)
        if is_sanics:
            self.listener = Listener(server, protocol_factory, options.get("ssl"))
        return server


def _own(sockets: Sockets, given: socket.socket) -> socket.socket:
    """Choose this worker's socket, and close the others: who closes last resets what waits."""
    own = sockets[worker_number(own_name()) % len(sockets)] if len(sockets) > 1 else given
    for one in {*sockets, given} - {own}:
        one.close()
    return own


class LoopPolicy(uvloop.EventLoopPolicy):  # type: ignore[misc]  # made at run time
    """Makes loops that remember their listener."""

    def new_event_loop(self) -> uvloop.Loop:
        return ServingLoop()
