"""Events on their way out: kept in a bounded queue until a thread of the sink's own takes them."""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator

from app.telemetry.event import CountEvent

MAX_WAITING = 20_000
AT_ONCE, PAUSE_S = 64, 0.001
"""How many events a thread works on before it lets the loop have the interpreter."""


class Outbox(ABC):
    """The loop's side of a sink that has a thread: it appends, or drops and counts; it never waits.

    A sink gives it ``_work``, which runs in the thread until ``_stop`` is set, and hands on what is
    left then.
    """

    max_waiting: int | None = None
    """MAX_WAITING, where a sink has no reason for another number."""

    def __init__(self, name: str) -> None:
        # Append and popleft are atomic: the loop appends, the thread takes, nobody locks.
        self._waiting: deque[CountEvent] = deque()
        self._dropped = 0
        """Counted by the loop alone."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def emit(self, event: CountEvent) -> None:
        """Keep the event for the thread, or drop and count it."""
        if len(self._waiting) >= (self.max_waiting or MAX_WAITING):
            self._dropped += 1
            return
        self._waiting.append(event)

    def end(self) -> None:
        """Begin to end: the thread hands on what is left."""
        self._stop.set()

    def wait(self, timeout_s: float) -> None:
        """Wait until it has; whoever hangs is left."""
        self._thread.join(timeout_s)

    def _take(self, most: int) -> list[CountEvent]:
        """Take the oldest that wait."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    @abstractmethod
    def _work(self) -> None:
        """Hand on what waits, until ``_stop`` is set and nothing is left."""


def gently(events: Iterable[CountEvent]) -> Iterator[CountEvent]:
    """Give one event after the other, and pause now and then.

    A thread that goes on computing gives the interpreter back only 5 ms after the loop has asked
    for it, and so does the next sink's: with four sinks the loop stood still for 100 ms.
    """
    for number, event in enumerate(events, 1):
        yield event
        if not number % AT_ONCE:
            time.sleep(PAUSE_S)
