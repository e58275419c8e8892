"""How often something may leave: the generic cell rate algorithm, as arithmetic only.

    rate      ·     ·     ·     ·     ·        one slot each interval_s
    burst     at most ``burst`` slots that nobody took wait for somebody; older ones are lost
    state     one number: the time at which all slots that were taken would have come one by one

https://www.itu.int/rec/T-REC-I.371 (annex A), as a token bucket in one number (2026-11).
"""

import math
from typing import Self

from msgspec import Struct

MINUTE_S = 60.0
BURST_SHARE = 0.05
"""Of a minute's calls. Of the tenth by which a window may exceed them, the other half is for calls
that take longer from their slot to the provider than others do."""


class Pace(Struct, frozen=True):
    """One slot each ``interval_s``, ``burst`` at once after a pause.

    In any 60 s, [t, t + 60), at most ``60 / interval_s + burst - 1`` slots are taken: ``burst`` at
    t, then one each interval. From a burst of one on that is exactly the rate: of 1 a minute, the
    second leaves 60 s after the first. After a pause of ``burst`` intervals none is made up for.
    """

    interval_s: float
    burst: int

    @classmethod
    def per_minute(cls, rpm: float) -> Self:
        """Make the pace of ``rpm`` calls a minute; more than a billion are as good as no limit."""
        rpm = min(rpm, 1e9)
        return cls(MINUTE_S / rpm, max(1, math.floor(rpm * BURST_SHARE)))

    @property
    def saved_s(self) -> float:
        """For how long a slot that nobody takes is kept."""
        return (self.burst - 1) * self.interval_s

    def settled(self, state: float, now: float) -> float:
        """Return the state as it can be: after a slower pace, or a clock that was set, too late."""
        return min(state, now + self.burst * self.interval_s)

    def free_at(self, state: float, now: float, before: int = 0) -> float:
        """Say when the next slot is free, once ``before`` others have been taken."""
        taken = max(self.settled(state, now), now) + before * self.interval_s
        return max(taken - self.saved_s, now)

    def free(self, state: float, now: float) -> int:
        """Count the slots that `take` would give now."""
        ahead_s = max(self.settled(state, now) - now, 0.0)
        # A clock of days has no more than some eleven digits behind the point.
        return max(math.floor((self.saved_s - ahead_s) / self.interval_s + 1e-6) + 1, 0)

    def take(self, state: float, now: float, wanted: int) -> tuple[int, float]:
        """Take as many slots as are free, at most ``wanted``; return how many, and the new state.

        What is not used after all is given back by taking an ``interval_s`` off the state.
        """
        state = self.settled(state, now)
        taken = 0
        while taken < wanted and state - self.saved_s <= now:
            state = max(state, now) + self.interval_s
            taken += 1
        return taken, state
