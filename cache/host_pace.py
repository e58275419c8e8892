"""One pace for all workers of a server: shared memory, and who of them is served next.

    │ lock's turn │ state │ not before │ hosts │ row of worker 0 │ row of worker 1 │ …
                                               └ beat │ waiting │ served

A row has one writer. A worker whose beat is old does not count: it is dead, or stopped. Who has
been served more than others leaves the next slot to them for a moment, and takes it if they do not.
"""

from collections.abc import MutableSequence

from cache.pace import Pace
from cache.shared_lock import Guard, LockFile

TURN, STATE, NOT_BEFORE, HOSTS, ROWS_AT = range(5)
BEAT, WAITING, SERVED, ROW_CELLS = range(4)
FRESH_S = 1.0
"""A worker that waits and has not been heard of for so long is left out."""
STEP_SHARE, SHORTEST_STEP_S, LONGEST_STEP_S = 0.05, 0.002, 0.025
"""How long one worker steps back for each that comes before it: a share of the interval."""

Cells = MutableSequence[float]


def pace_cells(rows: int) -> int:
    """Return how many numbers the workers of ``rows`` rows share."""
    return ROWS_AT + rows * ROW_CELLS


class HostPace:
    """A pace as one worker sees it. No await, no wait: who meets the lock comes back."""

    def __init__(self, pace: Pace, cells: Cells, file: LockFile, number: int, row: int) -> None:
        self._pace = pace
        self._cells = cells
        self._guard = Guard(file, number, cells, TURN)
        self._rows = range(ROWS_AT, len(cells), ROW_CELLS)
        self._row = self._rows[row]
        step_s = pace.interval_s * STEP_SHARE
        self._step_s = min(max(step_s, SHORTEST_STEP_S), LONGEST_STEP_S)
        # What one may be ahead: of many calls a second nobody counts each.
        self._lead = max(1, pace.burst // 8)
        cells[self._row + WAITING] = 0

    def free_in_s(self, now: float, position: int) -> float:
        """Expect how long a waiter waits who has ``position`` others of this worker before it.

        Each other worker that has waiters is served as often as this one, and before it.
        """
        cells = self._cells
        others = sum(min(cells[row + WAITING], position + 1) for row in self._others(now))
        # As often as this host is one of so many that have waiters.
        before = int(position + others) * max(1, int(cells[HOSTS]))
        return max(self._pace.free_at(cells[STATE], now, before), cells[NOT_BEFORE]) - now

    def is_contended(self, now: float) -> bool:
        """Say whether another worker has waiters."""
        return any(True for _ in self._others(now))

    def beat(self, now: float, waiting: int) -> None:
        """Tell the others how many wait here."""
        cells, row = self._cells, self._row
        if waiting and not (cells[row + WAITING] and now - cells[row + BEAT] < FRESH_S):
            # Who comes (back) among those who wait has saved nothing up while it did not.
            served = [cells[other + SERVED] for other in self._others(now)]
            cells[row + SERVED] = max(cells[row + SERVED], min(served, default=0))
        cells[row + BEAT] = now
        cells[row + WAITING] = waiting

    def look(self, now: float) -> tuple[float, float]:
        """Say in how many seconds a slot is free, and for how many to leave it to others then."""
        cells = self._cells
        mine = cells[self._row + SERVED]
        first = sum(cells[other + SERVED] + self._lead <= mine for other in self._others(now))
        free_at = max(self._pace.free_at(cells[STATE], now), cells[NOT_BEFORE])
        return max(free_at - now, 0.0), first * self._step_s

    def left(self, now: float) -> int:
        """Count the calls that could leave now, by all workers together. Takes none."""
        if self._cells[NOT_BEFORE] > now:
            return 0
        return self._pace.free(self._cells[STATE], now)

    def waiting(self, now: float) -> int:
        """Count who waits for a slot in any worker."""
        cells = self._cells
        fresh = (row for row in self._rows if now - cells[row + BEAT] < FRESH_S)
        return int(sum(cells[row + WAITING] for row in fresh))

    def take(self, now: float, wanted: int) -> int | None:
        """Take what is free, at most ``wanted``; None: another worker is at it just now."""
        with self._guard.hold() as still_holds:
            if still_holds is None:
                return None
            taken, state = self._pace.take(self._cells[STATE], now, wanted)
            if not still_holds():
                return None
            self._cells[STATE] = state
        self._cells[self._row + SERVED] += taken
        return taken

    def give_back(self, slots: int) -> bool:
        """Give back what nobody used; where another worker is at it, it is lost."""
        with self._guard.hold() as still_holds:
            if still_holds is None:
                return False
            state = self._cells[STATE] - slots * self._pace.interval_s
            if not still_holds():
                return False
            self._cells[STATE] = state
        self._cells[self._row + SERVED] -= slots
        return True

    def hear(self, not_before: float, hosts: int) -> None:
        """Learn from the cluster when it has the next slot, and for how many hosts."""
        self._cells[NOT_BEFORE] = not_before
        self._cells[HOSTS] = hosts

    def miss(self, now: float, slots: int) -> None:
        """Without an answer of the cluster, use this host's share as it was heard of last."""
        hosts = int(self._cells[HOSTS])
        if hosts > 1:
            taken_s = slots * hosts * self._pace.interval_s
            self._cells[NOT_BEFORE] = max(self._cells[NOT_BEFORE], now) + taken_s

    @property
    def state(self) -> float:
        """Another number whenever a slot was taken."""
        return self._cells[STATE]

    def _others(self, now: float) -> list[int]:
        cells = self._cells
        return [
            row
            for row in self._rows
            if row != self._row and cells[row + WAITING] and now - cells[row + BEAT] < FRESH_S
        ]
