"""Who asks the provider: one leader per key among all workers and machines that share a tier.

    host lease ──held by another worker: look into the host file, poll──┐
      │ taken          ◄────────────────────────────────────────────────┘
    look into the host file: who held it before may have brought it
    cluster: record or lease, one round trip ──held by another machine: poll──┐
      │ led            ◄──────────────────────────────────────────────────────┘
    Lease ── ended by exactly one of: a stored record, a shared failure, nothing

Only the holder of the host's lease speaks to the cluster, so that one worker per machine polls.
A leader that dies is replaced: the kernel frees its host lease, the cluster's runs out.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

from msgspec import Struct

from cache.background import Background
from cache.cluster import Away, ClusterCache, Failed, Found, Held
from cache.failure import Failure
from cache.leases import HostLeases, LeaseState
from cache.record import Record

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.05
MAX_LOOKS_PER_S = 4000
RENEW_EVERY_S = 1.0


class Wanted(Struct, frozen=True, gc=False):
    """A record that a caller looks for in the shared tiers."""

    key: bytes
    max_age_s: float
    keep_age_s: float
    """One that is older than ``max_age_s`` but not than this may still serve as a stale answer."""
    credential: Callable[[], bytes]
    """8 bytes of what the caller would ask with (`cache.failure`)."""


class Landing(Struct, frozen=True, gc=False):
    """A record that somebody else has asked for."""

    record: Record
    tier: str
    waited: bool
    """It was being asked for at the same moment: a collapsed flight rather than a hit."""


class Lease:
    """The right and duty to ask for one key; given back once, whatever happens."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.on_host = False
        self.on_cluster = False
        self.has_stale = False
        self._renewal: asyncio.Task[None] | None = None

    @cached_property
    def token(self) -> bytes:
        """Tells its holder from others, on the cluster."""
        return secrets.token_bytes(12)

    def renew(self, cluster: ClusterCache) -> None:
        """Keep the cluster's lease alive for as long as this worker flies."""

        async def forever() -> None:
            while True:
                await asyncio.sleep(RENEW_EVERY_S)
                await cluster.renew(self.key, self.token)

        self.on_cluster = True
        self._renewal = asyncio.get_running_loop().create_task(forever())

    def take_off(self) -> tuple[bool, bool]:
        """Say once on which tiers it is held, and hold it no longer."""
        held = self.on_host, self.on_cluster
        self.on_host = self.on_cluster = False
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        return held


class Shelves(Protocol):
    """What is read while waiting: `cache.tiers`."""

    def look(self, wanted: Wanted, *, again: bool = False) -> Landing | None: ...

    def from_cluster(self, wanted: Wanted, data: bytes) -> Record | None: ...


class Leadership:
    """Finds the leader of a flight; without leases everybody leads."""

    def __init__(
        self,
        shelves: Shelves,
        leases: HostLeases | None,
        cluster: ClusterCache | None,
        background: Background,
        wall_clock: Callable[[], float],
    ) -> None:
        self._shelves = shelves
        self._leases = leases
        self._cluster = cluster
        self._background = background
        self._wall_clock = wall_clock
        self._waiting = 0

    async def enter(self, wanted: Wanted, wait_s: float) -> Landing | Failure | Lease:
        """Share what another leader brings, or lead.

        Waits at most ``wait_s`` seconds for another's flight and then leads without a lease: one
        that hangs does not hang everybody.
        """
        lease = Lease(wanted.key)
        try:
            entered = await self._enter(wanted, lease, wait_s)
        except BaseException:
            self.give_back(lease)
            raise
        if entered is not lease:
            self.give_back(lease)
        return entered

    async def _enter(
        self, wanted: Wanted, lease: Lease, wait_s: float
    ) -> Landing | Failure | Lease:
        started_ns = time.monotonic_ns()
        give_up_s = time.monotonic() + wait_s
        waited, pause_s = False, FIRST_PAUSE_S
        while True:
            leads = lease.on_host or self._take(lease)
            # With the lease, or else: 1 A and B look and miss; 2 A leads, stores, gives its lease
            # back; 3 B takes it and asks for what is there. Without it for what needs no waiting.
            if (leads or not waited) and (found := self._shelves.look(wanted, again=waited)):
                return Landing(found.record, found.tier, waited)
            if leads:
                if waited and (failure := self._shared(wanted, started_ns)):
                    return failure
                entered = await self._enter_cluster(wanted, lease, waited=waited)
                if entered is not None:
                    return entered
            if time.monotonic() >= give_up_s:
                self.give_back(lease)
                return lease
            waited = True
            await self._pause(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    async def _pause(self, pause_s: float) -> None:
        """Wait before the next look; all who wait look MAX_LOOKS_PER_S times at the most."""
        self._waiting += 1
        try:
            await asyncio.sleep(max(pause_s, self._waiting / MAX_LOOKS_PER_S))
        finally:
            self._waiting -= 1

    def _take(self, lease: Lease) -> bool:
        """Take the host's lease; False while another worker holds it. Without leases: go on."""
        if self._leases is None:
            return True
        state = self._leases.take(lease.key)
        lease.on_host = state is LeaseState.TAKEN
        return state is not LeaseState.HELD

    def _shared(self, wanted: Wanted, since_ns: int) -> Failure | None:
        if self._leases is None:
            return None
        failure = self._leases.failure(wanted.key, since_ns, time.monotonic_ns())
        return failure if failure is not None and _concerns(failure, wanted) else None

    async def _enter_cluster(
        self, wanted: Wanted, lease: Lease, *, waited: bool
    ) -> Landing | Failure | Lease | None:
        """Ask the cluster for the record or the lease; None while another machine leads."""
        if self._cluster is None:
            return lease
        fresh_from_s = self._wall_clock() - wanted.max_age_s
        enter = self._cluster.enter
        entered = await enter(wanted.key, lease.token, fresh_from_s, waited=waited)
        if isinstance(entered, Failed) and not _concerns(entered.failure, wanted):
            entered = await enter(wanted.key, lease.token, fresh_from_s, waited=False)
        if isinstance(entered, Found):
            record = self._shelves.from_cluster(wanted, entered.value)
            return Landing(record, "cluster", waited) if record else lease
        if isinstance(entered, Failed):
            return entered.failure
        if isinstance(entered, Away):
            # Its reply may be lost, and the lease taken: it is given back with the others.
            lease.on_cluster = True
            return lease
        if entered.stale is not None and not lease.has_stale:
            lease.has_stale = True
            self._shelves.from_cluster(wanted, entered.stale)
        if isinstance(entered, Held):
            return None
        lease.renew(self._cluster)
        return lease

    def fail(self, lease: Lease, failure: Failure) -> None:
        """End a flight that brought nothing; those who wait already share its failure."""
        on_host, on_cluster = lease.take_off()
        if on_host and self._leases is not None:
            self._leases.fail(lease.key, failure, time.monotonic_ns())
            self._leases.release(lease.key)
        if on_cluster and self._cluster is not None:
            self._background.run(self._cluster.fail(lease.key, lease.token, failure))

    def give_back(self, lease: Lease) -> None:
        """End a flight without a word: whoever waits leads next."""
        on_host, on_cluster = lease.take_off()
        if on_host and self._leases is not None:
            self._leases.release(lease.key)
        if on_cluster and self._cluster is not None:
            self._background.run(self._cluster.release(lease.key, lease.token))


def _concerns(failure: Failure, wanted: Wanted) -> bool:
    """Say whether a failure would be the caller's too: another credential's 429 would not."""
    return not failure.credential or failure.credential == wanted.credential()
