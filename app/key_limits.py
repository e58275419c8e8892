"""What a caller's key may ask of providers: so that one caller cannot starve the others.

Only what is not remembered is bounded, and nobody waits: what is over a bound is refused at once.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping

from app.auth import Caller
from app.errors import LONG_WAIT_S, ProxyError
from cache.miss_log import Full, MissLog

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


class KeyLimits:
    """The keys that have limits, by their callers' names."""

    def __init__(
        self, logs: Mapping[str, MissLog], clock: Callable[[], float], note: Callable[[str], None]
    ) -> None:
        self._logs = logs
        self._clock = clock
        self._note = note

    @contextlib.asynccontextmanager
    async def miss(self, caller: Caller, *, again: bool) -> AsyncIterator[None]:
        """Count a question that goes to a provider, while it does. Raises OverKeyLimitError.

        ``again``: the same question asks a second counter; it is one of the minute's still.
        """
        log = self._logs.get(caller.name)
        if log is None:
            yield
            return
        while (full := log.enter(self._clock(), again=again)) is False:  # noqa: ASYNC110 -- by another process
            await asyncio.sleep(RETRY_S)
        if isinstance(full, Full):
            error = OverKeyLimitError(caller, full)
            self._note(error.limit)
            raise error
        try:
            yield
        finally:
            log.leave()
