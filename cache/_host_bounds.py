"""Keep the host tier's file and its log within their bounds."""

import sqlite3
import time

from cache._host_file import WAL_MAX_BYTES, HostFile
from cache._sqlite import BUSY_S, POLL_S, FileBusyError, transaction

FULL_AT = 0.9
TRIM_ROWS = 1000
TRIM_ROUNDS = 64
_DELETE_OLDEST = "DELETE FROM counts WHERE id IN (SELECT id FROM counts ORDER BY id LIMIT ?)"


def bound_log(file: HostFile, writer: sqlite3.Connection) -> None:
    """Have a log that has grown too long written back, by this process or another."""
    deadline = time.monotonic() + BUSY_S
    while file.wal_bytes() > WAL_MAX_BYTES:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if time.monotonic() > deadline:
            raise FileBusyError("the write-ahead log cannot be written back")
        time.sleep(POLL_S)


def make_room(file: HostFile, writer: sqlite3.Connection, need_pages: int) -> None:
    """Delete the oldest insertions until the batch fits into FULL_AT of the file."""
    most = int(file.max_pages * FULL_AT)
    for _ in range(TRIM_ROUNDS):
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        if pages + need_pages <= most:
            return
        (free,) = writer.execute("PRAGMA freelist_count").fetchone()
        if pages - free + need_pages <= most:
            return
        with transaction(writer):
            if writer.execute(_DELETE_OLDEST, (TRIM_ROWS,)).rowcount == 0:
                return
