"""Something that proves who asks, and expires: who fetches it when, and who waits for it."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar

from adapters.base import CredentialsError

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
_MOST_DOUBLINGS = 6
NEW_S = 30.0
"""A younger proof that is refused is not worth another one."""

_HEADER_SAFE = re.compile(r"[\x20-\x7e]+")
_logger = logging.getLogger("tallygate.credentials")


def check_header_safe(name: str, granted: Iterable[str]) -> None:
    """Refuse what cannot be sent, since a line end would begin another header.

    Raises CredentialsError.
    """
    if not all(_HEADER_SAFE.fullmatch(proof) for proof in granted):
        raise CredentialsError(f"{name}: not what a header can hold")


class Expiring(Protocol):
    """A token, or keys; in seconds since the epoch, infinity for those that stay."""

    @property
    def expires_s(self) -> float: ...


T = TypeVar("T", bound=Expiring)


class Refreshed(Generic[T]):
    """One credential's proof.

    * Fresh: it is served, without an await that waits.
    * Less than ``ahead_s`` left, or half of a life shorter than twice that: whoever comes is served
      the old one and starts a refresh in the background.
    * None, or less than ``margin_s`` left: whoever comes waits for the one refresh.
    * A failed refresh keeps the old one until it truly expires. The next refresh starts no sooner
      than after 1 s, then 2, 4 … 60 s; who needs one before that gets a CredentialsError at once.
    * A refresh is a task of its own, in a thread of its own: a waiter that leaves harms no other,
      and the loop never waits.
    * Nothing runs while nobody asks.
    """

    def __init__(
        self,
        fetch: Callable[[], T],
        pool: Executor,
        clock: Callable[[], float],
        *,
        ahead_s: float,
        margin_s: float = 0.0,
    ) -> None:
        self._fetch = fetch
        self._pool = pool
        self._clock = clock
        self._ahead_s = ahead_s
        self._margin_s = margin_s
        self._value: T | None = None
        self._fetched_at_s = 0.0
        self._refresh_at_s = 0.0
        self._retry_at_s = 0.0
        self._failures = 0
        self._reason = "no credential could be fetched"
        self._flight: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """Give a proof that has not expired. Raises CredentialsError."""
        now = self._clock()
        if self._flight is None and now >= max(self._refresh_at_s, self._retry_at_s):
            self._flight = asyncio.get_running_loop().create_task(self._refresh())
        if (value := self._with_more_left_than(self._margin_s)) is not None:
            return value
        if self._flight is not None:
            # Not `await self._flight`: a cancelled waiter would take the flight with it.
            await asyncio.wait((self._flight,))
        if (value := self._with_more_left_than(0.0)) is not None:
            return value
        raise CredentialsError(self._reason)

    def renew(self) -> bool:
        """Forget what was refused, unless it is new: many requests may have been refused at once.

        True where the next one asks for the first fetch since.
        """
        if self._clock() < self._fetched_at_s + NEW_S:
            return False
        self._value, self._refresh_at_s = None, 0.0
        return self._flight is None

    def _with_more_left_than(self, seconds: float) -> T | None:
        value = self._value
        return value if value is not None and self._clock() < value.expires_s - seconds else None

    async def _refresh(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            self._fetched(await loop.run_in_executor(self._pool, self._fetch))
        except CredentialsError as error:
            self._failed(error.reason)
        except Exception as error:  # noqa: BLE001 -- whatever it says may quote a secret
            self._failed(f"no credential could be fetched: {type(error).__name__}")
        finally:
            self._flight = None

    def _failed(self, reason: str) -> None:
        wait_s = min(FIRST_BACKOFF_S * 2 ** min(self._failures, _MOST_DOUBLINGS), MAX_BACKOFF_S)
        self._failures += 1
        self._reason = reason
        self._retry_at_s = self._clock() + wait_s
        _logger.warning("%s; trying again in %.0f s at the earliest", reason, wait_s)

    def _fetched(self, value: T) -> None:
        now = self._clock()
        life_s = value.expires_s - now
        if life_s <= 0:
            raise CredentialsError("a new credential has expired; is this machine's clock right?")
        self._value = value
        self._fetched_at_s = now
        self._refresh_at_s = now + max(life_s - self._ahead_s, life_s / 2)
        self._failures = 0

    async def close(self) -> None:
        """End what is being fetched; a thread in the middle of it ends by itself."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,))
