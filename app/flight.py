"""One flight: from a miss in this worker to a count that is remembered everywhere.

tiers.enter ──record──────────────────────────────────────────► Landed(cache or coalesced)
   │       └──another leader's failure────────────────────────► Landed(error)
   │ lease
dispatch.ask ─ tiers.store, or tiers.fail: the lease is over ──► Landed(live), Landed(error)
"""

import hashlib
import re
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from adapters.base import CountRequest, Deployment, Secret, UpstreamError
from app.dispatch import Dispatcher
from app.freshness import Freshness, Lifetime
from app.leader import Journey, Outcome
from app.routing import Pool
from app.telemetry.layout import ERROR_TYPES
from cache.tiers import Failure, Landing, Lease, Record, Tiers, Wanted, differs

_OWN_STATUSES = frozenset({401, 402, 403, 429, 504})
"""Failures of those who ask with this credential, and for so long: others are told nothing."""
_SHARED_WITHOUT_STATUS = frozenset({502, 504})
TOO_MANY, BAD_GATEWAY, CLIENT_ERRORS, SERVER_ERRORS = 429, 502, 400, 500
_NO_FAULT_OF_OURS = frozenset({TOO_MANY, 504})
_SECONDS = re.compile(r"(\d{1,9})(?:\.\d+)?")
NOTHING = UpstreamError(502, "api_error", "the provider gave no answer", "no answer")


class Ask(Struct, frozen=True, gc=False):
    """What a flight asks, whom, and under which key the answer is remembered."""

    request: CountRequest
    pool: Pool
    as_caller: bool
    """With the caller's own credential, which the pool's only entry carries."""
    freshness: Freshness
    lifetime: Lifetime
    max_age_s: float
    key: bytes
    generation: int
    """Of the model, as it stands in the key: another may begin while the flight is out."""
    rekey: Callable[[], bytes]
    """Composes the key of the generation that holds now."""
    timeout_s: float


class Landed(Struct, frozen=True, gc=False):
    """How one flight ended: a record, or the error that each waiter raises for itself."""

    record: Record | None = None
    error: UpstreamError | None = None
    source: str = ""
    """live, cache (found in a shared tier) or coalesced (another worker's flight)."""
    tier: str = ""
    stored: bool = False
    deployment: Deployment | None = None
    """Whose count it is, where one was asked."""


class Flights:
    """Leads flights; knows the tiers and who asks, but neither callers nor routes."""

    def __init__(self, dispatcher: Dispatcher, tiers: Tiers, clock_ns: Callable[[], int]) -> None:
        self._dispatcher = dispatcher
        self._tiers = tiers
        self._clock_ns = clock_ns
        self._last_ns = 0

    async def fly(self, ask: Ask, journey: Journey) -> Landed:
        """Find or ask. Raises nothing."""
        started = time.monotonic()
        fresh = ask.freshness
        keep_s = ask.lifetime.keep_s
        wanted = Wanted(ask.key, ask.max_age_s, keep_s, lambda: fingerprint(ask.pool))
        lease: Lease | None = None
        # What is never fresh is found by nobody, so that a lease would only make a queue.
        if not fresh.no_cache and ask.max_age_s > 0:
            # One that must not be remembered leads nobody who expects it to be.
            entered = (
                await self._tiers.find(wanted)
                if fresh.no_store
                else await self._tiers.enter(wanted, ask.timeout_s / 2)
            )
            if isinstance(entered, Landing):
                source = "coalesced" if entered.waited else "cache"
                return Landed(entered.record, source=source, tier=entered.tier)
            if isinstance(entered, Failure):
                return Landed(error=_shared_error(entered))
            lease = entered
        try:
            left_s = ask.timeout_s - (time.monotonic() - started)
            return await self._ask(ask, lease, left_s, journey)
        finally:
            if lease is not None:
                self._tiers.give_back(lease)

    async def _ask(
        self, ask: Ask, lease: Lease | None, timeout_s: float, journey: Journey
    ) -> Landed:
        """Ask the provider, and remember its count before any waiter goes on."""
        # Who holds the host's lease has just looked into the file.
        alone = lease is None or not lease.on_host
        before = self._tiers.known(ask.key, on_host=alone)
        asked_at_ns = self._take_off_ns(before)
        outcome = await self._dispatcher.ask(
            ask.request, ask.pool, timeout_s, journey, as_caller=ask.as_caller
        )
        if outcome.counted is None:
            if lease is not None and (failure := _to_share(outcome, ask.pool)):
                self._tiers.fail(lease, failure)
            return Landed(error=outcome.error)
        record = Record(
            input_tokens=outcome.counted.input_tokens,
            counted_at_s=outcome.counted_at_s,
            extra=outcome.counted.extra,
            dropped=outcome.dropped,
            asked_at_ns=asked_at_ns,
            upstream_model=ask.pool.first.endpoint.upstream_model,
            generation=ask.generation,
        )
        stored = self._remember(ask, record, lease)
        return Landed(record, source="live", stored=stored, deployment=outcome.deployment)

    def _take_off_ns(self, before: Record | None) -> int:
        """Say when this question is asked: after all that is known, whatever the clock says."""
        known_ns = before.asked_at_ns if before is not None else 0
        self._last_ns = max(self._clock_ns(), self._last_ns + 1, known_ns + 1)
        return self._last_ns

    def _remember(self, ask: Ask, record: Record, lease: Lease | None) -> bool:
        """Store the count, and forget the model's others where it replaces another number."""
        model = record.upstream_model
        alone = lease is None or not lease.on_host
        before = self._tiers.known(ask.key, on_host=alone)
        differing = before is not None and differs(before, record)
        if differing:
            self._tiers.hear_host()
        # 1 a slow flight takes off; 2 a later one finds drift, or an operator purges: a new
        # generation; 3 the slow one lands. It belongs to what was forgotten: it neither ends the
        # new generation nor is stored in it.
        outdated = self._tiers.generations.of(model) != ask.generation
        drifted = differing and not outdated
        if drifted and before is not None:
            self._tiers.drifted(before, record)
        stored = False
        if not ask.freshness.no_store:
            # Under the old key too: those who wait for this lease look there.
            stored = self._tiers.store(ask.key, record, lease)
        if drifted and not ask.freshness.no_store:
            now = msgspec.structs.replace(record, generation=self._tiers.generations.of(model))
            stored = self._tiers.store(ask.rekey(), now, None)
        return stored and not outdated


def _to_share(outcome: Outcome, pool: Pool) -> Failure | None:
    """Say what those who wait on other workers need to know, if the provider was asked at all.

    Not that it does not count the model: each worker turns to the alternate by itself.
    """
    error = outcome.error
    if error is None or error.model_not_counted:
        return None
    if not error.upstream_status and error.status not in _SHARED_WITHOUT_STATUS:
        return None
    ours = error.status == BAD_GATEWAY and CLIENT_ERRORS <= error.upstream_status < SERVER_ERRORS
    if ours and not error.credential_fault:
        return None  # those who wait must not take it for an outage
    own = error.credential_fault or error.status in _OWN_STATUSES
    mark = fingerprint(pool) if own else b""
    # A type that the provider made up is its text, and this is kept for others.
    type_ = error.type if error.type in ERROR_TYPES else "api_error"
    return Failure(error.status, type_, _retry_after_s(error), mark)


def _retry_after_s(error: UpstreamError) -> int:
    found = _SECONDS.fullmatch(dict(error.headers).get("retry-after", ""))
    return min(int(found[1]), 3600) if found else 0


def _shared_error(failure: Failure) -> UpstreamError:
    headers = (("retry-after", str(failure.retry_after_s)),) if failure.retry_after_s else ()
    came_from_provider = failure.status not in _SHARED_WITHOUT_STATUS
    return UpstreamError(
        status=failure.status,
        type=failure.type,
        message="this very question has just failed for another request; ask again for the reason",
        reason=f"shared: status {failure.status}",
        upstream_status=failure.status if came_from_provider else 0,
        headers=headers,
        credential_fault=bool(failure.credential) and failure.status not in _NO_FAULT_OF_OURS,
    )


def fingerprint(pool: Pool) -> bytes:
    """Tell the credentials and deadlines of pools apart by 8 bytes that give nothing away."""
    specs = [one.endpoint.credential for one in pool.members]
    named = [(type(spec).__name__, spec) for spec in specs]
    shown = msgspec.msgpack.encode((named, pool.first.timeout_s), enc_hook=_reveal)
    return hashlib.sha256(b"tallygate credential" + shown).digest()[:8]


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)
