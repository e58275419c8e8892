"""Sink: one JSON line per count, to standard output or a file, written by a thread of its own."""

import hashlib
import hmac
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import orjson

from app.log import logger
from app.telemetry.event import CountEvent

MAX_WAITING = 20_000
FLUSH_EVERY_S = 0.1


class JsonlSink:
    """Buffers events and writes them ten times a second.

    * The event loop only appends to a queue; a reader of standard output that has stopped blocks
      the writing thread and nothing else.
    * Holds at most MAX_WAITING events; more are dropped, counted, and the count is written.
    * Hits beyond ``hit_records_per_s`` are left out; each line of a thinned-out second states
      how many hits stand for it in ``sampled``.
    """

    def __init__(
        self,
        path: str,
        hit_records_per_s: int,
        pseudonym_key: bytes | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._hits_per_s = hit_records_per_s
        self._pseudonym_key = pseudonym_key
        self._clock = clock
        # Append and popleft are atomic: the loop appends, the thread takes, nobody locks.
        self._waiting: deque[CountEvent] = deque()
        self._second = 0
        self._hits = 0
        self.left_out = 0
        self.dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_forever, name="jsonl", daemon=True)
        self._thread.start()

    def emit(self, event: CountEvent) -> None:
        """Keep the event for the writer, or drop and count it."""
        if event.source == "cache" and not self._within_rate():
            self.left_out += 1
            return
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(event)

    def close(self) -> None:
        """Write what is left; wait at most a second for a reader that has stopped."""
        self._stop.set()
        self._thread.join(timeout=1)

    def _within_rate(self) -> bool:
        second = int(self._clock())
        if second != self._second:
            self._second, self._hits = second, 0
        self._hits += 1
        return self._hits <= self._hits_per_s

    def _write_forever(self) -> None:
        reported = (0, 0)
        try:
            with self._open() as out:
                while not self._stop.wait(FLUSH_EVERY_S):
                    reported = self._write(out, reported)
                self._write(out, reported)
        except OSError as error:
            logger.error("telemetry.jsonl.path: cannot be opened: %s", error.strerror)

    def _open(self) -> AbstractContextManager[BinaryIO]:
        if self._path == "-":
            return nullcontext(sys.stdout.buffer)
        return Path(self._path).open("ab")

    def _write(self, out: BinaryIO, reported: tuple[int, int]) -> tuple[int, int]:
        waiting = self._waiting
        lines = [self._line(waiting.popleft()) for _ in range(len(waiting))]
        counts = len(lines)
        lost = (self.left_out, self.dropped)
        if lost != reported:
            lines.append(
                orjson.dumps(
                    {
                        "event": "records_left_out",
                        "sampled_hits": lost[0] - reported[0],
                        "dropped": lost[1] - reported[1],
                    }
                )
            )
        if lines:
            try:
                out.write(b"\n".join(lines) + b"\n")
                out.flush()
            except OSError:
                self.dropped += counts
        return lost

    def _line(self, event: CountEvent) -> bytes:
        record = {"event": "count"}
        for name in event.__struct_fields__:
            value = getattr(event, name)
            if value:
                record[name] = value
        if self._pseudonym_key and event.end_user:
            record["end_user"] = pseudonym(self._pseudonym_key, event.end_user)
        return orjson.dumps(record)


def pseudonym(key: bytes, end_user: str) -> str:
    """Replace an end user's id by one that only this installation can tell."""
    return hmac.new(key, end_user.encode(), hashlib.sha256).hexdigest()[:24]
