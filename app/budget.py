"""The rpm of a deployment as a limit: who goes now, who waits, who is refused at once.

take ─ a slot is free, nobody waits ─────────────────────────────► goes
  │ join ─ no place, or the turn comes too late ─────────────────► OverBudgetError
  │ waits, first come first served; one task per deployment:
  └─ sleep until the slot ─ host's slot ─ cluster's slot ────────► the oldest goes
                                ▲              │ none, or another host has it
                                └── given back ┘   (the cluster is away: on by itself)
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from adapters.base import Deployment, UpstreamError
from app.limits import wait_headers
from app.log import describe, logger
from app.waiters import TooLateError, Waiter, Waiters
from cache.host_pace import HostPace
from cache.pace import Pace
from cache.tiers import Paced

MAX_RETRY_AFTER_S = 3600
AFTER_FAULT_S = 1.0


class OverBudgetError(Exception):
    """The deployment's budget has no call left in time; one is free in ``retry_after_s``."""

    def __init__(self, deployment: Deployment, retry_after_s: float) -> None:
        super().__init__(f"{deployment.name}: over its rpm, {retry_after_s:.3f} s")
        self.deployment = deployment
        self.retry_after_s = retry_after_s

    def refusal(self) -> UpstreamError:
        """Say to the caller what limit it is, and when to come back."""
        one = self.deployment
        wait_s = min(max(math.ceil(self.retry_after_s), 1), MAX_RETRY_AFTER_S)
        return UpstreamError(
            status=429,
            type="rate_limit_error",
            message=f"{one.alias} may be counted {one.rpm:g} times a minute (rpm), what is "
            f"remembered always; the next call is free in {wait_s} s",
            reason=f"over the rpm of {one.name}",
            headers=wait_headers(wait_s),
        )


class Left(NamedTuple):
    """What is left of an rpm at this moment, for all workers of the server."""

    calls: int
    """May leave at once."""
    burst: int
    """As many could, after a pause."""
    waiting: int


class Cluster(Protocol):
    """Where all machines share a pace: `cache.tiers`."""

    @property
    def has_cluster(self) -> bool: ...

    async def pace(self, name: str, pace: Pace, wanted: int, host: str) -> Paced | None: ...


class Budgets:
    """The budgets of this worker's deployments; one without an ``rpm`` is never held up."""

    def __init__(self, budgets: Mapping[str, "Budget"], note: Callable[[str], None]) -> None:
        self._budgets = budgets
        self._note = note

    def wait_s(self, deployment: Deployment) -> float:
        """Expect the wait of a call that would come now; infinite where no place is left."""
        budget = self._budgets.get(deployment.name)
        return 0.0 if budget is None else budget.wait_s()

    def left(self, deployment: Deployment) -> Left | None:
        """Say what is left; None for one without an rpm. Takes nothing."""
        budget = self._budgets.get(deployment.name)
        return None if budget is None else budget.left()

    async def take(self, deployment: Deployment, until: float) -> None:
        """Return when the call may leave. ``until`` is on the monotonic clock.

        Raises OverBudgetError: at once, where its turn would not come in time.
        """
        budget = self._budgets.get(deployment.name)
        if budget is None:
            return
        try:
            await budget.take(until)
        except TooLateError as error:
            self._note("rpm")
            raise OverBudgetError(deployment, error.wait_s) from None

    async def close(self) -> None:
        """Refuse whoever still waits."""
        for budget in self._budgets.values():
            await budget.close()


class Budget:
    """One deployment's budget in this worker: its waiters, and the task that lets them go."""

    def __init__(
        self,
        name: str,
        pace: Pace,
        host_pace: HostPace,
        *,
        cluster: Cluster,
        host: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._pace = pace
        self._host_pace = host_pace
        self._cluster = cluster
        self._host = host
        self._clock = clock
        self._waiters = Waiters(host_pace)
        self._pump: asyncio.Task[None] | None = None

    def wait_s(self) -> float:
        """Expect the wait of one who comes now."""
        return self._waiters.wait_s(self._clock())

    def left(self) -> Left:
        """Say what is left. Takes nothing."""
        now, pace = self._clock(), self._host_pace
        return Left(pace.left(now), self._pace.burst, pace.waiting(now))

    async def take(self, until: float) -> None:
        """Return when the call may leave. Raises TooLateError."""
        now = self._clock()
        if not self._cluster.has_cluster and self._waiters.go_at_once(now):
            return
        told: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        waiter = Waiter(until, lambda wait_s: _tell(told, wait_s))
        self._waiters.join(waiter, now)
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._let_go())
        try:
            async with asyncio.timeout(until - now):
                wait_s = await told
        except TimeoutError:
            # 1 the slot is handed over; 2 the time is over; 3 we wake up: with the slot.
            if not (told.done() and not told.cancelled()):
                now = self._clock()
                self._waiters.quit(waiter, now)
                # Not `wait_s`: another may have joined as the last there is a place for.
                raise TooLateError(self._host_pace.free_in_s(now, len(self._waiters))) from None
            wait_s = told.result()
        except asyncio.CancelledError:
            self._leave(waiter, told)
            raise
        if wait_s is not None:
            raise TooLateError(wait_s)

    def _leave(self, waiter: Waiter, told: "asyncio.Future[float | None]") -> None:
        now = self._clock()
        if told.done() and not told.cancelled() and told.result() is None:
            self._waiters.pass_on(now)
        else:
            self._waiters.quit(waiter, now)

    async def _let_go(self) -> None:
        try:
            while self._waiters:
                now = self._clock()
                slots, pause_s = self._waiters.claim(now)
                if slots:
                    await self._use(slots)
                elif self._waiters:
                    await asyncio.sleep(pause_s)
        except Exception as error:  # noqa: BLE001 -- whoever waits must hear of it
            logger.error("a budget: unexpected %s", describe(error))
            self._waiters.refuse_all(AFTER_FAULT_S)
        finally:
            self._pump = None

    async def _use(self, slots: int) -> None:
        """Let as many go as this host and the cluster allow."""
        if self._cluster.has_cluster:
            try:
                paced = await self._cluster.pace(self._name, self._pace, slots, self._host)
            except asyncio.CancelledError:
                self._host_pace.give_back(slots)
                raise
            now = self._clock()
            if paced is None:
                self._host_pace.miss(now, slots)
            else:
                self._host_pace.hear(now + paced.wait_s, paced.hosts)
                if paced.taken < slots:
                    self._host_pace.give_back(slots - paced.taken)
                slots = paced.taken
        self._waiters.go(slots, self._clock())

    async def close(self) -> None:
        """End the task, and refuse whoever waits."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait((self._pump,))
        self._waiters.refuse_all(AFTER_FAULT_S)


def _tell(told: "asyncio.Future[float | None]", wait_s: float | None) -> bool:
    if told.done():
        return False
    told.set_result(wait_s)
    return True
