"""A deadline for others' answers: the time for which our own loop was held does not count.

1 the loop is held by other work; 2 the reply arrives; 3 the loop turns again: reply and timer are
both due, and the timer's cancellation would win over a reply that has been here all the time.
"""

import asyncio
from types import TracebackType
from typing import Self

LATE_S = 0.005
"""A timer that fires later than this tells of a loop that was held."""
GRACE_S = 0.01
GRACES = 5


class Deadline:
    """``asyncio.timeout``, which after a stall gives the loop a few turns to read what has come."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._graces = GRACES
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due_s, self._due)
        return self

    def _due(self) -> None:
        now_s = self._loop.time()
        if self._graces and now_s - self._due_s > LATE_S:
            self._graces -= 1
            self._due_s = now_s + GRACE_S
            self._timer = self._loop.call_at(self._due_s, self._due)
        else:
            self._timeout.reschedule(now_s)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)
