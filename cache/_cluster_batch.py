"""Commands that are asked at the same time travel together.

    10 ask in one turn of the loop ── one write, ten replies ── each gets its own
    1 asks alone ──────────────────── goes at once

One connection per command would cost ten times as much of this process's time, so that a burst of
cold keys would look like a server that does not answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ResponseError

from cache.breaker import Breaker
from cache.deadline import Deadline

CONNECTIONS = 4
"""Batches that are out at the same time."""
MAX_BATCH = 128


class LostError(Exception):
    """The batch brought no replies. It is counted already, once for all its commands."""


class BatchingRedis(Redis):
    """A client whose commands travel in batches; each batch has its own deadline.

    Whoever stops waiting for a reply harms nobody: the batch goes on. A batch whose time is over
    takes its connection with it (redis-py closes what was cut off), so that a late reply cannot be
    read as the answer to another question.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        timeout_s: float,
        breaker: Breaker,
        lost: Callable[[Exception, float], None],
    ) -> None:
        """``lost`` hears of each batch that failed, and when it had taken off."""
        super().__init__(connection_pool=pool)
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._lost = lost
        self._waiting: deque[_Waiting] = deque()
        self._flying = 0
        self._flights: set[asyncio.Task[None]] = set()
        self._out: dict[int, float] = {}

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the reply. Raises the server's error, or LostError."""
        return await _answer(self._board(args, options))

    async def execute_together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Return the replies of several commands; raises as ``execute_command`` does."""
        replies = [self._board(args, {}) for args in commands]
        return [await _answer(reply) for reply in replies]

    def _board(self, args: tuple[Any, ...], options: dict[str, Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((args, options, reply))
        # Counted by hand: a task's own end is heard of only after those whom it has woken go on.
        if self._flying < CONNECTIONS:
            self._flying += 1
            flight = loop.create_task(self._fly())
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)
        return reply

    async def _fly(self) -> None:
        while batch := self._take():
            began = self._out[id(batch)] = self._breaker.now()
            try:
                async with Deadline(self._timeout_s):
                    replies = await self._exchange(batch)
            except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait must hear
                if not all(waiting.done() for _, _, waiting in batch):
                    self._lost(error, began)
            else:
                for (_, _, waiting), reply in zip(batch, replies, strict=True):
                    if not waiting.done():
                        waiting.set_result(reply)
            finally:
                del self._out[id(batch)]
                _give_up(batch)
                if self._breaker.is_open:
                    _give_up(self._waiting)
                    self._waiting.clear()
        self._flying -= 1

    def _take(self) -> "list[_Waiting]":
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < MAX_BATCH:
            waiting = self._waiting.popleft()
            if not waiting[2].done():  # else its deadline has passed here
                batch.append(waiting)
        return batch

    def is_silent(self) -> bool:
        """Say whether a batch has been out for longer than any that is merely one of many."""
        late = self._breaker.now() - self._timeout_s / 2
        return any(began < late for began in self._out.values())

    async def _exchange(self, batch: "list[_Waiting]") -> list[Any]:
        if len(batch) == 1:  # the usual case, at half the price of a pipeline
            args, options, _ = batch[0]
            alone: Any = super().execute_command
            try:
                return [await alone(*args, **options)]
            except ResponseError as error:
                return [error]
        async with self.pipeline(transaction=False) as pipe:
            for args, options, _ in batch:
                pipe.execute_command(*args, **options)
            return await pipe.execute(raise_on_error=False)

    async def close_flights(self) -> None:
        """End what is out; whoever waits hears LostError."""
        flights = list(self._flights)
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)
        _give_up(self._waiting)
        self._waiting.clear()


_Waiting = tuple[tuple[Any, ...], dict[str, Any], asyncio.Future[Any]]


async def _answer(reply: asyncio.Future[Any]) -> Any:
    # An exception travels as a value: one that nobody waits for any more is no one's concern.
    answer = await reply
    if isinstance(answer, Exception):
        raise answer
    return answer


def _give_up(waiting: "deque[_Waiting] | list[_Waiting]") -> None:
    for _, _, reply in waiting:
        if not reply.done():
            reply.set_result(LostError())
