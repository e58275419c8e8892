"""Whom is told of a count, and of which: metrics and ledger of all, the others of a sample."""

import time
from typing import Protocol

from msgspec.structs import replace

from app.log import logger
from app.telemetry.event import CountEvent
from app.telemetry.metrics import Metrics
from app.telemetry.usage import Usage

ENDS_S = 1.5


class Sink(Protocol):
    """Takes events; never blocks, never awaits, drops and counts when it cannot keep up."""

    def emit(self, event: CountEvent) -> None: ...

    def end(self) -> None:
        """Begin to end: hand on what is left. Does not wait."""

    def wait(self, timeout_s: float) -> None:
        """Wait until that is done, or is left."""


class Sampling:
    """Lets one in so many hits be told by itself, some ``per_s`` a second; counts the others.

    How many are passed over follows what came in the second before, and grows at once when more
    come than that: some twenty records more than ``per_s`` are told in a second at most.
    """

    __slots__ = ("_ends_s", "_every", "_per_s", "_seen", "_since", "_taken", "left_out")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._ends_s = 0.0
        self._seen = self._taken = self._since = 0
        self._every = 1
        self.left_out = 0

    def takes(self, now_s: float) -> int:
        """Say for how many hits this one is told, itself and those passed over; 0: it is not.

        ``now_s`` is on one monotonic clock.
        """
        if now_s >= self._ends_s:
            self._begin(now_s)
        self._seen += 1
        self._since += 1
        if self._taken >= self._per_s and not self._seen % self._every:
            self._every *= 2
        if self._seen % self._every or not self._per_s:
            self.left_out += 1
            return 0
        self._taken += 1
        stands_for, self._since = self._since, 0
        return stands_for

    def _begin(self, now_s: float) -> None:
        is_next = now_s < self._ends_s + 1.0
        self._every = max(-(-self._seen // max(self._per_s, 1)), 1) if is_next else 1
        self._ends_s = now_s + 1.0
        self._seen = self._taken = 0


class Telemetry:
    """Counts each event, and hands it to every sink; of hits to these only so many a second.

    A sink that raises costs a log line, never a count.
    """

    def __init__(
        self,
        metrics: Metrics,
        sinks: tuple[Sink, ...],
        sampling: Sampling,
        usage: Usage | None = None,
    ) -> None:
        self._metrics = metrics
        self._usage = usage
        self._sinks = sinks
        self._sampling = sampling
        self._failed: set[str] = set()

    def emit(self, event: CountEvent) -> None:
        """Tell of one count."""
        self._metrics.emit(event)
        if self._usage is not None:
            self._usage.emit(event)
        if event.source != "cache":
            self.record(event)
        elif one_of := self._sampling.takes(time.monotonic()):
            self.record(replace(event, one_of=one_of))

    def record(self, event: CountEvent) -> None:
        """Tell the sinks of a count that metrics and ledger have: most hits are no event."""
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception as error:  # noqa: BLE001 -- telemetry never fails a count
                self._report(sink, error)

    def close(self) -> None:
        """Let every sink hand on what it still holds, all within ENDS_S."""
        until = time.monotonic() + ENDS_S
        ending = self._sinks if self._usage is None else (*self._sinks, self._usage)
        for sink in ending:
            sink.end()
        for sink in ending:
            sink.wait(max(until - time.monotonic(), 0.0))

    def _report(self, sink: Sink, error: Exception) -> None:
        name = type(sink).__name__
        if name not in self._failed:
            self._failed.add(name)
            logger.error("telemetry: %s fails with %s", name, type(error).__name__)
