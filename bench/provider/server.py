"""Where the simulated provider listens: in the running loop, or in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import msgspec
import uvloop

from bench.provider.behaviour import Behaviour
from bench.provider.connection import Connection
from bench.provider.control import PREFIX, control
from bench.provider.exchange import Delivery, Request
from bench.provider.simulation import Simulation

_T = TypeVar("_T")


async def serve(
    simulation: Simulation,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    listening: Callable[[str], object],
    connections: set[Connection] | None = None,
) -> None:
    """Serve until ``stop`` is set; ``listening`` is called once with the URL.

    ``connections`` are those that are open, for who wants to end them.
    """

    def answer(request: Request) -> Delivery:
        if request.target.startswith(PREFIX):
            reply = control(simulation, request).rendered(keep_alive=request.keep_alive)
            return Delivery(reply, close=not request.keep_alive)
        return simulation.answer(request)

    connections = set() if connections is None else connections
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(answer, connections), host, port, backlog=1024
    )
    try:
        listening(f"http://{host}:{server.sockets[0].getsockname()[1]}")
        await stop.wait()
    finally:
        server.close()
        await asyncio.sleep(0)  # a connection accepted a moment ago is made known
        while connections:
            for connection in list(connections):
                connection.abort()
            await asyncio.sleep(0)


class SimulatedProvider:
    """A simulated provider in a thread of this process, for use in a ``with`` statement.

    Its methods may be called from any thread, also after the ``with`` has ended. What a client has
    had an answer to is in ``requests``.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._address = host, port
        self._simulation = Simulation()
        self._stop = asyncio.Event()
        self._connections: set[Connection] = set()
        self._loop: asyncio.AbstractEventLoop
        self._url: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, name="simulated provider", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._url.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        host, port = self._address
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                runner.run(
                    serve(
                        self._simulation,
                        host,
                        port,
                        stop=self._stop,
                        listening=self._url.set_result,
                        connections=self._connections,
                    )
                )
        except OSError as error:
            self._url.set_exception(error)
        finally:
            self._url.cancel()  # whatever else went wrong, nobody waits for ever

    @property
    def url(self) -> str:
        """The base URL, ``http://127.0.0.1:PORT``."""
        return self._url.result()

    @property
    def requests(self) -> list[Request]:
        """The recorded requests, oldest first."""
        return self._in_loop(lambda: list(self._simulation.requests))

    @property
    def calls(self) -> int:
        """How many requests have arrived since the start or the last ``clear``."""
        return self._in_loop(lambda: self._simulation.calls)

    def stats(self) -> dict[str, Any]:
        """See ``Simulation.stats``."""
        return self._in_loop(self._simulation.stats)

    def clear(self) -> None:
        """Forget requests, numbers and behaviours: back to normal."""
        self._in_loop(self._simulation.clear)

    def hang_up(self) -> None:
        """End every connection: what is asked next comes by a new one."""

        def end() -> None:
            for connection in list(self._connections):
                connection.abort()

        self._in_loop(end)

    def behave(self, **fields: Any) -> None:
        """Queue a ``Behaviour``; ``raw`` may be bytes. Raises msgspec.ValidationError."""
        if isinstance(raw := fields.get("raw"), bytes):
            fields["raw"] = raw.decode("latin-1")
        behaviour = msgspec.convert(fields, Behaviour)
        self._in_loop(lambda: self._simulation.behave(behaviour))

    def _in_loop(self, function: Callable[[], _T]) -> _T:
        """Call where the requests are handled, so that nothing changes meanwhile."""
        if not self._thread.is_alive():
            return function()

        async def call() -> _T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()
