"""THE way of a count, from a question to its answer. Read this file first.

question ─ route ─ permission
 └─ for each pool of the name, in the configuration's order:
      key ─ local tier ──hit──────────────────────────────────────────► answer
              │ miss                          (no await up to here)
          single-flight ──joined──────────────────────────────────────► answer
              │ led
          shared tiers ──hit, or another's flight landed──────────────► answer
              │ miss, lease taken
          dispatch: who of the pool, and who next
              │
      adapter.request ─ sign ─ upstream.send ─ adapter.count ─ store ─► answer
 └─ all failed: the last known count, marked stale; else the estimate where configured; else the
    first error
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from adapters.base import Deployment, LocalCounter, UpstreamError
from adapters.registry import ESTIMATE
from app.auth import Caller
from app.config_sections import Cache
from app.dispatch import Dispatcher
from app.errors import ProxyError, forbidden, from_upstream, overloaded, timed_out
from app.flight import NOTHING, Ask, Flights, Landed
from app.freshness import Freshness
from app.key_limits import NO_LIMIT, KeyLimits, Miss, OverKeyLimitError
from app.keys import Answer, Keys, Place
from app.leader import Journey
from app.question import Question, refuse_unknown
from app.refusals import Refusals
from app.routing import Pool, Route, Router
from app.trip import Trip, not_asked
from cache.singleflight import CrowdedError, Patience, SingleFlight
from cache.tiers import Landing, Record, Tiers, Wanted

LONG_ESTIMATE_BYTES = 65_536


class TokenCounter:
    """Counts: everything a worker knows about questions and answers comes together here."""

    def __init__(
        self,
        *,
        router: Router,
        cache: Cache,
        keys: Keys,
        tiers: Tiers,
        key_limits: KeyLimits,
        dispatcher: Dispatcher,
        estimator: LocalCounter,
        wall_clock_ns: Callable[[], int],
        max_flying_bytes: int,
    ) -> None:
        self._router = router
        self._cache = cache
        self._keys = keys
        self._tiers = tiers
        self._key_limits = key_limits
        self._flights = Flights(dispatcher, tiers, wall_clock_ns)
        self._estimator = estimator
        self._wall_clock_ns = wall_clock_ns
        self._shared: SingleFlight[Landed] = SingleFlight(max_bytes=max_flying_bytes)
        self._refusals = Refusals(cache.negative_ttl_s, time.monotonic)

    def route(self, question: Question, caller: Caller) -> Route:
        """Find who may be asked. Raises ProxyError 404 and 403."""
        resolve = self._router.resolve_native if question.native else self._router.resolve
        route = resolve(question.model)
        if route is None:
            raise refuse_unknown(question.model)
        if not caller.may_count(route.names):
            raise forbidden(f"model: this key may not count with {question.model}")
        return route

    def known(self, question: Question, caller: Caller, route: Route) -> Answer | Place | None:
        """Answer as ``count`` would where this process remembers it, else say where it would be.

        None where that is not asked by a key. No await.
        """
        first = route.pools[0].first
        if first.provider == ESTIMATE or question.freshness.no_cache:
            return None
        place = self._keys.place(question, caller, first)
        return self._here(place) or place

    async def count(
        self,
        question: Question,
        caller: Caller,
        route: Route,
        journey: Journey,
        place: Place | None = None,
    ) -> Answer:
        """Answer a question. Raises ProxyError; never invents a number.

        A hit awaits nothing. Pools of one name are asked in the configuration's order, the next
        only when the one before has failed, all within the first one's deadline: each may use its
        even share of the time that is left. A count that was known before stands in when all have
        failed, or when ``stale_after_s`` has passed: what is out then goes on without this caller.
        ``place`` is what ``known`` has just said.
        """
        started = time.monotonic()
        deadline = started + route.pools[0].first.timeout_s
        leaves_at = min(deadline, started + question.timeout_s)
        stale_at = started + self._cache.stale_after_s
        failure: ProxyError | None = None
        stale: Answer | None = None
        stand_in: Deployment | None = None
        for asked, pool in enumerate(route.pools):
            now = time.monotonic()
            if stale is not None:
                leaves_at = min(leaves_at, stale_at)
            if failure is not None and now >= leaves_at:
                break
            journey.deployment = pool.first
            until = now + (deadline - now) / (len(route.pools) - asked)
            trip = Trip(question, caller, until, min(until, leaves_at), stale_at, journey, place)
            try:
                return await self._ask(trip, pool)
            except ProxyError as error:
                if not _another_may_answer(error):
                    raise
                failure = failure or error.with_traceback(None)  # else: a cycle
                if error.is_outage:
                    stale = stale or self._stale(trip, pool)
                estimates = (one for one in pool.members if one.fallback_estimate)
                stand_in = next(estimates, stand_in)
        if stale is not None:
            return stale
        if stand_in is not None and not question.freshness.only_if_cached:
            return await self._estimate(question, stand_in)
        raise failure or timed_out("the count's deadline has passed")

    async def _ask(self, trip: Trip, pool: Pool) -> Answer:
        question = trip.question
        if pool.first.provider == ESTIMATE:
            return await self._estimate(question, pool.first)
        place = self._place(trip, pool)
        if place.own is not None:
            pool = Pool.of(place.deployment)
        fresh = question.freshness
        if not fresh.no_cache and (found := self._here(place)):
            return found
        alternate = pool.alternate
        refused = self._refusals.get(pool.first)
        if refused is not None and alternate is not None:
            return await self._ask(trip, alternate)
        if fresh.only_if_cached or not pool.equipped:
            return await self._remembered(place, pool, fresh)
        landed, led = await self._fly(trip, place, pool, refused)
        if landed.record is None:
            error = landed.error or NOTHING
            if error.model_not_counted and error is not refused:
                self._refusals.add(pool.first, error)
                if alternate is not None:
                    return await self._ask(trip, alternate)
            raise from_upstream(error, caller_credential=place.own is not None)
        source = "coalesced" if landed.source == "live" and not led else landed.source
        return place.answer(
            landed.record,
            source,
            stored=led and landed.stored,
            tier=landed.tier,
            deployment=landed.deployment,
        )

    def _place(self, trip: Trip, pool: Pool) -> Place:
        place = trip.place
        if place is not None and place.deployment is pool.first and self._keys.still_holds(place):
            return place
        return self._keys.place(trip.question, trip.caller, pool.first)

    def _here(self, place: Place) -> Answer | None:
        record = self._tiers.get(place.key, place.max_age_s)
        return None if record is None else place.answer(record, "cache", tier="local")

    async def _remembered(self, place: Place, pool: Pool, fresh: Freshness) -> Answer:
        """Look into every tier and ask nobody. Raises ProxyError."""
        if not fresh.no_cache and (found := await self._find(place)):
            return place.answer(found.record, "cache", tier=found.tier)
        raise not_asked(pool, fresh)

    async def _find(self, place: Place, *, again: bool = False) -> Landing | None:
        wanted = Wanted(place.key, place.max_age_s, place.lifetime.keep_s, bytes)
        return await self._tiers.find(wanted, again=again)

    def _stale(self, trip: Trip, pool: Pool) -> Answer | None:
        """Find the last known count of a provider that fails, if the client takes one."""
        if pool.first.provider == ESTIMATE or not trip.question.freshness.takes_stale:
            return None
        alternate = pool.alternate
        if alternate is not None and self._refusals.get(pool.first):
            pool = alternate
        place = self._keys.place(trip.question, trip.caller, pool.first)
        record = self._known(place.key, place)
        return None if record is None else place.answer(record, "stale", tier="local")

    def _known(self, key: bytes, place: Place) -> Record | None:
        """Return the last known count; a flight has brought it here from the shared tiers."""
        return self._tiers.get(key, place.lifetime.keep_s)

    async def _fly(
        self, trip: Trip, place: Place, pool: Pool, refused: UpstreamError | None
    ) -> tuple[Landed, bool]:
        """Find out what the caller wants to know, within what its key may ask."""
        fresh, caller = trip.question.freshness, trip.caller
        if refused is not None and not fresh.no_cache:
            return Landed(error=refused), True
        if not caller.is_limited:
            return await self._join(trip, place, pool, NO_LIMIT)
        # What another worker or machine remembers is a hit, too, and free.
        if not fresh.no_cache and (found := await self._find(place, again=True)):
            return Landed(found.record, source="cache", tier=found.tier), False
        again, trip.journey.is_counted = trip.journey.is_counted, True
        miss = await self._key_limits.enter(caller, again=again)
        try:
            return await self._join(trip, place, pool, miss)
        finally:
            miss.caller_left()

    async def _join(self, trip: Trip, place: Place, pool: Pool, miss: Miss) -> tuple[Landed, bool]:
        # Only what is asked in the same way flies together: another name's entries have other
        # credentials and other deadlines, and their failure is their own; a question that must be
        # asked anew joins no flight that took off before it; one that must not be stored does not
        # lead those that expect the count to be remembered.
        fresh, journey = trip.question.freshness, trip.journey
        alone = object() if fresh.no_cache else None
        flight = (place.key, pool.first.name, alone, fresh.no_store, fresh.max_age_s)
        now = time.monotonic()
        left_s = max(trip.deadline - now, 0.001)
        ask = Ask(
            request=trip.question.request,
            pool=pool,
            as_caller=place.own is not None,
            freshness=fresh,
            lifetime=place.lifetime,
            max_age_s=place.max_age_s,
            key=place.key,
            generation=place.generation,
            rekey=place.rekey,
            timeout_s=left_s,
        )
        patience = Patience(
            trip.stale_at - now,
            # Under the key that holds by then: a model's counts may have been forgotten meanwhile.
            lambda: fresh.takes_stale and self._known(place.rekey(), place) is not None,
        )
        try:
            return await self._shared.join(
                flight,
                lambda: miss.led_by(journey.follow(self._flights.fly(ask, journey))),
                trip.wait_s(now),
                patience,
                len(ask.request.body),
            )
        except TimeoutError:
            raise timed_out("the provider did not answer in time") from None
        except CrowdedError:
            raise overloaded("too many counts are waiting for providers", 1) from None

    async def _estimate(self, question: Question, deployment: Deployment) -> Answer:
        """Count here, approximately; never stored, always marked."""
        body = question.request.body
        if len(body) > LONG_ESTIMATE_BYTES:
            tokens = await asyncio.to_thread(self._estimator.estimate, body)
        else:
            tokens = self._estimator.estimate(body)
        return Answer(Record(tokens, self._wall_clock_ns() // 10**9), ESTIMATE, deployment)

    async def recount(self, question: Question, caller: Caller, deployment: Deployment) -> Record:
        """Ask again what is remembered, and remember what comes. Raises ProxyError."""
        question = msgspec.structs.replace(question, freshness=Freshness(no_cache=True))
        until = time.monotonic() + deployment.timeout_s
        trip = Trip(question, caller.unlimited(), until, until, until, Journey())
        return (await self._ask(trip, Pool.of(deployment))).record

    async def close(self) -> None:
        """End what is still out."""
        await self._shared.close()


def _another_may_answer(error: ProxyError) -> bool:
    """Say whether the provider failed, rather than the caller's request."""
    if isinstance(error, OverKeyLimitError):
        return False
    return error.status == HTTPStatus.TOO_MANY_REQUESTS or error.status >= _SERVER_ERRORS


_SERVER_ERRORS = HTTPStatus.INTERNAL_SERVER_ERROR
