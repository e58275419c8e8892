"""The leader of a flight: asks the provider once, and turns whatever happens into a value.

write: adapter.request ──► the request; Outcome(error) where the question has no form for it
lead:  sign ─ upstream.send ─ adapter.count ──► Outcome(counted)
         └── anything that goes wrong on the way ──► Outcome(error)
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from adapters.base import (
    CannotExpressError,
    Count,
    CountRequest,
    CredentialsError,
    CredentialSpec,
    Deployment,
    Endpoint,
    HeaderCredential,
    MalformedUpstreamError,
    TooLargeError,
    UpstreamError,
    UpstreamRequest,
)
from adapters.registry import ADAPTERS
from app.blanking import blanked_json, blanked_reply, credentials_of
from app.limits import wait_headers
from app.log import describe, logger
from app.telemetry.trace import Trace
from app.upstream import (
    CrowdedUpstreamError,
    UnusableReplyError,
    Upstream,
    UpstreamReply,
    UpstreamUnreachableError,
)

T = TypeVar("T")


class Asked(Struct):
    """One request to a provider."""

    deployment: Deployment
    began_s: float
    """On the clock of ``time.monotonic``, as the end."""
    ended_s: float | None = None
    status: int = 0


class Journey(Struct):
    """What happened on the way of one request, for its event: kept on failure too."""

    deployment: Deployment | None = None
    upstream_calls: int = 0
    upstream_ms: float = 0.0
    asked_at: float | None = None
    """When a provider was first asked, on the clock of ``time.monotonic``."""
    retried: bool = False
    """A deployment was asked a second time: once is all that one question may cost."""
    is_counted: bool = False
    """It is one of its caller's misses of this minute (`app.key_limits`)."""
    budget_wait_ms: float = 0.0
    out: int = 0
    """Flights of this request that have not landed."""
    told_later: Callable[[], None] | None = None
    trace: Trace | None = None
    """What providers are told of the request's trace."""
    asked: list[Asked] = []

    def ask(self) -> None:
        """Count a call to a provider."""
        self.upstream_calls += 1

    async def follow(self, flight: Awaitable[T]) -> T:
        """Let a flight land, whether or not its caller waits, and tell of it then."""
        self.out += 1
        try:
            return await flight
        finally:
            self.out -= 1
            if self.told_later is not None and not self.out:
                told, self.told_later = self.told_later, None  # it knows this journey
                told()

    def tell(self, event: Callable[[], None]) -> None:
        """Tell when all flights have landed: until then providers may be asked."""
        if self.out:
            self.told_later = event
        else:
            event()

    def traced(self, request: UpstreamRequest) -> UpstreamRequest:
        """Say which trace the request that has just begun belongs to.

        Not signed: who stands between may write its own span into it, and what is sent stays valid.
        """
        if self.trace is None:
            return request
        headers = request.headers + self.trace.onward(len(self.asked))
        return replace(request, headers=headers)


class Outcome(Struct, frozen=True, gc=False):
    """What asking brought: the provider's count and when it came, or an error."""

    counted: Count | None = None
    error: UpstreamError | None = None
    counted_at_s: int = 0
    dropped: bytes = b""
    deployment: Deployment | None = None
    """Who was asked, whatever its caller does meanwhile."""


class Signer(Protocol):
    """Where the credentials are: one call, whatever kind the deployment has."""

    async def sign(
        self, request: UpstreamRequest, credential: CredentialSpec
    ) -> UpstreamRequest: ...

    def renew(self, credential: CredentialSpec) -> bool: ...


class Leader:
    """Asks providers; knows nothing of keys, tiers or waiters."""

    def __init__(self, upstream: Upstream, signer: Signer, wall_clock: Callable[[], float]) -> None:
        self._upstream = upstream
        self._signer = signer
        self._wall_clock = wall_clock

    async def write(
        self, count: CountRequest, deployment: Deployment, timeout_s: float
    ) -> UpstreamRequest | Outcome:
        """Write what is to be sent, unsigned, or say why it cannot be. Raises nothing."""
        adapter, endpoint = ADAPTERS[deployment.provider], deployment.endpoint
        try:
            if len(count.body) < adapter.LONG_BODY_BYTES:
                return adapter.request(count, endpoint)
            async with asyncio.timeout(timeout_s):
                return await asyncio.to_thread(adapter.request, count, endpoint)
        except Exception as error:  # noqa: BLE001 -- a failure is shared as a value
            return Outcome(error=_failure(error))

    async def lead(
        self, request: UpstreamRequest, deployment: Deployment, timeout_s: float, journey: Journey
    ) -> Outcome:
        """Ask once, within ``timeout_s`` in all. Raises nothing."""
        started = time.monotonic()
        until = started + timeout_s
        if journey.asked_at is None:
            journey.asked_at = started
        try:
            return await self._ask(request, deployment, until, journey)
        except Exception as error:  # noqa: BLE001 -- a failure is shared as a value
            return Outcome(error=_failure(error))
        finally:
            journey.upstream_ms += (time.monotonic() - started) * 1000

    async def _ask(
        self, request: UpstreamRequest, deployment: Deployment, until: float, journey: Journey
    ) -> Outcome:
        adapter, endpoint = ADAPTERS[deployment.provider], deployment.endpoint
        for renewed in (False, True):
            sent, reply = await self._send(request, deployment, until, journey)
            if reply.status == HTTPStatus.OK:
                count = _counted(adapter.count(reply.body), sent)
                return self._outcome(count, request, deployment)
            if reply.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                # Of a proxy that sees the request, which is no provider.
                raise CredentialsError("a proxy on the way wants another login: see HTTP_PROXY")
            if not 400 <= reply.status <= 599:  # noqa: PLR2004 -- the two classes of errors
                raise MalformedUpstreamError(f"status {reply.status}")
            reply = blanked_reply(reply, credentials_of(sent))
            error = adapter.error(reply.status, reply.headers, reply.body)
            expired = error.credential_expired or reply.status == HTTPStatus.UNAUTHORIZED
            if renewed or not expired or not self._renewed(endpoint):
                break
        if error.stated_count and endpoint.count_from_too_long:
            return self._outcome(Count(error.stated_count), request, deployment)
        return Outcome(error=error, deployment=deployment)

    def _outcome(self, count: Count, request: UpstreamRequest, deployment: Deployment) -> Outcome:
        dropped = ",".join(request.dropped).encode()
        return Outcome(count, None, int(self._wall_clock()), dropped, deployment)

    async def _send(
        self, request: UpstreamRequest, deployment: Deployment, until: float, journey: Journey
    ) -> tuple[UpstreamRequest, UpstreamReply]:
        endpoint = deployment.endpoint
        credential = endpoint.credential
        if isinstance(credential, HeaderCredential):  # there already: nothing to wait for
            request = await self._signer.sign(request, credential)
        elif credential is not None:
            async with asyncio.timeout(_left_s(until)):
                request = await self._signer.sign(request, credential)
        journey.ask()
        asked = Asked(deployment, time.monotonic())
        journey.asked.append(asked)
        left_s, again = _left_s(until), journey.ask
        try:
            sent = journey.traced(request)
            reply = await self._upstream.send(sent, endpoint.base_url, left_s, again)
            asked.status = reply.status
        finally:
            asked.ended_s = time.monotonic()
        return request, reply

    def _renewed(self, endpoint: Endpoint) -> bool:
        return endpoint.credential is not None and self._signer.renew(endpoint.credential)


def _left_s(until: float) -> float:
    return max(until - time.monotonic(), 0.001)


def _counted(count: Count, sent: UpstreamRequest) -> Count:
    """Blank credentials out of what the provider adds to its count: that is remembered."""
    if not count.extra:
        return count
    return Count(count.input_tokens, blanked_json(count.extra, credentials_of(sent)))


def _failure(error: Exception) -> UpstreamError:
    """Turn what went wrong on the way to a count into the one error that all waiters share."""
    if isinstance(error, TooLargeError):
        return UpstreamError(413, "request_too_large", str(error), "too large for this counter")
    if isinstance(error, CredentialsError):
        # from_upstream makes it the operator's 502.
        return UpstreamError(502, "api_error", error.reason, error.reason, credential_fault=True)
    if isinstance(error, CannotExpressError):
        return UpstreamError(400, "invalid_request_error", str(error), "cannot be expressed")
    if isinstance(error, UpstreamUnreachableError) and not error.timed_out:
        message = "the provider could not be reached"
        reason = f"unreachable: {error.reason}"
        return UpstreamError(502, "api_error", message, reason, broken=True)
    if isinstance(error, TimeoutError | UpstreamUnreachableError):
        message = "the provider did not answer in time"
        return UpstreamError(504, "timeout_error", message, message)
    if isinstance(error, CrowdedUpstreamError):
        message = "too many questions to providers at a time"
        return UpstreamError(529, "overloaded_error", message, message, headers=wait_headers(1))
    if isinstance(error, MalformedUpstreamError | UnusableReplyError):
        message = "the provider's answer holds no count"
        return UpstreamError(502, "api_error", message, f"malformed: {error}", upstream_status=200)
    logger.error("unexpected %s", describe(error))
    return UpstreamError(500, "api_error", "internal error", type(error).__name__)
