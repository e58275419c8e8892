"""Whom is told of a count, and of which counts: the metrics of all, the other sinks of a sample."""

import time
from typing import Protocol

from app.log import logger
from app.telemetry.event import CountEvent
from app.telemetry.metrics import Metrics


class Sink(Protocol):
    """Takes events; never blocks, never awaits, drops and counts when it cannot keep up."""

    def emit(self, event: CountEvent) -> None: ...

    def close(self) -> None: ...


class Sampling:
    """Lets so many hits a second be told one by one, and counts those that are left out."""

    __slots__ = ("_ends_s", "_left", "_per_s", "left_out")

    def __init__(self, hit_records_per_s: int) -> None:
        self._per_s = hit_records_per_s
        self._left = 0
        self._ends_s = 0.0
        self.left_out = 0

    def takes(self, now_s: float) -> bool:
        """Say whether a hit at ``now_s``, on one monotonic clock, is told by itself."""
        if now_s >= self._ends_s:
            self._ends_s, self._left = now_s + 1.0, self._per_s
        if self._left:
            self._left -= 1
            return True
        self.left_out += 1
        return False


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
        if event.source != "cache" or self._sampling.takes(time.monotonic()):
            self.record(event)

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
