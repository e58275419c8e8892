"""What the host tier needs of SQLite: kinds of errors, connections, transactions."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from cache._private import HostFileError

BUSY_S = 1.0
"""How long a writer waits for the others."""
POLL_S = 0.001
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


class FileBusyError(HostFileError):
    """Others were in the way for too long."""


def code_of(error: Exception) -> int:
    """Give SQLite's primary result code, 0 for an error of another kind."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: Exception | None) -> bool:
    """Say whether others were in the way, and nothing is wrong with the file."""
    if error is None:
        return False
    return isinstance(error, FileBusyError) or code_of(error) in _BUSY


def is_corrupt(error: Exception) -> bool:
    """Say whether the file is bad, rather than the moment."""
    if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode"):
        return True  # The module's own: a text that is no UTF-8.
    return code_of(error) in _CORRUPT


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open an existing file, ``mode`` "rw" or "ro". Raises sqlite3.Error.

    Waits BUSY_S for others until its busy_timeout is set to 0.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        # Each connection is used by one thread at a time; which one that is changes.
        check_same_thread=False,
    )
    # A file that is cut short under a mapping kills the process (SIGBUS); reading it is an error.
    connection.execute("PRAGMA mmap_size = 0")
    return connection


def begin(writer: sqlite3.Connection) -> None:
    """Become the only writer, after BUSY_S of waiting at most. Raises sqlite3.Error.

    SQLite's own waiting sleeps longer and longer: among many writers somebody always comes first.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(POLL_S)


@contextlib.contextmanager
def transaction(writer: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block writes, or none of it. Raises sqlite3.Error."""
    begin(writer)
    try:
        yield
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                writer.execute("ROLLBACK")
        raise
