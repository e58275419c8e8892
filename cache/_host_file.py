"""The host tier's SQLite file as one process has it open: opening, judging, replacing it.

    tallygate.sqlite            counts and generations        ─┐ opened by path, together,
    tallygate.sqlite-wal, -shm  SQLite's own                  ─┘ under the lock
    tallygate.sqlite.lock       flock(2): who opens or replaces
    tallygate.sqlite.corrupt-*  what was put aside, one set at most

Two rules keep processes from harming each other's file. A file is put aside only under the lock,
and while its inode is still the one that was found bad. And SQLite deletes `-wal` and `-shm` by
name when a database's last connection closes; it looks whether the file has moved, but not under
the lock: so the reading connection, which may delete nothing, is always closed last.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cache._file_set import FileSet, inode
from cache._private import HostFileError, private_folder, private_status
from cache._sqlite import begin, code_of, connect, is_corrupt

SCHEMA_VERSION = 1
PAGE_BYTES = 4096
MIN_PAGES = 1024
"""A smaller bound is taken as this one: a batch must fit."""
WAL_LIMIT_BYTES = 4 * 2**20
"""A checkpoint starts here, and the file is cut back to this."""
WAL_MAX_BYTES = 16 * 2**20
"""Beyond it nothing is written: something keeps checkpoints from coming to their end."""
LOCK_S = 5.0

_SCHEMA = """
CREATE TABLE counts (
  id INTEGER PRIMARY KEY, -- grows with every insertion: the lowest is the oldest
  key BLOB NOT NULL UNIQUE,
  value BLOB NOT NULL,
  expires_s INTEGER NOT NULL
);
CREATE TABLE generations (model TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
"""
MAX_INTEGER = 2**63 - 1
RAISE_GENERATION = """
INSERT INTO generations VALUES (?1, ?2) ON CONFLICT (model)
DO UPDATE SET generation = excluded.generation
WHERE excluded.generation > generation OR generation > ?3 OR typeof(generation) <> 'integer'
"""


class _Inodes(NamedTuple):
    main: tuple[int, int]
    wal: tuple[int, int] | None


class HostFile:
    """One writing and one reading connection to the file at ``path``; ``max_bytes`` bounds it.

    ``reader`` is used only while ``reading`` is held, ``writer`` by one thread only. Both are None
    while the file is away.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._files = FileSet(path, LOCK_S)
        self.max_pages = max(max_bytes // PAGE_BYTES, MIN_PAGES)
        self.reading = threading.Lock()
        self.reader: sqlite3.Connection | None = None
        self.writer: sqlite3.Connection | None = None
        self.repairs = 0
        self.generations: dict[str, int] = {}
        """The highest seen here: written again into whatever file takes this one's place."""
        self._inodes: _Inodes | None = None
        self._bad: sqlite3.Connection | None = None

    def open(self, *, broken: bool = False) -> None:
        """Open the file, or the one that has taken its place; ``broken``: ours has proved bad.

        May wait for LOCK_S and BUSY_S. Raises HostFileError.
        """
        try:
            private_folder(self.path.parent)
            with self._files.lock():
                self._make_way(broken=broken)
                try:
                    writer, reader = self._connect()
                except (_WrongSchemaError, sqlite3.Error) as error:
                    if isinstance(error, sqlite3.Error) and not is_corrupt(error):
                        raise
                    self._put_aside()
                    writer, reader = self._connect()
                inodes = _Inodes(inode(self.path), inode(self._files.beside("-wal")))
        except (OSError, sqlite3.Error) as error:
            raise HostFileError(f"{self.path}: {error}") from error
        # The old connections close only now: until then nothing can be given their inode again.
        self.close()
        self._inodes = inodes
        self.writer = writer
        with self.reading:
            self.reader = reader

    def note_generations(self, rows: Iterable[tuple[object, object]]) -> None:
        """Remember what is to be written again into another file; what is no generation is not."""
        for model, generation in rows:
            if not isinstance(model, str) or not isinstance(generation, int):
                continue
            self.generations[model] = max(generation, self.generations.get(model, 0))

    def moved(self) -> bool:
        """Say whether the path names another file than the open one, or none."""
        try:
            return self._inodes is not None and inode(self.path) != self._inodes.main
        except OSError:
            return True

    def wal_bytes(self) -> int:
        """Size of the write-ahead log; 0 when there is none."""
        try:
            return self._files.beside("-wal").stat().st_size
        except OSError:
            return 0

    def stop_reading(self) -> None:
        """Let look-ups miss from now on: what is read may be wrong."""
        with self.reading:
            if self.reader is not None:
                self._bad, self.reader = self.reader, None

    def close(self) -> None:
        """Close both connections, in the order that deletes no file."""
        with self.reading:
            reader, self.reader = self.reader or self._bad, None
            self._bad = None
        writer, self.writer = self.writer, None
        self._inodes = None
        for connection in (writer, reader):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    def _make_way(self, *, broken: bool) -> None:
        """Put a bad or oversized file aside, and make an empty one where there is none."""
        found = private_status(self.path)
        here = found and (found.st_dev, found.st_ino)
        ours = self._inodes
        if found is not None and ours is not None and here == ours.main and broken:
            self._put_aside()
        elif found is not None and found.st_size > self.max_pages * PAGE_BYTES:
            # SQLite never gives pages back without rewriting the file: begin it anew.
            self._salvage_generations()
            self._files.remove()
        elif found is not None and ours is not None and here != ours.main:
            # Another file under our file's name. Our log would be replayed into it.
            with contextlib.suppress(FileNotFoundError):
                if inode(self._files.beside("-wal")) == ours.wal:
                    self._files.remove("-wal", "-shm")
        if private_status(self.path) is None:
            self._files.make()

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """Open both connections, reading included, so that SQLite opens nothing by name later."""
        writer = connect(self.path, "rw")
        try:
            writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._settle(writer)
            reader = connect(self.path, "ro")
            try:
                self.note_generations(_try_tables(reader))
                for connection in (writer, reader):
                    connection.execute("PRAGMA busy_timeout = 0")
            except BaseException:
                reader.close()
                raise
        except BaseException:
            writer.close()
            raise
        return writer, reader

    def _settle(self, writer: sqlite3.Connection) -> None:
        """Set what SQLite forgets, make the tables of an empty file, and write something."""
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        (tables,) = writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and version != SCHEMA_VERSION:
            if self._inodes is not None and version > SCHEMA_VERSION:
                # A newer program runs beside this one: whoever was started later is right.
                raise HostFileError(f"{self.path}: now in use by a newer version")
            raise _WrongSchemaError(f"schema version {version}")
        (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise HostFileError(f"{self.path}: SQLite's write-ahead log does not work here")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA secure_delete = OFF")
        writer.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        writer.execute(f"PRAGMA wal_autocheckpoint = {WAL_LIMIT_BYTES // PAGE_BYTES}")
        writer.execute(f"PRAGMA max_page_count = {self.max_pages}")
        begin(writer)
        if not tables:
            for statement in _SCHEMA.split(";\n"):
                writer.execute(statement)
        known = [(model, generation, MAX_INTEGER) for model, generation in self.generations.items()]
        writer.executemany(RAISE_GENERATION, known)
        # Always written, so that a file that cannot be written to says so here.
        writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        writer.execute("COMMIT")

    def _put_aside(self) -> None:
        self._files.put_aside()
        self.repairs += 1

    def _salvage_generations(self) -> None:
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(connect(self.path, "ro")) as old,
        ):
            self.note_generations(old.execute("SELECT model, generation FROM generations"))


class _WrongSchemaError(Exception):
    """Another version's tables."""


def _try_tables(reader: sqlite3.Connection) -> list[tuple[object, object]]:
    """Read a count and all generations. Raises _WrongSchemaError, sqlite3.Error."""
    try:
        reader.execute("SELECT id, key, value, expires_s FROM counts LIMIT 1").fetchall()
        return reader.execute("SELECT model, generation FROM generations").fetchall()
    except sqlite3.OperationalError as error:
        if code_of(error) == sqlite3.SQLITE_ERROR:
            raise _WrongSchemaError(str(error)) from error
        raise
