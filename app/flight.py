"""One flight: from a miss in this worker to a count that is remembered everywhere.

tiers.enter ──record──────────────────────────────────────────► Landed(cache or coalesced)
   │       └──another leader's failure────────────────────────► Landed(error)
   │ lease
leader.lead ─ tiers.store, or tiers.fail: the lease is over ──► Landed(live), Landed(error)
"""

import hashlib
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from adapters.base import CountRequest, CredentialSpec, Deployment, Secret, UpstreamError
from app.freshness import Freshness, Lifetime
from app.leader import Journey, Leader, Outcome
from app.log import logger
from cache.tiers import Failure, Landing, Lease, Record, Tiers, Wanted, differs

_CREDENTIAL_STATUSES = frozenset({401, 402, 403, 429})
_SHARED_WITHOUT_STATUS = frozenset({502, 504})
NOTHING = UpstreamError(502, "api_error", "the provider gave no answer", "no answer")


class Ask(Struct, frozen=True):
    """What a flight asks, whom, and under which key the answer is remembered."""

    request: CountRequest
    deployment: Deployment
    freshness: Freshness
    lifetime: Lifetime
    max_age_s: float
    key: bytes
    rekey: Callable[[], bytes]
    """Composes the key anew: the model's generation may change while the flight is out."""
    timeout_s: float


class Landed(Struct, frozen=True):
    """How one flight ended: a record, or the error that each waiter raises for itself."""

    record: Record | None = None
    error: UpstreamError | None = None
    source: str = ""
    """live, cache (found in a shared tier) or coalesced (another worker's flight)."""
    tier: str = ""
    stored: bool = False


class Flights:
    """Leads flights; knows the tiers and the leader, but neither callers nor routes."""

    def __init__(self, leader: Leader, tiers: Tiers, clock_ns: Callable[[], int]) -> None:
        self._leader = leader
        self._tiers = tiers
        self._clock_ns = clock_ns

    async def fly(self, ask: Ask, journey: Journey) -> Landed:
        """Find or ask. Raises nothing."""
        started = time.monotonic()
        fresh = ask.freshness
        key = ask.key
        credential = ask.deployment.endpoint.credential
        wanted = Wanted(key, ask.max_age_s, ask.lifetime.keep_s, lambda: fingerprint(credential))
        lease: Lease | None = None
        if not fresh.no_cache:
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
            return await self._ask(ask, key, lease, left_s, journey)
        finally:
            if lease is not None:
                self._tiers.give_back(lease)

    async def _ask(
        self, ask: Ask, key: bytes, lease: Lease | None, timeout_s: float, journey: Journey
    ) -> Landed:
        """Ask the provider, and remember its count before any waiter goes on."""
        model = ask.deployment.endpoint.upstream_model
        asked_at_ns, generation = self._clock_ns(), self._tiers.generations.of(model)
        outcome = await self._leader.lead(ask.request, ask.deployment, timeout_s, journey)
        if outcome.counted is None:
            if lease is not None and (failure := _to_share(outcome, ask.deployment)):
                self._tiers.fail(lease, failure)
            return Landed(error=outcome.error)
        record = Record(
            input_tokens=outcome.counted.input_tokens,
            counted_at_s=outcome.counted_at_s,
            extra=outcome.counted.extra,
            dropped=outcome.dropped,
            asked_at_ns=asked_at_ns,
            upstream_model=model,
            generation=generation,
        )
        before = self._tiers.known(key)
        if before is not None and differs(before, record):
            logger.warning(
                "drift: %s counts %d where it counted %d; its remembered counts are forgotten",
                model,
                record.input_tokens,
                before.input_tokens,
            )
            self._tiers.drifted(model)
            key = ask.rekey()
            generation = self._tiers.generations.of(model)
            record = msgspec.structs.replace(record, generation=generation)
        if ask.freshness.no_store:
            return Landed(record, source="live")
        mine = lease if lease is not None and lease.key == key else None
        return Landed(record, source="live", stored=self._tiers.store(key, record, mine))


def _to_share(outcome: Outcome, deployment: Deployment) -> Failure | None:
    """Say what those who wait on other workers need to know, if the provider was asked at all.

    Not that it does not count the model: each worker turns to the alternate by itself.
    """
    error = outcome.error
    if error is None or error.model_not_counted:
        return None
    if not error.upstream_status and error.status not in _SHARED_WITHOUT_STATUS:
        return None
    own = error.credential_fault or error.status in _CREDENTIAL_STATUSES
    mark = fingerprint(deployment.endpoint.credential) if own else b""
    return Failure(error.status, error.type[:32], _retry_after_s(error), mark)


def _retry_after_s(error: UpstreamError) -> int:
    try:
        return max(0, min(int(float(dict(error.headers).get("retry-after", "0"))), 3600))
    except (ValueError, OverflowError):
        return 0


def _shared_error(failure: Failure) -> UpstreamError:
    headers = (("retry-after", str(failure.retry_after_s)),) if failure.retry_after_s else ()
    return UpstreamError(
        status=failure.status,
        type=failure.type,
        message="the provider has just refused this very question; ask again for its reason",
        reason=f"shared: status {failure.status}",
        upstream_status=failure.status,
        headers=headers,
        credential_fault=bool(failure.credential) and failure.status in {401, 402, 403},
    )


def fingerprint(credential: CredentialSpec | None) -> bytes:
    """Tell credentials apart by 8 bytes that give nothing away."""
    shown = msgspec.msgpack.encode((type(credential).__name__, credential), enc_hook=_reveal)
    return hashlib.sha256(b"tallygate credential" + shown).digest()[:8]


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value).__name__)
