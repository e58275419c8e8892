"""What a caller's key may ask of providers: so that one caller cannot starve the others.

Only what is not remembered is bounded, and nobody waits: what is over a bound is refused at once.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from app.auth import Caller
from app.errors import LONG_WAIT_S, ProxyError
from cache.miss_log import Full, MissLog

T = TypeVar("T")

RETRY_S = 0.001
_TEXTS = {
    "per_minute": (
        "key_rpm",
        "this key may ask {} times a minute (rpm) for what is not remembered",
    ),
    "in_flight": (
        "key_parallel",
        "this key may wait for {} counts that are not remembered at a time (max_parallel_misses)",
    ),
}


class OverKeyLimitError(ProxyError):
    """The caller's own limit: no other deployment answers, and no estimate stands in."""

    def __init__(self, caller: Caller, full: Full) -> None:
        self.limit, text = _TEXTS[full.bound]
        bound = caller.rpm if full.bound == "per_minute" else caller.max_parallel_misses
        wait_s = max(math.ceil(full.wait_s), 1)
        super().__init__(
            429,
            "rate_limit_error",
            f"{text.format(bound)}; come back in {wait_s} s",
            retry_after_s=wait_s,
            should_retry=wait_s <= LONG_WAIT_S,
            reason=f"over the key's limit: {self.limit}",
        )


class Miss:
    """One question of a key on its way to a provider: in flight until nobody waits for it there.

    1 a caller leads a flight; 2 it leaves, since it says so or hangs up; 3 the provider is still
    asked: the key still has it in flight. Who only joined another's flight leaves it with its wait.
    """

    def __init__(self, log: MissLog | None) -> None:
        self._log = log
        self._flies = False

    def led_by(self, flight: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Lead a flight, and be over with it; without a limit there is nothing to be over."""
        return flight if self._log is None else self._while_it_flies(flight)

    async def _while_it_flies(self, flight: Coroutine[Any, Any, T]) -> T:
        self._flies = True
        try:
            return await flight
        finally:
            self._flies = False
            self._end()

    def caller_left(self) -> None:
        """Be over, unless the flight goes on."""
        if not self._flies:
            self._end()

    def _end(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.leave()


NO_LIMIT = Miss(None)


class KeyLimits:
    """The keys that have limits, by their callers' names."""

    def __init__(
        self, logs: Mapping[str, MissLog], clock: Callable[[], float], note: Callable[[str], None]
    ) -> None:
        self._logs = logs
        self._clock = clock
        self._note = note

    async def enter(self, caller: Caller, *, again: bool) -> Miss:
        """Count a question that goes to a provider. Raises OverKeyLimitError.

        ``again``: the same question asks a second counter; it is one of the minute's still.
        """
        log = self._logs.get(caller.name)
        if log is None:
            return NO_LIMIT
        while (full := log.enter(self._clock(), again=again)) is False:  # noqa: ASYNC110 -- by another process
            await asyncio.sleep(RETRY_S)
        if isinstance(full, Full):
            error = OverKeyLimitError(caller, full)
            self._note(error.limit)
            raise error
        return Miss(log)
