"""The host tier without an await: what the hot path, the leader and the command line use.

    look_up ── reading connection, on the event loop, ~10 µs ──────────────► bytes | None
    put_soon ─► bounded queue ─► writer thread, one per process ─► committed ─► after(True)

Neither waits for the other, nor for the writers of other processes.
"""

import math
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from cache._host_file import PAGE_BYTES, RAISE_GENERATION, HostFile
from cache._host_put import Row
from cache._host_writer import HostWriter, Job, Outcome
from cache._private import HostFileError
from cache.generations import is_generation, latest_generation
from cache.record import ORDER

NEVER_S = 2**62
PAGE_ROWS = 500
DELETE_WAIT_S = 30.0
ENTRY_OVERHEAD_BYTES = 64

LOOK_UP = "SELECT CAST(value AS BLOB) FROM counts WHERE key = ? AND expires_s > ?"
DELETE = "DELETE FROM counts WHERE key = ?"
_ITEMS = """
SELECT id, CAST(key AS BLOB), CAST(value AS BLOB), CAST(expires_s AS INTEGER) FROM counts
WHERE id > ? AND expires_s > ? ORDER BY id LIMIT ?
"""


class HostStore:
    """Counts in one file of at most ``max_bytes``, and a few MB of SQLite's log beside it.

    Opened in the worker, after its start; one process opens a file once. Only ``open``, ``shut``,
    ``flush`` and ``delete_many`` wait for anything.
    """

    def __init__(self, path: Path, max_bytes: int, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._file = HostFile(path, max_bytes)
        self._writer = HostWriter(self._file)

    def open(self) -> None:
        """Open the file, made where it is missing. Raises HostFileError when it cannot be used.

        The tier goes on trying by itself in either case, until ``shut``.
        """
        self._writer.start()

    def shut(self) -> None:
        """Write what is queued, for two seconds at most, and close. Never raises."""
        self._writer.close()

    @property
    def healthy(self) -> bool:
        """Whether look-ups and writes reach the file."""
        return self.trouble is None

    @property
    def trouble(self) -> str | None:
        """What is wrong, without any content."""
        if self._writer.trouble is not None:
            return str(self._writer.trouble)
        return None if self._file.reader is not None and self._writer.alive else "not open"

    @property
    def dropped(self) -> int:
        """Writes that were not done."""
        return self._writer.dropped

    @property
    def errors(self) -> int:
        """Look-ups, batches and openings that failed."""
        return self._writer.errors

    @property
    def repairs(self) -> int:
        """Bad files that this process has put aside."""
        return self._file.repairs

    def look_up(self, key: bytes) -> bytes | None:
        """Read a value that has not expired; None while the file is away. Raises sqlite3.Error."""
        file = self._file
        with file.reading:
            if file.reader is None:
                return None
            try:
                row = file.reader.execute(LOOK_UP, (key, self._wall_clock())).fetchone()
            except sqlite3.Error as caught:
                error = caught
            else:
                return None if row is None else cast("bytes", row[0])
        self._writer.report(error)
        raise error

    def put_soon(
        self,
        key: bytes,
        value: bytes,
        ttl_s: float,
        after: Callable[[bool], None] | None = None,
    ) -> bool:
        """Queue a value for ``ttl_s`` seconds; False when it is dropped at once.

        ``after`` is told whether it was committed (an older value than the stored one counts as
        committed): in the writer's thread, or here when it is dropped. Never raises.
        """
        row = Row(key, value, self._expires_s(ttl_s), self._wall_clock())
        done = None if after is None else _tell(after)
        size_bytes = len(key) + len(value) + ENTRY_OVERHEAD_BYTES
        return self._writer.submit(Job(row, size_bytes, done))

    def delete_soon(self, key: bytes) -> bool:
        """Queue a deletion; False when it is dropped at once."""
        return self._submit(lambda file: file.execute(DELETE, (key,)).rowcount, (key,), None)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued before has been done; False if it was not, or not yet."""
        return self._wait(lambda _: 0, timeout_s) == 0

    def generations(self) -> dict[str, int]:
        """Read the generation of each model that has one in the file. Raises sqlite3.Error."""
        rows = self._read("SELECT model, generation FROM generations")
        # Not what this process knows besides: a write that was dropped must be seen to be missing.
        written = {
            model: generation
            for model, generation in rows
            if isinstance(model, str) and is_generation(generation, self._wall_clock())
        }
        self._file.note_generations(written.items())
        return written

    def raise_generation(self, model: str, generation: int) -> None:
        """Queue a model's generation; the highest stays, in whatever file comes after this one too.

        Follow with ``flush`` to know that it is written.
        """
        self._file.note_generations([(model, generation)])
        latest = latest_generation(self._wall_clock())
        self._writer.submit(
            Job(lambda file: file.execute(RAISE_GENERATION, (model, generation, latest)).rowcount),
            bounded=False,
        )

    def stats(self) -> dict[str, int | str | None]:
        """Say how full the tier is. Raises sqlite3.Error.

        ``entries`` is an upper estimate: it counts gaps between the oldest and the newest
        insertion, and what has expired but not yet been overwritten. ``oldest_asked_s`` is when
        the count of the oldest insertion was asked, in seconds since 1970.
        """
        rows = self._read(
            "SELECT (SELECT max(id) FROM counts) - min(id) + 1, "
            "(SELECT CAST(value AS BLOB) FROM counts ORDER BY id LIMIT 1) FROM counts"
        )
        entries, oldest = rows[0] if rows else (None, None)
        ((pages,),) = self._read("PRAGMA page_count") or [(0,)]
        ((free,),) = self._read("PRAGMA freelist_count") or [(0,)]
        return {
            "path": str(self._file.path),
            "entries": entries or 0,
            "file_bytes": pages * PAGE_BYTES,
            "free_bytes": free * PAGE_BYTES,
            "wal_bytes": self._file.wal_bytes(),
            "max_bytes": self._file.max_pages * PAGE_BYTES,
            "oldest_asked_s": (
                None if oldest is None else int.from_bytes(oldest[ORDER]) // 1_000_000_000
            ),
            "dropped": self.dropped,
            "errors": self.errors,
            "repairs": self.repairs,
            "trouble": self.trouble,
        }

    def items(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Walk through key, value and expiry (seconds since 1970), oldest insertion first.

        Reads a page of rows at a time, so that no checkpoint waits for the walk to end. Raises
        sqlite3.Error.
        """
        last = -1
        while rows := self._read(_ITEMS, (last, self._wall_clock(), PAGE_ROWS)):
            for last, key, value, expires_s in rows:  # noqa: B007 -- the page after begins there
                yield key, value, expires_s

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete, wait, and return how many there were. Raises sqlite3.Error."""
        rows = [(key,) for key in keys]
        deleted = 0
        for start in range(0, len(rows), PAGE_ROWS):
            delete = _deletion(rows[start : start + PAGE_ROWS])
            deleted += rows_of(self._wait(delete, DELETE_WAIT_S))
        return deleted

    def _read(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self._file.reading:
            if self._file.reader is None:
                return []
            try:
                return self._file.reader.execute(sql, parameters).fetchall()
            except sqlite3.Error as caught:
                error = caught
        self._writer.report(error)
        raise error

    def _expires_s(self, ttl_s: float | None) -> int:
        if ttl_s is None or not math.isfinite(ttl_s):
            return NEVER_S
        return min(int(self._wall_clock() + ttl_s), NEVER_S)

    def _submit(
        self,
        run: Callable[[sqlite3.Connection], int],
        parts: Iterable[Any],
        done: Callable[[Outcome], None] | None,
    ) -> bool:
        size = sum(len(part) for part in parts if isinstance(part, bytes))
        return self._writer.submit(Job(run, size + ENTRY_OVERHEAD_BYTES, done))

    def _wait(self, run: Callable[[sqlite3.Connection], int], timeout_s: float) -> Outcome:
        """Do a job in the writer's thread and wait for it in this one."""
        told = threading.Event()
        outcomes: list[Outcome] = []

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            told.set()

        self._writer.submit(Job(run, ENTRY_OVERHEAD_BYTES, done), bounded=False)
        return outcomes[0] if told.wait(timeout_s) else sqlite3.OperationalError("not done in time")


def _deletion(rows: Sequence[tuple[bytes]]) -> Callable[[sqlite3.Connection], int]:
    return lambda file: file.executemany(DELETE, rows).rowcount


def _tell(after: Callable[[bool], None]) -> Callable[[Outcome], None]:
    return lambda outcome: after(isinstance(outcome, int))


def rows_of(outcome: Outcome) -> int:
    """Rows changed. Raises what kept them from it; sqlite3.Error for a fault of the file."""
    if isinstance(outcome, int):
        return outcome
    if isinstance(outcome, HostFileError):
        raise sqlite3.OperationalError(str(outcome)) from outcome
    raise outcome
