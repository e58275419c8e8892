"""All machines' tier: one Redis or Valkey server, asked through aiocache.

    enter ── a record ────────────────────────────────► Found
      │ none ── another's lease ──────────────────────► Held: ask again soon, with waited=True
      │ none ── its last leader's failure, waited ────► Failed
      │ else: the lease is this token's ──────────────► Led: count, renewing; then land or fail
      └ the server cannot be asked ───────────────────► Away: as if there were no cluster

No operation raises anything but CancelledError, and none takes longer than its deadline, connecting
included. While the breaker is open, none asks at all; a probe in the background closes it.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from cache._cluster_entered import Away, Entered, Failed, Found, Held, Led, read_failure
from cache._cluster_faults import AwayError
from cache._cluster_link import PROBE_S, Counters, Link
from cache._cluster_pace import Paced, take_slots
from cache._cluster_scripts import ENTER, FAIL, LAND, RAISE, RELEASE, RENEW, Script, enter_args
from cache._cluster_upkeep import BATCH, read, read_generations, read_stats, scan, unlink
from cache.breaker import Breaker
from cache.cluster_url import check_namespace, parse
from cache.failure import LASTS_S, Failure
from cache.generations import latest_generation
from cache.pace import Pace

__all__ = [
    "Away",
    "AwayError",
    "ClusterCache",
    "Entered",
    "Failed",
    "Found",
    "Held",
    "Led",
    "Paced",
]

LEASE_MS = 3_000
"""A leader that dies is replaced after this time; one that lives renews each second."""
LONGEST_S = 10 * 365 * 86_400
ALL_FRESH = float("-inf")


class ClusterCache:
    """Records, leases and generations of all machines that share a server and a namespace."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "tallygate",
        timeout_s: float = 0.05,
        lease_ms: int = LEASE_MS,
    ) -> None:
        """Raise ValueError naming the part of the URL, or the namespace, that is wrong."""
        self._namespace = check_namespace(namespace)
        self._lease_ms = lease_ms
        self.breaker = Breaker()
        self._link = Link(parse(url), timeout_s, self.breaker)
        self._generations = f"{namespace}:generations"
        self._record_prefix = f"{namespace}:count:"
        self._owed: dict[str, int] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self._probe_name = f"{namespace}:probe:{{{secrets.token_hex(8)}}}"

    @property
    def counters(self) -> Counters:
        """What happened since the start."""
        return self._link.counters

    async def get(self, key: bytes) -> bytes | None:
        """Return what stands under the key, or None."""
        return await self._link.ask(lambda: read(self._link, self._record(key)))

    async def enter(
        self, key: bytes, token: bytes, fresh_from_s: float = ALL_FRESH, *, waited: bool
    ) -> Entered:
        """Find a record counted after ``fresh_from_s`` or take the lease, in one round trip.

        ``fresh_from_s`` is in seconds since 1970. ``waited`` says that this caller has met
        another's lease before: it shares that flight's failure, where a newcomer takes the lease
        over. A token that asks again keeps its lease.
        """
        names = [self._record(key), self._lease(key)]
        args = enter_args(token, self._lease_ms, fresh_from_s, waited=waited)

        async def work() -> tuple[bytes, bytes, int]:
            return _three(await self._link.run(ENTER, names, *args))

        try:
            reply = await self._link.ask(work)
        except asyncio.CancelledError:
            # It may be on its way: nobody would ever land what this caller has been given.
            self._release_soon(key, token)
            raise
        if reply is None:
            return Away()
        tag, payload, bad = reply
        self.counters.bad += bad
        if tag == b"found":
            return Found(payload)
        if tag != b"failed":
            return (Led if tag == b"led" else Held)(payload or None)
        failure = read_failure(payload)
        if failure is None:  # nobody of ours wrote it: it stands for nothing
            self.counters.bad += 1
            return await self.enter(key, token, fresh_from_s, waited=False)
        return Failed(failure)

    async def renew(self, key: bytes, token: bytes) -> bool:
        """Keep the lease for another LEASE_MS; False where it is lost, or nobody can tell."""
        return await self._own(RENEW, key, token, self._lease_ms)

    async def land(
        self, key: bytes, token: bytes, value: bytes | None, ttl_s: float
    ) -> bytes | None:
        """Store the value unless a newer one stands there, give back the lease if it is ours.

        Returns what stood there before; of two values the greater ``record.ORDER`` is the newer.
        """

        async def work() -> bytes | None:
            names = [self._record(key), self._lease(key)]
            store = value if value is not None and ttl_s > 0 else b""
            ttl_ms = max(1, int(min(ttl_s, LONGEST_S) * 1000))
            reply = await self._link.run(LAND, names, token, store, ttl_ms)
            before: bytes | None
            before, _, bad = _three(reply)
            self.counters.bad += bad
            return before

        return await self._link.ask(work)

    async def fail(self, key: bytes, token: bytes, failure: Failure) -> None:
        """Put a failure in the lease's place, for those who wait already."""
        data = msgspec.msgpack.encode(failure)
        await self._own(FAIL, key, token, data, int(LASTS_S * 1000))

    async def release(self, key: bytes, token: bytes) -> None:
        """Give the lease back without a word: whoever waits leads next."""
        await self._own(RELEASE, key, token)

    def _release_soon(self, key: bytes, token: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self.release(key, token))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _own(self, script: Script, key: bytes, token: bytes, *args: bytes | int) -> bool:
        """Do what only the lease's holder may; say whether this token is the holder."""
        name = self._lease(key)

        async def work() -> bool:
            return bool(await self._link.run(script, [name], token, *args))

        return await self._link.ask(work) or False

    async def pace(self, name: str, pace: Pace, wanted: int, host: str) -> Paced | None:
        """Take slots of a pace that all machines share; None where nobody can tell.

        Then the caller goes by its own pace, and what it takes so is told to the server later:
        all of ``wanted``. Not after a silence: the server has counted it most likely.
        """
        owed = self._owed.pop(name, 0)
        if self.breaker.is_open:
            self._owed[name] = min(owed + wanted, pace.burst)
        key = f"{self._namespace}:pace:{{{name}}}"
        take = partial(take_slots, self._link, key, pace, wanted, host, owed=owed)
        return await self._link.ask(take)

    async def generations(self) -> dict[str, int] | None:
        """Return the generations that anybody has raised here; None where nobody can tell."""

        async def work() -> dict[str, int]:
            return await read_generations(self._link, self._generations)

        return await self._link.ask(work)

    async def raise_generation(self, model: str, generation: int) -> bool:
        """Keep the greater generation of a model; False where it could not be told.

        Generations are not negative and below 2^63.
        """
        written = b"%020d" % generation
        latest = b"%020d" % latest_generation(time.time_ns() / 1e9)

        async def work() -> bool:
            args = (model.encode(), written, latest)
            return bool(await self._link.run(RAISE, [self._generations], *args))

        return await self._link.ask(work) or False

    async def delete_on_bad(self, key: bytes) -> None:
        """Remove what was refused as a record of this key, and count it."""
        self.counters.bad += 1
        await self.delete([key])

    async def delete(self, keys: Iterable[bytes]) -> int | None:
        """Remove records; return how many stood there, or None where that is not known."""
        names = [self._record(key) for key in keys]
        removed = 0
        for start in range(0, len(names), BATCH):
            gone = await self._link.ask(partial(unlink, self._link, names[start : start + BATCH]))
            if gone is None:
                return None
            removed += gone
        return removed

    async def stats(self) -> dict[str, str | int] | None:
        """Return the server's name, version, used memory and number of keys, other people's too."""

        async def work() -> dict[str, str | int]:
            try:
                return await read_stats(self._link)
            except ResponseError:  # rules that forbid INFO keep no count from being looked up
                return {}

        return await self._link.ask(work)

    def scan(self) -> AsyncIterator[tuple[bytes, bytes, float]]:
        """Yield key, value and seconds to live of every record of this namespace.

        A record that is written meanwhile may be missed or come twice. For the command line: asks
        whatever the breaker says, and raises AwayError rather than end early as if complete.
        """
        return scan(self._link, self._record_prefix)

    async def probe_forever(self) -> None:
        """Look after the breaker, until cancelled: once at the start, then whenever it is open."""
        await self._link.probe(self._probe_name)
        while True:
            await asyncio.sleep(PROBE_S)
            if self.breaker.is_open:
                await self._link.probe(self._probe_name)

    async def close(self) -> None:
        """Close the connections. Never raises."""
        if self._releasing:
            await asyncio.wait(self._releasing)
        await self._link.close()

    def _record(self, key: bytes) -> str:
        return f"{self._record_prefix}{{{key.hex()}}}"

    def _lease(self, key: bytes) -> str:
        return f"{self._namespace}:lease:{{{key.hex()}}}"

    def __repr__(self) -> str:
        return f"<ClusterCache {self._link.server} {self._namespace}: {self.breaker!r}>"


def _three(reply: object) -> tuple[Any, Any, int]:
    if not isinstance(reply, list) or len(reply) != 3:  # noqa: PLR2004
        raise AwayError
    first, second, bad = reply
    return first, second, int(bad)
