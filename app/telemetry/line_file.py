"""A file that several processes append lines to, and that is put aside when it is full.

path ── full ─► path.1 ─► path.2 ─► … ─► path.KEEP ─► gone

Who writes or renames holds the lock ``path.lock`` meanwhile, and looks first whether the name still
stands for the file that it has open: so no line goes into one that is gone. That look also finds
what somebody else has moved away, as logrotate does.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from app.log import warn_operator

STANDARD_OUTPUT = "-"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class LineFile:
    """Standard output, or a file; without ``max_bytes`` it is never put aside."""

    def __init__(self, path: str, max_bytes: int | None, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._lock: int | None = None
        self._fd = 1

    def open(self) -> None:
        """Open it. Raises OSError."""
        if self._path == STANDARD_OUTPUT:
            return
        self._fd = os.open(self._path, _APPEND, 0o600)
        if self._max_bytes is not None:
            self._lock = os.open(f"{self._path}.lock", _APPEND, 0o600)

    def close(self) -> None:
        """Close it, but for standard output."""
        if self._path == STANDARD_OUTPUT:
            return
        os.close(self._fd)
        if self._lock is not None:
            os.close(self._lock)

    @contextlib.contextmanager
    def to_append(self, size_bytes: int) -> Iterator[tuple[int, bool]]:
        """Give what so many bytes are to be written to, and say whether it is another than before.

        Nobody else appends meanwhile, where files are put aside.
        """
        if self._path == STANDARD_OUTPUT:
            yield self._fd, False
        elif self._lock is None or self._max_bytes is None:
            is_other = self._follow()
            yield self._fd, is_other
        else:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                is_other = self._follow()
                size = os.fstat(self._fd).st_size
                if size and size + size_bytes > self._max_bytes:
                    self._put_aside()
                    is_other = self._follow() or is_other
                yield self._fd, is_other
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _follow(self) -> bool:
        """Open what the name stands for now; say whether that is another file than before."""
        mine = os.fstat(self._fd)
        with contextlib.suppress(FileNotFoundError):
            theirs = os.stat(self._path)  # noqa: PTH116 -- beside fstat
            if (theirs.st_dev, theirs.st_ino) == (mine.st_dev, mine.st_ino):
                return False
        try:
            other = os.open(self._path, _APPEND, 0o600)
        except OSError as error:
            warn_operator(f"telemetry.jsonl.path: cannot be opened again: {error.strerror}")
            return False
        os.close(self._fd)
        self._fd = other
        return True

    def _put_aside(self) -> None:
        """Rename the file and those before it, the oldest first: a gap is filled and no more."""
        names = [Path(f"{self._path}.{number}") for number in range(1, self._keep + 1)]
        free = next((at for at, name in enumerate(names) if not name.exists()), len(names) - 1)
        try:
            for at in range(free, 0, -1):
                names[at - 1].replace(names[at])
            Path(self._path).replace(names[0])
        except OSError as error:
            warn_operator(f"telemetry.jsonl: a full file is not put aside: {error.strerror}")
