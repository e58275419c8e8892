"""The files of one SQLite database: itself, its log, its lock, what was put aside."""

import contextlib
import fcntl
import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cache._private import HostFileError, open_private


class FileSet:
    """Finds, locks and moves the files around ``path``; opens no database."""

    def __init__(self, path: Path, lock_s: float) -> None:
        """``lock_s``: how long another process's lock is waited for."""
        self.path = path
        self._lock_s = lock_s

    def beside(self, suffix: str) -> Path:
        """Name the file with this suffix."""
        return self.path.with_name(self.path.name + suffix)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only process that opens or replaces the file. Raises OSError, HostFileError."""
        descriptor = open_private(self.beside(".lock"))
        try:
            deadline = time.monotonic() + self._lock_s
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

    def make(self) -> None:
        """Make an empty file where there is none, and leave no other file's log to it."""
        self.remove("-wal", "-shm")
        os.close(open_private(self.path, os.O_EXCL))

    def put_aside(self) -> str:
        """Rename the file and SQLite's own beside it, and make an empty one; return the suffix.

        What was put aside before is deleted.
        """
        for old in self.path.parent.glob(f"{glob.escape(self.path.name)}.corrupt-*"):
            old.unlink(missing_ok=True)
        aside = f".corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                self.beside(suffix).rename(self.beside(aside + suffix))
        os.close(open_private(self.path, os.O_EXCL))
        return aside

    def remove(self, *suffixes: str) -> None:
        """Delete those with these suffixes; without any, the file and SQLite's own."""
        for suffix in suffixes or ("-wal", "-shm", ""):
            self.beside(suffix).unlink(missing_ok=True)


def inode(path: Path) -> tuple[int, int]:
    """Tell a file from any other that bears its name. Raises FileNotFoundError."""
    status = path.lstat()
    return status.st_dev, status.st_ino
