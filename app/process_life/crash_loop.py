"""When a worker dies again and again: how long to wait, and when to give up."""

SETTLED_S = 10.0
"""A worker that has served for so long has come up well; its death is the first again."""
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
AT_ONCE = 2
MAX_DEATHS = 5
FEW_DEATHS = 3
LONG_S = 10.0


class Deaths:
    """The deaths of one worker and of its successors, each soon after it started.

    The first two are made good at once. Five are too many; so are three over ten seconds, where
    each start takes long: that keeps the end within 30 seconds of the first failed start.
    """

    def __init__(self) -> None:
        self._times_s: list[float] = []

    def add(self, now_s: float, served_s: float) -> float:
        """Note a death, and return how long to wait before the next start."""
        if served_s >= SETTLED_S:
            self._times_s.clear()
        self._times_s.append(now_s)
        again = len(self._times_s) - 1 - AT_ONCE
        return 0.0 if again < 0 else min(FIRST_DELAY_S * 2.0**again, LONGEST_DELAY_S)

    def are_too_many(self) -> bool:
        """Say whether another start is not worth a try."""
        deaths = len(self._times_s)
        if deaths < FEW_DEATHS:
            return False
        return deaths >= MAX_DEATHS or self._times_s[-1] - self._times_s[0] >= LONG_S
