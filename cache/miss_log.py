"""What one caller's key has asked of providers, in all workers of a server; exact.

    │ lock's turn │ asked in all │ in flight, of each row │ when the last ``per_minute`` asked │

The log is a ring: where the next entry goes stands the one of ``per_minute`` entries ago. It says
whether there is room, and when there will be. In no 60 s are there more.
"""

from collections.abc import Callable, MutableSequence

from msgspec import Struct

from cache.pace import MINUTE_S
from cache.shared_lock import Guard, LockFile

TURN, ASKED, FLYING_AT = range(3)

Cells = MutableSequence[float]


class Bounds(Struct, frozen=True):
    """What a key may ask; None: as much as it likes."""

    per_minute: int | None = None
    in_flight: int | None = None


class Full(Struct, frozen=True):
    """Why a question was not let in, and in how many seconds one may be."""

    bound: str
    """``per_minute`` or ``in_flight``."""
    wait_s: float


IN_FLIGHT_WAIT_S = 1.0
"""Nobody knows when a provider answers."""


def log_cells(rows: int, bounds: Bounds) -> int:
    """Return how many numbers the workers of ``rows`` rows share about one key."""
    return FLYING_AT + rows + (bounds.per_minute or 0)


class MissLog:
    """One key's misses, as one worker writes them. ``is_gone`` says whether a row has no worker."""

    def __init__(
        self,
        bounds: Bounds,
        cells: Cells,
        file: LockFile,
        number: int,
        *,
        row: int,
        is_gone: Callable[[int], bool],
    ) -> None:
        self._bounds = bounds
        self._cells = cells
        self._guard = Guard(file, number, cells, TURN)
        self._row = FLYING_AT + row
        self._rows = range(FLYING_AT, len(cells) - (bounds.per_minute or 0))
        self._is_gone = is_gone
        cells[self._row] = 0  # whoever had this row before has ended

    def enter(self, now: float, *, again: bool) -> Full | bool | None:
        """Let a question in, or say why not; False: another worker is at it, come back soon.

        ``again``: it has been counted for the minute already, and asks a second counter.
        """
        with self._guard.hold() as still_holds:
            if still_holds is None:
                return False
            full = self._full(now, again=again)
            if full is not None:
                return full
            if not still_holds():
                return False
            self._cells[self._row] += 1
            if self._bounds.per_minute and not again:
                self._cells[self._place()] = now
                self._cells[ASKED] += 1
        return None

    def leave(self) -> None:
        """End one that was let in. Needs no lock: the row has one writer."""
        self._cells[self._row] -= 1

    def _full(self, now: float, *, again: bool) -> Full | None:
        if self._bounds.in_flight is not None and self._flying() >= self._bounds.in_flight:
            return Full("in_flight", IN_FLIGHT_WAIT_S)
        if self._bounds.per_minute and not again:
            oldest = self._cells[self._place()]
            if oldest and now - oldest < MINUTE_S:
                return Full("per_minute", MINUTE_S - (now - oldest))
        return None

    def _place(self) -> int:
        return self._rows.stop + int(self._cells[ASKED]) % (self._bounds.per_minute or 1)

    def _flying(self) -> float:
        cells = self._cells
        for row in self._rows:
            if row != self._row and cells[row] and self._is_gone(row - FLYING_AT):
                cells[row] = 0
        return sum(cells[row] for row in self._rows)
