"""The tiers as one: look up, promote, lead, store. The only class of this room that app/ sees.

    get ── local ──hit──────► record                     synchronous: the hot path
             │ miss
    find ── host, cluster ──► record, promoted with its true age
    enter ──────────────────► the same, or a lease to ask with (`cache.leadership`)
    store ──────────────────► local at once; host and cluster behind the answer, with the lease

A fault of a shared tier is a miss and never an error. What stands there is believed only with its
MAC (`cache.record`); what is not believed is deleted.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Any

from cache.background import Background
from cache.cluster import ClusterCache, Paced
from cache.failure import Failure
from cache.generations import Generations
from cache.hearing import Hearing
from cache.host import HostCache
from cache.leadership import Landing, Leadership, Lease, Wanted
from cache.leases import HostLeases
from cache.local import LocalTier
from cache.pace import Pace
from cache.record import BadRecordError, Codec, Record
from cache.stats import cluster_stats, host_stats

__all__ = ["Failure", "Landing", "Lease", "Paced", "Record", "Tiers", "Wanted", "differs"]

logger = logging.getLogger("tallygate.cache")

CLOSING_S = 1.0
AHEAD_S = 300
"""A record from further ahead is not believed: a clock was wrong, here or where it was written."""
MAX_BACKGROUND = 1_000
FOREVER_S = float("inf")
ALL = ("hit", "miss", "expired")
"""What is told of a look-up to the metrics."""


class Tiers:
    """Local, host and cluster. The shared ones may be absent, or out of order at any moment."""

    def __init__(
        self,
        *,
        local: LocalTier,
        codec: Codec,
        generations: Generations,
        host: HostCache | None,
        leases: HostLeases | None,
        cluster: ClusterCache | None,
        keep_s: float,
        wall_clock: Callable[[], float],
        observe: Callable[[str, str], None],
    ) -> None:
        self.local = local
        self.generations = generations
        self._codec = codec
        self._host = host
        self._leases = leases
        self._cluster = cluster
        self._keep_s = keep_s
        self._wall_clock = wall_clock
        self._observe = observe
        self._background = Background(MAX_BACKGROUND, lambda: observe("cluster", "dropped"))
        self._leadership = Leadership(self, leases, cluster, self._background, wall_clock)
        self._hearing = Hearing(generations, host, cluster)

    def get(self, key: bytes, max_age_s: float) -> Record | None:
        """Look into this process's own tier: no await, no decode."""
        return self.local.get(key, max_age_s)

    async def find(self, wanted: Wanted, *, again: bool = False) -> Landing | None:
        """Look into the shared tiers, and ask nobody; ``again`` as in ``look``."""
        if found := self.look(wanted, again=again):
            return found
        data = await self._cluster.get(wanted.key) if self._cluster else None
        if data is not None and (record := self.from_cluster(wanted, data)):
            return Landing(record, "cluster", waited=False)
        return None

    async def enter(self, wanted: Wanted, wait_s: float) -> Landing | Failure | Lease:
        """Find the record, share the failure of a leader waited for, or lead."""
        return await self._leadership.enter(wanted, wait_s)

    def store(self, key: bytes, record: Record, lease: Lease | None) -> bool:
        """Remember a provider's count, and give the lease back in the step that writes it.

        False where a count that was asked for later stands here already.
        """
        stored = self.local.put(key, record)
        try:
            data = self._codec.encode(key, record)
        except ValueError:  # a reply with more beside the count than a record holds
            return stored
        on_host, on_cluster = lease.take_off() if lease is not None else (False, False)
        if self._host is not None:
            after = self._release(key) if on_host else None
            if not self._host.put_soon(key, data, self._keep_s, after):
                self._observe("host", "dropped")
        if self._cluster is not None:
            token = lease.token if lease is not None and on_cluster else b""
            self._background.run(self._land(self._cluster, key, token, record, data))
        return stored

    def _release(self, key: bytes) -> Callable[[bool], None]:
        leases = self._leases

        def release(written: bool) -> None:  # noqa: FBT001 -- the writer's own signature
            del written
            if leases is not None:
                leases.release(key)

        return release

    async def _land(
        self, cluster: ClusterCache, key: bytes, token: bytes, record: Record, data: bytes
    ) -> None:
        before = await cluster.land(key, token, data, self._keep_s)
        # Of another generation by now: whoever ended it has compared.
        if before is None or self.generations.of(record.upstream_model) != record.generation:
            return
        old = self._decode(key, before, "cluster")
        if old is not None and differs(old, record):
            self.drifted(old, record)

    def known(self, key: bytes, *, on_host: bool) -> Record | None:
        """Return what is remembered here, or on this machine, under the key, however old."""
        record = self.local.get(key, FOREVER_S)
        if record is None and on_host:
            self._from_host(Wanted(key, FOREVER_S, FOREVER_S, bytes), told=())
            record = self.local.get(key, FOREVER_S)
        return record

    def fail(self, lease: Lease, failure: Failure) -> None:
        """End a flight that brought nothing; those who wait already share its failure."""
        self._leadership.fail(lease, failure)

    def give_back(self, lease: Lease) -> None:
        """End a flight without a word: whoever waits leads next. Harmless when it has ended."""
        self._leadership.give_back(lease)

    def look(self, wanted: Wanted, *, again: bool = False) -> Landing | None:
        """Look into what is read without waiting; of a second look the metrics hear a hit only.

        Here, too: another flight may have landed since the caller has looked.
        """
        record = self.local.get(wanted.key, wanted.max_age_s)
        if record is not None:
            return Landing(record, "local", waited=False)
        record = self._from_host(wanted, told=("hit",) if again else ALL)
        return None if record is None else Landing(record, "host", waited=False)

    def _from_host(self, wanted: Wanted, *, told: tuple[str, ...]) -> Record | None:
        """Read the host file: synchronous, a few microseconds; ``told`` goes to the metrics."""
        if self._host is None:
            return None
        try:
            data = self._host.look_up(wanted.key)
        except (sqlite3.Error, OSError):
            self._observe("host", "error")
            return None
        if data is None:
            self._tell("host", "miss", told)
            return None
        record = self._decode(wanted.key, data, "host")
        return None if record is None else self._promote(wanted, record, "host", told)

    def from_cluster(self, wanted: Wanted, data: bytes) -> Record | None:
        """Take over what the cluster holds, into the host file too."""
        record = self._decode(wanted.key, data, "cluster")
        if record is None:
            return None
        if self._host is not None:
            self._host.put_soon(wanted.key, data, self._keep_s)
        return self._promote(wanted, record, "cluster", ALL)

    def _decode(self, key: bytes, data: bytes, tier: str) -> Record | None:
        """Believe a record, or delete it."""
        try:
            record = self._codec.decode(key, data)
        except BadRecordError:
            record = None
        # From beyond any clock's error: it would outrank every true one until that time has come.
        if record is not None and record.counted_at_s <= self._wall_clock() + AHEAD_S:
            return record
        self._observe(tier, "bad")
        if tier == "host" and self._host is not None:
            self._host.delete_soon(key)
        elif self._cluster is not None:
            self._background.run(self._cluster.delete_on_bad(key))
        return None

    def _promote(
        self, wanted: Wanted, record: Record, tier: str, told: tuple[str, ...]
    ) -> Record | None:
        """Keep a record here with its true age; return it if it is young enough."""
        age_s = max(self._wall_clock() - record.counted_at_s, 0.0)
        if age_s < wanted.keep_age_s:
            self.local.put(wanted.key, record, age_s)
        # Not by the wall clock alone: what this process saw grow old stays old.
        found = self.local.get(wanted.key, wanted.max_age_s)
        self._tell(tier, "hit" if found is not None else "expired", told)
        return found

    def _tell(self, tier: str, result: str, told: tuple[str, ...]) -> None:
        if result in told:
            self._observe(tier, result)

    def drifted(self, old: Record, new: Record) -> None:
        """A provider has counted otherwise than before: what it counted before is forgotten."""
        logger.warning(
            "drift: %s counts %d where it counted %d; its remembered counts are forgotten",
            new.upstream_model,
            new.input_tokens,
            old.input_tokens,
        )
        self._observe("local", "drift")
        self.advance(new.upstream_model)

    def advance(self, model: str) -> None:
        """Forget every count of a model: here at once, elsewhere within two seconds."""
        generation = self.generations.advance(model)
        if self._host is not None:
            self._host.raise_generation(model, generation)
        if self._cluster is not None:
            self._background.run(self._cluster.raise_generation(model, generation))

    def claim(self, name: str, every_s: float) -> bool:
        """Do a thing at most once in ``every_s`` seconds on this machine; without a host: yes."""
        return self._leases is None or self._leases.claim(name.encode(), every_s)

    @property
    def has_cluster(self) -> bool:
        """Say whether there is a tier that other machines share."""
        return self._cluster is not None

    async def pace(self, name: str, pace: Pace, wanted: int, host: str) -> Paced | None:
        """Take slots of a pace that all machines share; None without a cluster that answers."""
        return await self._cluster.pace(name, pace, wanted, host) if self._cluster else None

    async def stats(self) -> dict[str, Any]:
        """Say how full each tier is, and how it does; None for one that is off. Raises nothing."""
        host, cluster = self._host, self._cluster
        return {
            "local": {"entries": len(self.local), "bytes": self.local.size_bytes},
            "host": None if host is None else await asyncio.to_thread(host_stats, host),
            "cluster": None if cluster is None else await cluster_stats(cluster),
            "generations": self.generations.ahead_of({}),
        }

    def open(self) -> None:
        """Learn the generations that hold, and go on listening for new ones."""
        self._hearing.open()

    def hear_host(self) -> None:
        """Learn at once what other workers have said: synchronous, a few microseconds."""
        self._hearing.hear_host()

    async def close(self) -> None:
        """Write what is still to be written, for a bounded time."""
        await self._hearing.close()
        await self._background.close(CLOSING_S)
        if self._cluster is not None:
            await self._cluster.close()
        if self._host is not None:
            await asyncio.to_thread(self._host.shut)
        if self._leases is not None:
            self._leases.close()


def differs(old: Record, new: Record) -> bool:
    """Say whether a later answer replaces an earlier one by another."""
    same = (old.input_tokens, old.extra) == (new.input_tokens, new.extra)
    return not same and old.asked_at_ns < new.asked_at_ns
