"""What workers and the main process tell each other through shared memory, without a lock.

A worker is known by its name, Sanic-Server-N-0, and keeps the name when it is replaced. While the
configuration is reloaded, the old and the new process of one name live side by side, and when the
new one fails a third comes: so each name has three rows, and a generation writes one of them.
"""

import multiprocessing
import os
import re
from collections.abc import MutableSequence
from typing import cast

ROWS_PER_WORKER = 3


class Board:
    """One heartbeat and one word per row; each row has one writer."""

    def __init__(self, workers: int) -> None:
        self.rows = workers * ROWS_PER_WORKER
        self.generation = 0
        # Pickled as a handle when a process is started: all see the same memory.
        self._beats = _shared(self.rows)
        self._leaving = _shared(self.rows)

    def row(self, name: str) -> int | None:
        """Return the row of a worker of this generation; None for one that has none."""
        number = worker_number(name)
        row = number * ROWS_PER_WORKER + self.generation % ROWS_PER_WORKER
        return row if row < self.rows else None

    def clear(self, row: int) -> None:
        """Before a process starts: it has not come up yet."""
        self._beats[row] = self._leaving[row] = 0

    def beat(self, row: int) -> None:
        """From the worker's loop: it turns."""
        self._beats[row] += 1

    def beats(self, row: int) -> float:
        """Count the beats: 0 until the worker serves, and always another number while it does."""
        return self._beats[row]

    def leave(self, row: int) -> None:
        """From a worker: it has heard that it shall end."""
        self._leaving[row] = 1

    def is_leaving(self, row: int) -> bool:
        """Say whether the worker of a row has heard that it shall end."""
        return self._leaving[row] != 0


def _shared(rows: int) -> MutableSequence[float]:
    return cast("MutableSequence[float]", multiprocessing.RawArray("d", rows))


def own_name() -> str:
    """Return this worker's name; empty in a process that is none."""
    return os.environ.get("SANIC_WORKER_NAME", "")


def worker_number(name: str) -> int:
    """Return N of Sanic-Server-N-0; 0 for anything else."""
    found = re.match(r"Sanic-Server-(\d+)", name)
    return int(found[1]) if found else 0
