"""The ledger's SQLite file, which all workers and servers of this user on a machine may share.

    usage.sqlite3            rows of sums                     ─┐ opened by path, together,
    usage.sqlite3-wal, -shm  SQLite's own                     ─┘ under the lock
    usage.sqlite3.lock       flock(2): who opens or replaces
    usage.sqlite3.corrupt-*  what was put aside, one set at most

What ADR 0008 says of the host tier's file holds here too: a file is put aside under the lock alone,
while it is still the one that was found bad, and the reading connection is closed last.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.log import logger
from app.telemetry.usage.table import DAY_MINUTES, SCHEMA, Row, add, claim, fold, prune
from cache.private_sqlite import (
    FileSet,
    HostFileError,
    connect,
    inode,
    is_corrupt,
    private_folder,
    private_status,
    transaction,
)

SCHEMA_VERSION = 1
LOCK_S = 1.0
_WAL_BYTES = 4 * 2**20


class UsageFileError(Exception):
    """The file does not take what is written; the text is for the operator."""


class UsageFile:
    """Keeps rows for ``retention_days``, and ``max_rows`` of them or a little more.

    One thread at a time. Every method but ``close`` raises UsageFileError.
    """

    def __init__(self, path: Path, retention_days: float, max_rows: int) -> None:
        self.path = path
        self._files = FileSet(path, LOCK_S)
        self._retention_minutes = int(retention_days * DAY_MINUTES)
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
                    add(writer, rows)

    def tidy(self, minute: int) -> None:
        """Once a minute, whoever comes first: delete what is too old, fold what is too much."""
        with self._telling():
            writer = self._open()
            with transaction(writer):
                is_mine = claim(writer, minute)
            if is_mine:
                prune(writer, minute - self._retention_minutes)
                fold(writer, minute, self._max_rows)

    def close(self) -> None:
        """Close both connections, in the order that deletes no file."""
        for connection in (self._writer, self._anchor):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._writer = self._anchor = self._inode = None

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
        with self._files.lock():
            found = private_status(self.path)
            if found is not None and (found.st_dev, found.st_ino) == self._bad:
                self._put_aside()
            elif found is None:
                self._files.make()
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
                for statement in SCHEMA:
                    writer.execute(statement)
            # Always written, so that a file that cannot be written to says so here.
            writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._anchor = connect(self.path, "ro")
        self._anchor.execute("SELECT minute FROM usage LIMIT 1").fetchall()

    def _put_aside(self) -> None:
        aside = self._files.put_aside()
        logger.error("telemetry.usage: %s was broken and is now %s", self.path, aside)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        return inode(path)
    except FileNotFoundError:
        return None
