"""Whom is told of a count, and of which counts: the metrics of all, the other sinks of a sample."""

import time
from typing import Protocol

from msgspec.structs import replace

from app.log import logger
from app.telemetry.event import CountEvent
from app.telemetry.metrics import Metrics


class Sink(Protocol):
    """Takes events; never blocks, never awaits, drops and counts when it cannot keep up."""

    def emit(self, event: CountEvent) -> None: ...

    def close(self) -> None: ...


class Sampling:
    """Lets one in so many hits be told by itself, some ``per_s`` a second; counts the others.

    How many a record stands for, ``every``, follows what came in the second before, and grows at
    once when more come than that. So at most some twenty records more than ``per_s`` are told.
    """

    __slots__ = ("_ends_s", "_per_s", "_seen", "_taken", "every", "left_out")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._ends_s = 0.0
        self._seen = self._taken = 0
        self.every = 1
        self.left_out = 0

    def takes(self, now_s: float) -> bool:
        """Say whether a hit at ``now_s``, on one monotonic clock, is told by itself."""
        if now_s >= self._ends_s:
            self._begin(now_s)
        self._seen += 1
        if self._taken >= self._per_s and not self._seen % self.every:
            self.every *= 2
        if self._seen % self.every or not self._per_s:
            self.left_out += 1
            return False
        self._taken += 1
        return True

    def _begin(self, now_s: float) -> None:
        self.every = max(-(-self._seen // max(self._per_s, 1)), 1)
        self._ends_s = now_s + 1.0
        self._seen = self._taken = 0


class Telemetry:
    """Counts each event, and hands it to every sink; of hits to these only so many a second.

    A sink that raises costs a log line, never a count.
    """

    def __init__(self, metrics: Metrics, sinks: tuple[Sink, ...], sampling: Sampling) -> None:
        self._metrics = metrics
        self._sinks = sinks
        self._sampling = sampling
        self._failed: set[str] = set()

    def emit(self, event: CountEvent) -> None:
        """Tell of one count."""
        self._metrics.emit(event)
        if event.source != "cache":
            self.record(event)
        elif self._sampling.takes(time.monotonic()):
            self.record(replace(event, one_of=self._sampling.every))

    def record(self, event: CountEvent) -> None:
        """Tell the sinks of a count that the metrics have: no event is made of most hits."""
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception as error:  # noqa: BLE001 -- telemetry never fails a count
                self._report(sink, error)

    def close(self) -> None:
        """Let every sink write what it still holds."""
        for sink in self._sinks:
            sink.close()

    def _report(self, sink: Sink, error: Exception) -> None:
        name = type(sink).__name__
        if name not in self._failed:
            self._failed.add(name)
            logger.error("telemetry: %s fails with %s", name, type(error).__name__)
