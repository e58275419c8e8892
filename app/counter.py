"""THE way of a count, from a question to its answer. Read this file first.

question ─ route ─ permission
 └─ for each deployment, in the configuration's order:
      key ─ local tier ──hit──────────────────────────────────────────► answer
              │ miss                          (no await up to here)
          single-flight ──joined──────────────────────────────────────► answer
              │ led
      adapter.request ─ sign ─ upstream.send ─ adapter.count ─ store ─► answer
 └─ all failed: the estimate where configured, else the first error
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from msgspec import Struct

from adapters.anthropic import key_credential
from adapters.base import CountRequest, Deployment, LocalCounter, UpstreamError
from adapters.registry import ADAPTERS, ESTIMATE
from app.auth import Caller
from app.config import Cache
from app.errors import ProxyError, forbidden, from_upstream, operator_fault, overloaded, timed_out
from app.leader import Journey, Landed, Leader
from app.question import Question, refuse_unknown
from app.routing import Route, Router
from cache.key import content_key
from cache.local import LocalTier
from cache.record import Record
from cache.singleflight import CrowdedError, SingleFlight

LANDING_S = 0.25
"""What a waiter allows a flight beyond its deadline to land: the leader's error says more."""
REFUSAL_S = 3600.0
MAX_REFUSALS = 1024
LONG_ESTIMATE_BYTES = 65_536
MOVING = ("latest", "default", "preview")


class Answer(Struct, frozen=True):
    """A number, and where it comes from."""

    record: Record
    source: str
    deployment: Deployment
    stored: bool = False

    @property
    def provider(self) -> str:
        """Name whose number it is: an estimate is nobody's but ours."""
        return ESTIMATE if self.source == ESTIMATE else self.deployment.provider


class Refusals:
    """Which counters do not count which models: an hour of memory, for a bounded number."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def hold(self, deployment: Deployment) -> bool:
        """Say whether this counter has refused this model lately."""
        return self._until.get(_counter_of(deployment), 0.0) > self._clock()

    def add(self, deployment: Deployment) -> None:
        """Remember a refusal; the oldest makes room."""
        self._until.pop(_counter_of(deployment), None)
        if len(self._until) >= MAX_REFUSALS:
            del self._until[next(iter(self._until))]
        self._until[_counter_of(deployment)] = self._clock() + REFUSAL_S


class TokenCounter:
    """Counts: everything a worker knows about questions and answers comes together here."""

    def __init__(
        self,
        *,
        router: Router,
        cache: Cache,
        key_secret: bytes,
        tier: LocalTier,
        leader: Leader,
        estimator: LocalCounter,
        wall_clock: Callable[[], float],
    ) -> None:
        self._router = router
        self._cache = cache
        self._key_secret = key_secret
        self._tier = tier
        self._leader = leader
        self._estimator = estimator
        self._wall_clock = wall_clock
        self._flights: SingleFlight[Landed] = SingleFlight()
        self._newest: dict[bytes, object] = {}
        self._refusals = Refusals(time.monotonic)

    def route(self, question: Question, caller: Caller) -> Route:
        """Find who may be asked. Raises ProxyError 404 and 403."""
        resolve = self._router.resolve_native if question.native else self._router.resolve
        route = resolve(question.model)
        if route is None:
            raise refuse_unknown(question.model)
        if not caller.may_count(route.names):
            raise forbidden(f"model: this key may not count with {question.model}")
        return route

    async def count(
        self, question: Question, caller: Caller, route: Route, journey: Journey
    ) -> Answer:
        """Answer a question. Raises ProxyError; never invents a number.

        A hit awaits nothing. Entries of one name are asked in the configuration's order, the next
        only when the one before has failed, all within the first one's deadline: each may use its
        even share of the time that is left.
        """
        deadline = time.monotonic() + route.deployments[0].timeout_s
        failure: ProxyError | None = None
        stand_in: Deployment | None = None
        for asked, deployment in enumerate(route.deployments):
            left_s = deadline - time.monotonic()
            if failure is not None and left_s <= 0:
                break
            journey.deployment = deployment
            until = deadline - left_s + left_s / (len(route.deployments) - asked)
            try:
                return await self._ask(question, caller, deployment, until, journey)
            except ProxyError as error:
                if not _another_may_answer(error):
                    raise
                failure = failure or error
                if deployment.fallback_estimate:
                    stand_in = deployment
        if stand_in is not None and not question.freshness.only_if_cached:
            return await self._estimate(question, stand_in)
        raise failure or timed_out("the count's deadline has passed")

    async def _ask(
        self,
        question: Question,
        caller: Caller,
        deployment: Deployment,
        deadline: float,
        journey: Journey,
    ) -> Answer:
        if deployment.provider == ESTIMATE:
            return await self._estimate(question, deployment)
        deployment, own = self._with_credential(question, deployment)
        journey.deployment = deployment
        fresh = question.freshness
        key = self.key(question.request, deployment, self._scope(caller, own))
        if not fresh.no_cache:
            record = self._tier.get(key)
            if record is not None:
                return Answer(record, "cache", deployment)
        alternate = _alternate(deployment)
        if alternate is not None and self._refusals.hold(deployment):
            return await self._ask(question, caller, alternate, deadline, journey)
        if fresh.only_if_cached:
            raise ProxyError(504, "timeout_error", "not in the cache, and only-if-cached was asked")
        if deployment.endpoint.missing:
            names = ", ".join(deployment.endpoint.missing)
            raise operator_fault(f"{deployment.name}: not set in the environment: {names}")
        landed, led = await self._fly(question, deployment, key, deadline, journey)
        if landed.record is None:
            error = landed.error or _NOTHING
            if alternate is not None and error.model_not_counted:
                self._refusals.add(deployment)
                return await self._ask(question, caller, alternate, deadline, journey)
            raise from_upstream(error, caller_credential=own is not None)
        source = "live" if led else "coalesced"
        return Answer(landed.record, source, deployment, led and landed.stored)

    def key(self, request: CountRequest, deployment: Deployment, scope: bytes) -> bytes:
        """Compose the content key: everything that decides the number, and nothing else."""
        endpoint = deployment.endpoint
        parts = [
            deployment.provider.encode(),
            ADAPTERS[deployment.provider].WIRE_VERSION.to_bytes(4),
            "\0".join(endpoint.scope).encode(),
            endpoint.upstream_model.encode(),
            request.version.encode(),
            ",".join(request.betas).encode(),
            "\0".join(f"{name}={value}" for name, value in request.identity).encode(),
            request.query.encode(),
            b"stated" if endpoint.count_from_too_long else b"",
            scope,
            request.body,
        ]
        return content_key(self._key_secret, parts)

    def _scope(self, caller: Caller, own: bytes | None) -> bytes:
        """Keep apart what callers must not share: never the caller, unless configured so."""
        by_caller = caller.name.encode() if self._cache.scope == "caller" else b""
        return b"%b\0%b" % (by_caller, own or b"")

    def _with_credential(
        self, question: Question, deployment: Deployment
    ) -> tuple[Deployment, bytes | None]:
        """Ask as the caller where its own credential may be used, and say under which digest."""
        own = question.own_credential
        if own is None or deployment.provider != "anthropic":
            return deployment, None
        if not question.native and deployment.endpoint.credential is not None:
            return deployment, None
        endpoint = msgspec.structs.replace(
            deployment.endpoint, credential=key_credential(own), missing=()
        )
        digest = hashlib.sha256(own.reveal().encode()).digest()
        return msgspec.structs.replace(deployment, endpoint=endpoint), digest

    async def _fly(
        self,
        question: Question,
        deployment: Deployment,
        key: bytes,
        deadline: float,
        journey: Journey,
    ) -> tuple[Landed, bool]:
        # Only what is asked in the same way flies together: another entry has another credential
        # and another deadline, and its failure is its own; a question that must be asked anew
        # joins none that may be answered from a flight of before; one that must not be stored
        # does not lead those that expect the count to be remembered.
        fresh = question.freshness
        flight = (key, deployment.name, fresh.no_cache, fresh.no_store)
        left_s = max(deadline - time.monotonic(), 0.001)
        timeout_s = min(left_s, deployment.timeout_s)
        try:
            return await self._flights.join(
                flight,
                lambda: self._lead(question, deployment, key, timeout_s, journey),
                left_s + LANDING_S,
            )
        except TimeoutError:
            raise timed_out("the provider did not answer in time") from None
        except CrowdedError:
            raise overloaded("too many counts are waiting for providers", 1) from None

    async def _lead(
        self,
        question: Question,
        deployment: Deployment,
        key: bytes,
        timeout_s: float,
        journey: Journey,
    ) -> Landed:
        """Ask the provider, and remember its count before any waiter goes on."""
        # 1 an ordinary flight asks; 2 a no-cache flight asks later, lands first and is stored;
        # 3 the ordinary one lands: its count is the older one and must not take the place.
        took_off = self._newest[key] = object()
        landed = await self._leader.lead(question.request, deployment, timeout_s, journey)
        if self._newest.get(key) is not took_off:
            return landed
        del self._newest[key]
        if landed.record is None or question.freshness.no_store:
            return landed
        self._tier.put(key, landed.record, self._ttl_s(deployment.endpoint.upstream_model))
        return msgspec.structs.replace(landed, stored=True)

    async def _estimate(self, question: Question, deployment: Deployment) -> Answer:
        """Count here, approximately; never stored, always marked."""
        body = question.request.body
        if len(body) > LONG_ESTIMATE_BYTES:
            tokens = await asyncio.to_thread(self._estimator.estimate, body)
        else:
            tokens = self._estimator.estimate(body)
        return Answer(Record(tokens, int(self._wall_clock())), ESTIMATE, deployment)

    def _ttl_s(self, upstream_model: str) -> float:
        """A name that moves from model to model is remembered for a short time only."""
        moves = any(upstream_model.endswith(f"{mark}{name}") for mark in "-@" for name in MOVING)
        return self._cache.alias_ttl_s if moves else self._cache.ttl_s

    async def close(self) -> None:
        """End what is still out."""
        await self._flights.close()


def _counter_of(deployment: Deployment) -> tuple[str, str]:
    return deployment.endpoint.base_url, deployment.endpoint.upstream_model


def _alternate(deployment: Deployment) -> Deployment | None:
    """Give the same deployment at its endpoint's alternate; a wildcard's model goes along."""
    alternate, asked = deployment.endpoint.alternate, deployment.endpoint
    if alternate is None:
        return None
    endpoint = msgspec.structs.replace(alternate.endpoint, upstream_model=asked.upstream_model)
    return msgspec.structs.replace(deployment, provider=alternate.provider, endpoint=endpoint)


def _another_may_answer(error: ProxyError) -> bool:
    """Say whether the provider failed, rather than the caller's request."""
    return error.status == HTTPStatus.TOO_MANY_REQUESTS or error.status >= _SERVER_ERRORS


_SERVER_ERRORS = HTTPStatus.INTERNAL_SERVER_ERROR
_NOTHING = UpstreamError(502, "api_error", "the provider gave no answer", "no answer")
