"""Stops asking what does not answer, so that its fault costs a few requests and then none."""

import time
from collections.abc import Callable

ERRORS_IN_A_ROW = 3


class Breaker:
    """Closed until ``threshold`` errors in a row; then open until a probe closes it.

    Synchronous, and of one event loop. Errors that overlap in time are one step of the row: a pause
    of this process makes everything that was out look late at once.

        A ├──────┤ fails: 1                   E, asked while closed, succeeds after D:
        B  ├──────┤ fails: still 1            still open, for only a probe costs no request
        C          ├──────┤ fails: 2          anything
        D                  ├──────┤ fails: 3, open ────── probe: closed
    """

    def __init__(
        self, threshold: int = ERRORS_IN_A_ROW, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threshold = threshold
        self._clock = clock
        self._row = 0
        self._stepped_at = float("-inf")
        self._opened_at: float | None = None
        self.errors = 0
        """Failures since the start."""
        self.openings = 0
        """How often it has opened since the start."""

    @property
    def is_open(self) -> bool:
        """Say whether nothing is to be asked."""
        return self._opened_at is not None

    @property
    def open_s(self) -> float:
        """Seconds since it opened; 0 while it is closed."""
        return 0.0 if self._opened_at is None else self._clock() - self._opened_at

    def now(self) -> float:
        """Return the time at which an attempt begins, for ``failed``."""
        return self._clock()

    def failed(self, began: float) -> bool:
        """Count an error, swallowed ones too; return whether this one opened it.

        ``began`` is what ``now`` said when the attempt took off.
        """
        self.errors += 1
        if began < self._stepped_at:
            return False
        self._stepped_at = self._clock()
        self._row += 1
        return self._row >= self._threshold and self.open()

    def succeeded(self) -> None:
        """End the row of errors."""
        self._row = 0

    def open(self) -> bool:
        """Open at once, as after a failed probe; return whether it was closed before."""
        if self._opened_at is not None:
            return False
        self._opened_at = self._clock()
        self.openings += 1
        return True

    def close(self) -> bool:
        """Close, as after a probe that succeeded; return whether it was open before."""
        was_open = self._opened_at is not None
        self._opened_at = None
        self._row = 0
        return was_open

    def __repr__(self) -> str:
        state = f"open for {self.open_s:.1f} s" if self.is_open else f"closed, {self._row} in a row"
        return f"<Breaker: {state}, {self.errors} errors, {self.openings} openings>"
