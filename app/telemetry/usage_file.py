"""The ledger's SQLite file, which all workers and servers of this user on a machine may share.

    usage.sqlite3            rows of sums                     ─┐ opened by path, together,
    usage.sqlite3-wal, -shm  SQLite's own                     ─┘ under the lock
    usage.sqlite3.lock       flock(2): who opens or replaces
    usage.sqlite3.corrupt-*  what was put aside, one set at most

What ADR 0008 says of the host tier's file holds here too: a file is put aside under the lock alone,
while it is still the one that was found bad, and the reading connection is closed last.
"""

import contextlib
import fcntl
import glob
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from app.log import logger
from cache.private_sqlite import (
    HostFileError,
    connect,
    is_corrupt,
    open_private,
    private_folder,
    private_status,
    transaction,
)

OTHER = "other"
"""Who is not told apart from others."""
SCHEMA_VERSION = 1
LOCK_S = 1.0
HOUR, DAY = 60, 1440
"""In minutes."""
MAX_STEPS = 48
"""Hours that are pruned or folded in a minute."""
_WAL_BYTES = 4 * 2**20

_SCHEMA = (
    """
    CREATE TABLE usage (
      minute INTEGER NOT NULL, -- since 1970
      caller TEXT NOT NULL, end_user TEXT NOT NULL, model TEXT NOT NULL,
      upstream_model TEXT NOT NULL, provider TEXT NOT NULL, source TEXT NOT NULL,
      requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, upstream_calls INTEGER NOT NULL,
      errors INTEGER NOT NULL, upstream_calls_saved INTEGER NOT NULL,
      PRIMARY KEY (minute, caller, end_user, model, upstream_model, provider, source)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE state (name TEXT PRIMARY KEY, minute INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO state VALUES ('tidied', 0), ('folded', 0)",
)
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
  requests = requests + excluded.requests,
  input_tokens = input_tokens + excluded.input_tokens,
  upstream_calls = upstream_calls + excluded.upstream_calls,
  errors = errors + excluded.errors,
  upstream_calls_saved = upstream_calls_saved + excluded.upstream_calls_saved
"""
_CLAIM = "UPDATE state SET minute = ?1 WHERE name = 'tidied' AND (minute < ?1 OR minute > ?1 + 1)"
_FOLDED = """
SELECT ?1 / 60 * 60, caller, iif(end_user = '', '', 'other'), model,
  iif(upstream_model = '', '', 'other'), provider, source,
  sum(requests), sum(input_tokens), sum(upstream_calls), sum(errors), sum(upstream_calls_saved)
FROM usage WHERE minute >= ?1 AND minute < ?2 GROUP BY 2, 3, 4, 5, 6, 7
"""
_DELETE = "DELETE FROM usage WHERE minute >= ? AND minute < ?"


class UsageFileError(Exception):
    """The file does not take what is written; the text is for the operator."""


class Row(NamedTuple):
    """What some names used in one minute."""

    minute: int
    caller: str
    end_user: str
    model: str
    upstream_model: str
    provider: str
    source: str
    requests: int
    input_tokens: int
    upstream_calls: int
    errors: int
    upstream_calls_saved: int


class UsageFile:
    """Keeps rows for ``retention_days``, and ``max_rows`` of them or a little more.

    One thread at a time. Every method but ``close`` raises UsageFileError.
    """

    def __init__(self, path: Path, retention_days: float, max_rows: int) -> None:
        self.path = path
        self._retention_minutes = int(retention_days * DAY)
        self._max_rows = max_rows
        self._writer: sqlite3.Connection | None = None
        self._anchor: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._bad: tuple[int, int] | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows to those that are there, all or none; none at all: be able to."""
        with self._telling():
            writer = self._open()
            if rows:
                with transaction(writer):
                    writer.executemany(_ADD, rows)

    def tidy(self, minute: int) -> None:
        """Once a minute, whoever comes first: delete what is too old, fold what is too much."""
        with self._telling():
            writer = self._open()
            with transaction(writer):
                is_mine = writer.execute(_CLAIM, (minute,)).rowcount > 0
            if is_mine:
                self._prune(writer, minute - self._retention_minutes)
                self._fold(writer, minute)

    def close(self) -> None:
        """Close both connections, in the order that deletes no file."""
        for connection in (self._writer, self._anchor):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._writer = self._anchor = self._inode = None

    def _prune(self, writer: sqlite3.Connection, before: int) -> None:
        for _ in range(MAX_STEPS):
            first = _first(writer, 0)
            if first is None or first >= before:
                return
            with transaction(writer):
                writer.execute(_DELETE, (first, min(first + HOUR, before)))

    def _fold(self, writer: sqlite3.Connection, minute: int) -> None:
        """Make hours of the oldest minutes, without end users; at last, forget the oldest hour."""
        for _ in range(MAX_STEPS):
            (rows,) = writer.execute("SELECT count(*) FROM usage").fetchone()
            if rows <= self._max_rows:
                return
            ask = "SELECT minute FROM state WHERE name = 'folded'"
            first = _first(writer, writer.execute(ask).fetchone()[0])
            until = minute - 1  # what is being written is left alone
            with transaction(writer):
                if first is None or first >= until:
                    first = _first(writer, 0) or 0
                    if first >= until:
                        return
                    writer.execute(_DELETE, (first, min(first + HOUR, until)))
                    logger.warning("telemetry.usage: over max_rows, its oldest hour is forgotten")
                    continue
                until = min(first // HOUR * HOUR + HOUR, until)
                folded = writer.execute(_FOLDED, (first, until)).fetchall()
                writer.execute(_DELETE, (first, until))
                writer.executemany(_ADD, folded)
                writer.execute("UPDATE state SET minute = ? WHERE name = 'folded'", (until,))

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Say what went wrong in one way; a file that has proved bad is put aside the next time."""
        try:
            yield
        except (OSError, sqlite3.Error, HostFileError) as error:
            if isinstance(error, sqlite3.Error) and is_corrupt(error):
                self._bad = self._inode
                self.close()
            text = str(error)
            raise UsageFileError(
                text if text.startswith(str(self.path)) else f"{self.path}: {text}"
            ) from error

    def _open(self) -> sqlite3.Connection:
        """Open the file, or the one that has taken its place."""
        if self._writer is not None and _inode(self.path) == self._inode:
            return self._writer
        self.close()
        private_folder(self.path.parent)
        with self._lock():
            found = private_status(self.path)
            if found is not None and (found.st_dev, found.st_ino) == self._bad:
                self._put_aside()
            elif found is None:
                self._remove("-wal", "-shm")
                os.close(open_private(self.path, os.O_EXCL))
            try:
                self._connect()
            except sqlite3.Error as error:
                self.close()
                if not is_corrupt(error):
                    raise
                self._put_aside()
                self._connect()
            self._inode, self._bad = _inode(self.path), None
        if self._writer is None:
            raise HostFileError(f"{self.path}: not open")
        return self._writer

    def _connect(self) -> None:
        self._writer = writer = connect(self.path, "rw")
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        if version not in {0, SCHEMA_VERSION}:
            self.close()
            raise HostFileError(f"{self.path}: of another version of this program")
        (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            self.close()
            raise HostFileError(f"{self.path}: SQLite's write-ahead log does not work here")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        with transaction(writer):
            if not version:
                for statement in _SCHEMA:
                    writer.execute(statement)
            # Always written, so that a file that cannot be written to says so here.
            writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._anchor = connect(self.path, "ro")
        self._anchor.execute("SELECT minute FROM usage LIMIT 1").fetchall()

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = open_private(self._beside(".lock"))
        try:
            deadline = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise HostFileError(f"{self.path}: another process opens it") from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(descriptor)

    def _put_aside(self) -> None:
        """Rename the file and SQLite's own beside it; what was put aside before is deleted."""
        for old in self.path.parent.glob(f"{glob.escape(self.path.name)}.corrupt-*"):
            old.unlink(missing_ok=True)
        aside = f".corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                self._beside(suffix).rename(self._beside(aside + suffix))
        os.close(open_private(self.path, os.O_EXCL))
        logger.error("telemetry.usage: %s was broken and is now %s", self.path, aside)

    def _remove(self, *suffixes: str) -> None:
        for suffix in suffixes:
            self._beside(suffix).unlink(missing_ok=True)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _first(writer: sqlite3.Connection, least: int) -> int | None:
    ask = "SELECT min(minute) FROM usage WHERE minute >= ?"
    first: int | None = writer.execute(ask, (least,)).fetchone()[0]
    return first


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
