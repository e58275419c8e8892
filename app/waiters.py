"""Who waits in this worker for a deployment's budget, and who may go: decisions without an await.

join ─ would the turn come in time? ─ no ──────────────► refused, with the time to come back
          │ yes
        first come, first served ─ claim: a slot ──────► goes
          │ the others' share has grown: too late now ─► refused at once
"""

from collections import deque
from collections.abc import Callable

from cache.host_pace import HostPace

MAX_WAITING = 1_000
"""For one deployment, in one worker."""
BEAT_S = 0.25
BUSY_S = 0.001
SHORTEST_S = 0.005
"""Slots that come more often than this are taken together."""


class TooLateError(Exception):
    """The turn would come too late, in ``wait_s`` seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class Waiter:
    """One that waits: ``told`` is called once, with None to go, or with how long it would be.

    It says whether anybody has heard it.
    """

    __slots__ = ("told", "until")

    def __init__(self, until: float, told: Callable[[float | None], bool]) -> None:
        self.until = until
        self.told = told


class Waiters:
    """One worker's waiters for one deployment, oldest first."""

    def __init__(self, pace: HostPace, max_waiting: int = MAX_WAITING) -> None:
        self._pace = pace
        self._max_waiting = max_waiting
        self._queue: deque[Waiter] = deque()
        self._stepped_back: float | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def wait_s(self, now: float) -> float:
        """Expect the wait of one who comes now; infinite where there is no place."""
        if len(self._queue) >= self._max_waiting:
            return float("inf")
        return self._pace.free_in_s(now, len(self._queue))

    def go_at_once(self, now: float) -> bool:
        """Take a slot where nobody waits for one, here or in another worker."""
        if self._queue or self._pace.is_contended(now) or self._pace.look(now)[0] > 0:
            return False
        return self._pace.take(now, 1) == 1

    def join(self, waiter: Waiter, now: float) -> None:
        """Wait at the end. Raises TooLateError where that is of no use."""
        wait_s = self._pace.free_in_s(now, len(self._queue))
        if len(self._queue) >= self._max_waiting or now + wait_s > waiter.until:
            raise TooLateError(wait_s)
        self._queue.append(waiter)
        self._pace.beat(now, len(self._queue))

    def quit(self, waiter: Waiter, now: float) -> None:
        """Wait no longer; of one that has been told already, nothing."""
        if waiter in self._queue:
            self._queue.remove(waiter)
            self._pace.beat(now, len(self._queue))

    def claim(self, now: float) -> tuple[int, float]:
        """Take what slots there are for those who wait; return how many, and when to look again.

        They are to be used (`go`) or given back (`give_back`) before the next claim.
        """
        self._refuse_late(now)
        self._pace.beat(now, len(self._queue))
        if not self._queue:
            return 0, BEAT_S
        free_in_s, step_back_s = self._pace.look(now)
        if free_in_s > 0:
            return 0, min(max(free_in_s, SHORTEST_S), BEAT_S)
        if step_back_s and self._stepped_back != self._pace.state:
            self._stepped_back = self._pace.state
            return 0, step_back_s
        taken = self._pace.take(now, len(self._queue))
        return (0, BUSY_S) if taken is None else (taken, 0.0)

    def go(self, slots: int, now: float) -> None:
        """Let the oldest go, one for each slot; a slot that nobody is left for is given back."""
        while slots and self._queue:
            # 1 the client leaves; 2 a slot comes; 3 the waiter wakes up to quit: not for the slot.
            slots -= self._queue.popleft().told(None)
        if slots:
            self._pace.give_back(slots)
        self._pace.beat(now, len(self._queue))

    def pass_on(self, now: float) -> None:
        """Use the slot of one that was told to go and did not: the next one goes."""
        self.go(1, now)

    def _refuse_late(self, now: float) -> None:
        """Let nobody wait for nothing: other workers' waiters may have come meanwhile."""
        while self._queue:
            wait_s = self._pace.free_in_s(now, len(self._queue) - 1)
            if now + wait_s <= self._queue[-1].until:
                return
            self._queue.pop().told(wait_s)

    def refuse_all(self, wait_s: float) -> None:
        """Send everybody away."""
        while self._queue:
            self._queue.popleft().told(wait_s)
