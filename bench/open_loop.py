"""The open loop: questions fall due at a constant rate, whether or not the server keeps up."""

import asyncio
import time
from collections import deque

from bench.histogram import Histogram
from bench.slice import Connection, Load, Slice


class OpenSlice(Slice):
    """A latency counts from when the question was due.

    So a server that pauses answers for all that fell due in its pause, not just for what was
    outstanding when it began.
    """

    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._step_ns = round(1e9 / load.rate)
        self._next_ns = 0
        self._measured_ns = 0
        self._free: list[Connection] = []
        self._backlog: deque[int] = deque()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin, with all connections free."""
        self._free = list(self.open)
        self._next_ns = time.perf_counter_ns()
        self._tick()

    def measure(self) -> Histogram:
        """Record what is due from now on."""
        self._measured_ns = time.perf_counter_ns()
        return super().measure()

    def answered(self, connection: Connection, now_ns: int) -> None:
        """Count a right answer; ask what waits for a connection."""
        self.answers += 1
        if connection.due_ns >= self._measured_ns:
            self._record(now_ns - connection.due_ns)
        if self._backlog:
            connection.ask(self._backlog.popleft())
        elif self.is_asking:
            self._free.append(connection)
        else:
            self.leave(connection)

    async def finish(self) -> None:
        """Let the free connections go, and wait for the rest and what is due."""
        self.is_asking = False
        while self._free:
            self.leave(self._free.pop())
        await super().finish()

    def _tick(self) -> None:
        """Ask what is due. It spins: the loop's timers are too coarse by a millisecond."""
        if not self.is_asking:
            return
        now_ns = time.perf_counter_ns()
        while self._next_ns <= now_ns:
            if self._free:
                self._free.pop().ask(self._next_ns)
            else:
                self._backlog.append(self._next_ns)
            self._next_ns += self._step_ns
        self._loop.call_soon(self._tick)
