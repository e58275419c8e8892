"""A lock among the processes of one server that nobody can take along when it dies.

    A hold ── reads and writes shared memory, some microseconds ── release
    B hold: not now ── comes back in a moment; never waits for it
    C killed while it holds: the kernel frees the lock
    D stopped while it holds: the others move on to the next byte; D, when it goes on, sees that

A POSIX record lock on one byte of a file without a name, which the main process makes and its
workers inherit. Where D is stopped between its last look and its one write, that write is believed:
what it can do is for the owner of the memory to bound.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, MutableSequence
from multiprocessing import reduction
from typing import Any

STUCK_S = 0.1
"""Held for so long, a lock is taken for that of a stopped process."""
TURNS = 64
"""Bytes of one lock: more stopped processes at a time than a server has workers."""


class LockFile:
    """Bytes that exist only to be locked; a process must have no other descriptor of the file."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = os.memfd_create("tallygate") if descriptor is None else descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to a process that is being started, as a socket does."""
        return _inherited, (reduction.DupFd(self._descriptor),)

    def hold(self, byte: int) -> bool:
        """Take the lock, unless another process has it."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def release(self, byte: int) -> None:
        """Give it back."""
        with contextlib.suppress(OSError):
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)


def _inherited(handle: Any) -> LockFile:
    return LockFile(handle.detach())


class Guard:
    """One lock: the ``number``-th of the file. ``cells[turn]`` says which of its bytes counts."""

    def __init__(
        self,
        file: LockFile,
        number: int,
        cells: MutableSequence[float],
        turn: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._first = number * TURNS
        self._cells = cells
        self._turn = turn
        self._clock = clock
        self._busy_since = self._busy_at = float("-inf")

    @contextlib.contextmanager
    def hold(self) -> Iterator[Callable[[], bool] | None]:
        """Give None when another process is at it: come back in a moment, not at once.

        Otherwise a function to ask just before the write: whether the lock is still the one.
        """
        turn = self._cells[self._turn]
        held = self._try(turn)
        if not held and self._is_stuck():
            turn += 1
            held = self._try(turn, before=turn - 1)
        if not held:
            yield None
            return
        self._busy_at = float("-inf")
        try:
            yield lambda: self._cells[self._turn] == turn
        finally:
            self._file.release(self._byte(turn))

    def _try(self, turn: float, before: float | None = None) -> bool:
        if not self._file.hold(self._byte(turn)):
            return False
        # 1 A and B find C stopped; 2 A moves on, works and ends; 3 B holds the next byte: too late.
        if self._cells[self._turn] == (turn if before is None else before):
            self._cells[self._turn] = turn
            return True
        self._file.release(self._byte(turn))
        return False

    def _is_stuck(self) -> bool:
        now = self._clock()
        if now - self._busy_at >= STUCK_S:  # nobody has looked meanwhile
            self._busy_since = now
        self._busy_at = now
        return now - self._busy_since >= STUCK_S

    def _byte(self, turn: float) -> int:
        return self._first + int(turn) % TURNS
