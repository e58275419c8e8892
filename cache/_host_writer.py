"""The one thread of a process that writes to the host tier's file.

    put ─► bounded queue ─► batch ─► BEGIN IMMEDIATE … COMMIT ─► after(True)
             │ full                     │ busy for a second, disk full, file bad …
             └─► dropped                └─► after(False); away ── 0.1 … 5 s ──► opened again

Whatever waits, for a lock, a checkpoint or the disk, waits in this thread.
"""

import contextlib
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import NamedTuple

from cache._host_bounds import bound_log, make_room
from cache._host_file import PAGE_BYTES, HostFile
from cache._host_put import Row, put
from cache._private import HostFileError
from cache._sqlite import POLL_S, FileBusyError, code_of, is_busy, is_corrupt, transaction

QUEUE_ENTRIES = 10_000
QUEUE_BYTES = 16 * 2**20
BATCH_ENTRIES = 500
BATCH_BYTES = 2**18
BATCH_S = 0.02
URGENT_S = 0.01
"""Between two transactions, though somebody may wait for the second: one for each write would take
as long as asking the provider. After a pause the first is not held up."""
WATCH_S = 1.0
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 5.0
CLOSE_S, INTERRUPT_S = 2.0, 0.5
SPARE_PAGES = 32

Outcome = int | Exception
"""Rows changed, or why nothing was."""


class Job(NamedTuple):
    """One write. ``run`` returns how many rows it changed; ``done`` must not block."""

    run: Callable[[sqlite3.Connection], int] | Row
    """What to do; a row is put."""
    size_bytes: int = 0
    done: Callable[[Outcome], None] | None = None


class HostWriter:
    """Queues jobs from any thread, and does them in batches in its own.

    ``errors`` counts failed batches, look-ups and attempts to open; ``dropped`` counts jobs.
    """

    def __init__(self, file: HostFile) -> None:
        self.dropped = 0
        self.errors = 0
        self.trouble: Exception | None = None
        self._file = file
        self._queue: deque[Job] = deque()
        self._queued_bytes = 0
        self._urgent = 0
        self._closing = False
        self._close_by = math.inf
        self._bell = threading.Condition()
        self._retry_s = 0.0
        self._retry_at = 0.0
        self._watch_at = 0.0
        self._wrote_at = 0.0
        self._thread = threading.Thread(target=self._work, name="host-cache", daemon=True)

    def start(self) -> None:
        """Open the file here and now, then start the thread. Raises HostFileError.

        The thread is started either way, and goes on trying.
        """
        try:
            self._file.open()
        except HostFileError as error:
            self._go_away(error)
            raise
        finally:
            self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether there is a thread to do what is queued."""
        return self._thread.is_alive()

    def submit(self, job: Job, *, bounded: bool = True) -> bool:
        """Queue a job; False, and ``done`` called at once, when it is dropped instead."""
        with self._bell:
            full = bounded and (
                len(self._queue) >= QUEUE_ENTRIES
                or self._queued_bytes + job.size_bytes > QUEUE_BYTES
            )
            takes = not full and self.alive and not self._closing
            if takes:
                self._queue.append(job)
                self._queued_bytes += job.size_bytes
                self._urgent += job.done is not None
                # Each bell costs the loop a turn of the interpreter: one for all that are urgent.
                first = job.done is not None and self._urgent == 1
                if first or len(self._queue) in {1, BATCH_ENTRIES}:
                    self._bell.notify()
        if not takes:
            self._drop(job, HostFileError("the queue is full" if full else "not open"))
        return takes

    def report(self, error: Exception) -> None:
        """Hear of a failed look-up: a bad file is not read again, and is replaced."""
        self.errors += 1
        if is_busy(error):
            return
        self._file.stop_reading()
        with self._bell:
            if self.trouble is None or is_corrupt(error):
                self.trouble = error
            self._bell.notify()

    def close(self) -> None:
        """Write what is queued, for CLOSE_S at most, and close the file. Never raises."""
        with self._bell:
            self._closing = True
            self._close_by = time.monotonic() + CLOSE_S
            self._bell.notify()
        if not self._thread.is_alive():
            self._file.close()
            return
        self._thread.join(CLOSE_S)
        writer = self._file.writer
        if writer is not None:  # The thread is still at it.
            with contextlib.suppress(sqlite3.Error):
                writer.interrupt()
            self._thread.join(INTERRUPT_S)

    @property
    def _is_away(self) -> bool:
        return self.trouble is not None and not is_busy(self.trouble)

    def _work(self) -> None:
        while (batch := self._gather()) is not None:
            self._watch()
            if self._is_away:
                self._heal()
            if self._is_away or (self._closing and time.monotonic() > self._close_by):
                self._fail(batch, self.trouble or FileBusyError("closing"))
            elif self._file.writer and (batch or self.trouble is not None):
                self._write(batch, self._file.writer)
            if len(batch) == BATCH_ENTRIES:
                # Others look for the end of a transaction every POLL_S: let them see this one.
                time.sleep(2 * POLL_S)
        with contextlib.suppress(sqlite3.Error):
            if self._file.writer is not None:
                self._file.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._file.close()

    def _gather(self) -> list[Job] | None:
        """Wait for jobs, and then a little for more; none of them once in a while, None to end."""
        with self._bell:
            if not self._queue and not self._closing:
                self._bell.wait(self._idle_s())
            if self._queue and not self._urgent:
                self._bell.wait_for(self._batch_is_due, BATCH_S)
            closing = self._closing
        pause_s = self._wrote_at + URGENT_S - time.monotonic()
        if self._urgent and not closing and pause_s > 0:
            time.sleep(pause_s)
        return self._take(BATCH_ENTRIES, BATCH_BYTES) or (None if closing else [])

    def _take(self, most: int, most_bytes: int) -> list[Job]:
        """Take jobs out of the queue, oldest first, until they are so many or so large."""
        jobs: list[Job] = []
        size = 0
        with self._bell:
            while self._queue and len(jobs) < most and size < most_bytes:
                job = self._queue.popleft()
                size += job.size_bytes
                self._urgent -= job.done is not None
                jobs.append(job)
            self._queued_bytes -= size
        return jobs

    def _batch_is_due(self) -> bool:
        return bool(self._urgent) or self._closing or len(self._queue) >= BATCH_ENTRIES

    def _idle_s(self) -> float:
        if self.trouble is None:
            return WATCH_S
        return max(min(self._retry_at - time.monotonic(), WATCH_S), 0.0)

    def _watch(self) -> None:
        """See now and then whether the path still names the file that is open."""
        now = time.monotonic()
        if self.trouble is None and now >= self._watch_at:
            self._watch_at = now + WATCH_S
            if self._file.moved():
                self.trouble = HostFileError("moved or deleted")

    def _heal(self) -> None:
        if time.monotonic() < self._retry_at or self._closing:
            return
        trouble = self.trouble
        try:
            self._file.open(broken=trouble is not None and is_corrupt(trouble))
        except Exception as error:  # noqa: BLE001 -- whatever happens, the thread lives on
            # A bad file stays one until it has been replaced.
            self._go_away(trouble if trouble is not None and is_corrupt(trouble) else error)
        else:
            with self._bell:
                if self.trouble is trouble:
                    self.trouble = None
            self._retry_s = 0.0
            self._retry_at = time.monotonic() + RETRY_FIRST_S

    def _go_away(self, error: Exception) -> None:
        self.errors += 1
        self._retry_s = min(max(2 * self._retry_s, RETRY_FIRST_S), RETRY_MAX_S)
        with self._bell:
            self.trouble = error
            self._retry_at = time.monotonic() + self._retry_s

    def _write(self, batch: list[Job], writer: sqlite3.Connection) -> None:
        try:
            outcomes = self._transact(batch, writer)
        except Exception as error:  # noqa: BLE001 -- whatever happens, the thread lives on
            if is_corrupt(error):
                self._file.stop_reading()
            self._go_away(error)
            # Nobody waits longer than this batch has waited.
            self._fail(batch + self._take(QUEUE_ENTRIES, QUEUE_BYTES), error)
        else:
            with self._bell:
                if is_busy(self.trouble):
                    self.trouble = None
            self._retry_s = 0.0
            for job, outcome in zip(batch, outcomes, strict=True):
                self._tell(job, outcome)
        self._wrote_at = time.monotonic()

    def _transact(self, batch: list[Job], writer: sqlite3.Connection) -> list[Outcome]:
        """Do the batch in one transaction; one that finds the file full makes room first."""
        bound_log(self._file, writer)
        # Twice the bytes: the index holds each key again, and its pages are not full.
        need = 2 * sum(job.size_bytes for job in batch) // PAGE_BYTES + SPARE_PAGES
        make_room(self._file, writer, need)
        try:
            with transaction(writer):
                return _run(batch, writer)
        except sqlite3.Error as error:
            if code_of(error) != sqlite3.SQLITE_FULL:
                raise
        # Other processes were faster to fill what was free; or else the disk is full.
        make_room(self._file, writer, 2 * need)
        with transaction(writer):
            return _run(batch, writer)

    def _fail(self, batch: list[Job], error: Exception) -> None:
        for job in batch:
            self._drop(job, error)

    def _drop(self, job: Job, error: Exception) -> None:
        self.dropped += 1
        self._tell(job, error)

    def _tell(self, job: Job, outcome: Outcome) -> None:
        if job.done is not None:
            try:
                job.done(outcome)
            except Exception:  # noqa: BLE001 -- whatever a caller does, the thread lives on
                self.errors += 1


def _run(batch: list[Job], writer: sqlite3.Connection) -> list[Outcome]:
    """Do what is to be done in its order, rows that follow each other at once."""
    outcomes: list[Outcome] = []
    for are_rows, jobs in groupby(batch, lambda job: isinstance(job.run, Row)):
        if are_rows:
            rows = [job.run for job in jobs if isinstance(job.run, Row)]
            outcomes += [_done(partial(put, rows), writer)] * len(rows)
        else:
            outcomes += [_done(job.run, writer) for job in jobs if not isinstance(job.run, Row)]
    return outcomes


def _done(run: Callable[[sqlite3.Connection], int], writer: sqlite3.Connection) -> Outcome:
    try:
        return run(writer)
    except (TypeError, ValueError, OverflowError) as error:
        return error
