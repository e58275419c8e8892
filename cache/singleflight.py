"""One flight per key in this worker: the first to ask leads, the others wait for its landing.

    A asks k ── no flight ── leads: a task of its own ───────────────► lands ── A, B answered
    B asks k ────── joins, shielded ── A's client hangs up: B and the task do not notice

The leader's work is a task, not the first caller's coroutine: cancelling any caller cancels only
that caller's wait.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from msgspec import Struct

Landing = TypeVar("Landing")


SMALL_BYTES = 64 * 1024
"""Questions up to this size are asked however much large ones weigh."""


class CrowdedError(Exception):
    """As many callers wait, or as many flights are out or as heavy, as the bounds allow."""


class Patience(Struct, frozen=True, gc=False):
    """When a caller asks itself whether to wait on, since it has something else to answer with."""

    seconds: float
    is_over: Callable[[], bool]


class SingleFlight(Generic[Landing]):
    """Share the result of one piece of work among all who ask for it at the same time.

    * ``lead`` returns its failures as values; each caller raises its own exception from them.
    * Each caller waits at most its own ``wait_s`` (TimeoutError); the work goes on without it.
    * The flight is gone the moment it has landed: nothing is remembered here.
    * What a flight carries is held until then, though all who asked have left: ``max_bytes``.
    """

    def __init__(
        self,
        max_flights: int = 10_000,
        max_waiters: int = 100_000,
        max_bytes: int = 536_870_912,
    ) -> None:
        self._max_flights = max_flights
        self._max_waiters = max_waiters
        self._max_bytes = max_bytes
        self._bytes = 0
        self._flights: dict[Hashable, asyncio.Task[Landing]] = {}
        self._waiters = 0

    async def join(
        self,
        key: Hashable,
        lead: Callable[[], Coroutine[Any, Any, Landing]],
        wait_s: float,
        patience: Patience | None = None,
        size_bytes: int = 0,
    ) -> tuple[Landing, bool]:
        """Return the landing, and whether this caller led.

        Raises TimeoutError after ``wait_s`` seconds, or earlier where the caller's patience ends;
        CrowdedError at the bounds, and whatever ``lead`` raised that it should have returned.
        """
        if self._waiters >= self._max_waiters:
            raise CrowdedError
        task = self._flights.get(key)
        leads = task is None
        if task is None:
            task = self._take_off(key, lead, size_bytes)
        self._waiters += 1
        try:
            if patience is not None and patience.seconds < wait_s:
                early_s = max(patience.seconds, 0.0)
                if not await _landed(task, early_s) and patience.is_over():
                    raise TimeoutError
                wait_s -= early_s
            if not await _landed(task, wait_s):
                raise TimeoutError
            return task.result(), leads
        finally:
            self._waiters -= 1

    def _take_off(
        self, key: Hashable, lead: Callable[[], Coroutine[Any, Any, Landing]], size_bytes: int
    ) -> asyncio.Task[Landing]:
        is_heavy = size_bytes > SMALL_BYTES and self._bytes + size_bytes > self._max_bytes
        if len(self._flights) >= self._max_flights or (is_heavy and self._bytes):
            raise CrowdedError

        def land(task: asyncio.Task[Landing]) -> None:
            del self._flights[key]
            self._bytes -= size_bytes
            # Look at the exception even when every waiter has left: none is reported unseen.
            if not task.cancelled():
                task.exception()

        task = asyncio.get_running_loop().create_task(lead())
        # Added before any waiter's own callback, so it runs before any of them goes on.
        task.add_done_callback(land)
        self._flights[key] = task
        self._bytes += size_bytes
        return task

    async def close(self) -> None:
        """Cancel what is still out and wait until it is down."""
        tasks = list(self._flights.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def __repr__(self) -> str:
        return f"<SingleFlight: {len(self._flights)} flights, {self._waiters} waiting>"


async def _landed(task: asyncio.Task[Any], wait_s: float) -> bool:
    """Wait until a flight has landed, or for so long; its end is not this caller's.

    `asyncio.wait` does the same in three times the steps.
    """
    if task.done():
        return True
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def wake(_task: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    task.add_done_callback(wake)
    timer = loop.call_later(wait_s, wake)
    try:
        await woken
    finally:
        timer.cancel()
        task.remove_done_callback(wake)
    return task.done()
