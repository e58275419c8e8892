"""Sink: one JSON line per count, to standard output or a file, written by a thread of its own."""

import os
import select
import threading
from collections import deque

import orjson

from app.log import logger
from app.telemetry.event import CountEvent
from app.telemetry.record import record_of
from app.telemetry.sinks import Sampling

MAX_WAITING = 20_000
FLUSH_EVERY_S = 0.1
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class JsonlSink:
    """Buffers events and writes them ten times a second.

    * The event loop only appends to a queue; a reader of standard output that has stopped blocks
      the writing thread and nothing else.
    * Holds at most MAX_WAITING events; more are dropped, counted, and the count is written. So are
      lines that a full disk does not take.
    * Of the hits that ``sampling`` leaves out, and of what was dropped, a ``records_left_out`` line
      says how many.
    """

    def __init__(
        self,
        path: str,
        sampling: Sampling,
        pseudonym_key: bytes | None,
    ) -> None:
        self._path = path
        self._sampling = sampling
        self._pseudonym_key = pseudonym_key
        # Append and popleft are atomic: the loop appends, the thread takes, nobody locks.
        self._waiting: deque[CountEvent] = deque()
        self.dropped = 0
        self._unwritten = 0
        """Counted by the writing thread alone, as the others are by the loop."""
        self._torn = False
        """The last line ends where the disk was full: the next one begins on its own."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_forever, name="jsonl", daemon=True)
        self._thread.start()

    def emit(self, event: CountEvent) -> None:
        """Keep the event for the writer, or drop and count it."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(event)

    def end(self) -> None:
        """Begin to write what is left."""
        self._stop.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for a reader that may have stopped."""
        self._thread.join(timeout_s)

    def _write_forever(self) -> None:
        try:
            target = 1 if self._path == "-" else os.open(self._path, _APPEND, 0o600)
        except OSError as error:
            logger.error("telemetry.jsonl.path: cannot be opened: %s", error.strerror)
            return
        reported = (0, 0)
        while not self._stop.wait(FLUSH_EVERY_S):
            reported = self._write(target, reported)
        self._write(target, reported)
        if target != 1:
            os.close(target)

    def _write(self, target: int, reported: tuple[int, int]) -> tuple[int, int]:
        lines = [self._line(self._waiting.popleft()) for _ in range(len(self._waiting))]
        chunk = bytearray()
        for line in lines:
            # All workers share one output: up to PIPE_BUF bytes a write is not torn apart.
            if chunk and len(chunk) + len(line) > select.PIPE_BUF:
                self._unwritten += self._put(target, chunk)
                chunk = bytearray()
            chunk += line
        self._unwritten += self._put(target, chunk)
        lost = (self._sampling.left_out, self.dropped + self._unwritten)
        # What could not be told, on a full disk say, is told with what is lost until then.
        told = lost != reported and not self._put(target, _left_out(lost, reported))
        return lost if told else reported

    def _put(self, target: int, chunk: bytes | bytearray) -> int:
        """Write whole lines, and say how many of them could not be written."""
        view = memoryview(chunk)
        try:
            if self._torn and view:
                os.write(target, b"\n")
                self._torn = False
            while view:
                view = view[os.write(target, view) :]
        except OSError:
            written = len(chunk) - len(view)
            self._torn = self._torn or (written > 0 and chunk[written - 1 : written] != b"\n")
            return bytes(view).count(b"\n")
        return 0

    def _line(self, event: CountEvent) -> bytes:
        record = record_of(event, self._pseudonym_key)
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _left_out(lost: tuple[int, int], reported: tuple[int, int]) -> bytes:
    hits, dropped = lost[0] - reported[0], lost[1] - reported[1]
    record = {"event": "records_left_out", "hits": hits, "dropped": dropped}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
