"""Sink: one JSON line per count, to standard output or a file, written by a thread of its own."""

import os
import select

import orjson

from app.log import logger
from app.telemetry.event import CountEvent
from app.telemetry.line_file import LineFile
from app.telemetry.outbox import MAX_WAITING, Outbox
from app.telemetry.record import record_of
from app.telemetry.sinks import Sampling

FLUSH_EVERY_S = 0.1


class JsonlSink(Outbox):
    """Writes events ten times a second.

    * A reader of standard output that has stopped blocks the writing thread and nothing else.
    * Of the hits that ``sampling`` leaves out, and of what was dropped, a ``records_left_out`` line
      says how many. Dropped are also lines that a full disk does not take.
    """

    def __init__(self, file: LineFile, sampling: Sampling, pseudonym_key: bytes | None) -> None:
        super().__init__("jsonl")
        self._file = file
        self._sampling = sampling
        self._pseudonym_key = pseudonym_key
        self._unwritten = 0
        """Counted by the writing thread alone."""
        self._torn = False
        """The last line ends where the disk was full: the next one begins on its own."""
        self._thread.start()

    def _work(self) -> None:
        try:
            self._file.open()
        except OSError as error:
            logger.error("telemetry.jsonl.path: cannot be opened: %s", error.strerror)
            return
        reported = (0, 0)
        while not self._stop.wait(FLUSH_EVERY_S):
            reported = self._write(reported)
        self._write(reported)
        self._file.close()

    def _write(self, reported: tuple[int, int]) -> tuple[int, int]:
        chunk = bytearray()
        for line in map(self._line, self._take(MAX_WAITING)):
            # All workers share one output: up to PIPE_BUF bytes a write is not torn apart.
            if chunk and len(chunk) + len(line) > select.PIPE_BUF:
                self._unwritten += self._put(chunk)
                chunk = bytearray()
            chunk += line
        self._unwritten += self._put(chunk)
        lost = (self._sampling.left_out, self._dropped + self._unwritten)
        # What could not be told, on a full disk say, is told with what is lost until then.
        told = lost != reported and not self._put(_left_out(lost, reported))
        return lost if told else reported

    def _put(self, chunk: bytes | bytearray) -> int:
        """Write whole lines, and say how many of them could not be written."""
        view = memoryview(chunk)
        if not view:
            return 0
        try:
            with self._file.to_append(len(view)) as (target, is_other):
                if self._torn and not is_other:
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
