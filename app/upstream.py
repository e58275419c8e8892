"""The only network I/O to providers: one pooled client per worker.

pyreqwest by its own interface: behind httpx's, whose requests and responses are made only to be
taken apart again, a call takes five times as long (docs/decisions/0001-dependencies.md).
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from msgspec import Struct
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import Response

from adapters.base import UpstreamRequest

MAX_REPLY_BYTES = 1_048_576
CONNECT_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 512
"""In use at a time; as many may be kept unused, for all providers together."""
IDLE_CONNECTION_S = 60.0
USER_AGENT = "tallygate/0.1"


class UpstreamReply(Struct, frozen=True):
    """A whole reply. Header names are lower-case; of a repeated header the last one stands."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<UpstreamReply {self.status} of {len(self.body)} bytes>"


class UpstreamUnreachableError(Exception):
    """No reply: the connection was refused, broken, or the deadline passed."""

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timed_out = timed_out


class CrowdedUpstreamError(Exception):
    """No room to ask in time: all connections are taken by other questions."""


class UnusableReplyError(Exception):
    """A reply that cannot be an answer: a redirect, or larger than MAX_REPLY_BYTES."""


def ca_bundle(environ: Mapping[str, str]) -> bytes | None:
    """Read the operator's own certificate authorities, if any. Raises OSError with the path."""
    path = environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE")
    return Path(path).read_bytes() if path else None


class Upstream:
    """Sends one request and reads one bounded reply; no retries, no redirects, no cookies.

    Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY; certificates are always verified,
    against the built-in roots plus those of SSL_CERT_FILE or REQUESTS_CA_BUNDLE.
    """

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        connections: int = 2 * MAX_CONNECTIONS,
        hosts: int = 1,
    ) -> None:
        """``connections`` are all that it may have open, to so many ``hosts``."""
        in_use = max(min(MAX_CONNECTIONS, connections * 3 // 4), 1)
        builder = (
            ClientBuilder()
            .follow_redirects(False)
            .http1_only()
            .user_agent(USER_AGENT)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .max_connections(in_use)
            .pool_max_idle_per_host(max((connections - in_use) // hosts, 1))
            .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT_S))
            .pool_idle_timeout(timedelta(seconds=IDLE_CONNECTION_S))
        )
        if (bundle := ca_bundle(environ)) is not None:
            builder = builder.add_root_certificate_pem(bundle)
        self._client = builder.build()
        self._room = asyncio.Semaphore(in_use)
        # One address that hangs leaves room for the others.
        self._share = in_use if hosts == 1 else max(in_use * 3 // 4, 1)
        self._rooms: dict[str, asyncio.Semaphore] = {}

    async def send(
        self, request: UpstreamRequest, base_url: str, timeout_s: float
    ) -> UpstreamReply:
        """Send within ``timeout_s`` seconds in all, of which the half at most for room.

        Raises UpstreamUnreachableError, UnusableReplyError and CrowdedUpstreamError.
        """
        # Nothing that a client sends may lead anywhere but to the configured counter.
        if not request.url.startswith(f"{base_url}/"):
            raise UpstreamUnreachableError("the request left its base URL", timed_out=False)
        until = time.monotonic() + timeout_s
        taken: list[asyncio.Semaphore] = []
        try:
            await self._enter(base_url, timeout_s / 2, taken)
            return await self._send(request, max(until - time.monotonic(), 0.001))
        finally:
            for room in taken:
                room.release()

    async def _enter(self, base_url: str, wait_s: float, taken: list[asyncio.Semaphore]) -> None:
        """Wait for a place at this address, and for one of all. Raises CrowdedUpstreamError."""
        here = self._rooms.get(base_url)
        if here is None:
            here = self._rooms[base_url] = asyncio.Semaphore(self._share)
        if not (here.locked() or self._room.locked()):
            await self._take((here, self._room), taken)
            return
        try:
            async with asyncio.timeout(wait_s):
                await self._take((here, self._room), taken)
        except TimeoutError:
            raise CrowdedUpstreamError from None

    async def _take(
        self, rooms: tuple[asyncio.Semaphore, ...], taken: list[asyncio.Semaphore]
    ) -> None:
        for room in rooms:
            await room.acquire()
            taken.append(room)

    async def _send(self, request: UpstreamRequest, timeout_s: float) -> UpstreamReply:
        # The client has to know the deadline: cancelling it ends nothing, so that a request which
        # hangs would keep its connection, one of those in use, for ever (pyreqwest 0.15.1).
        prepared = (
            self._client.request(request.method, request.url)
            .headers(request.headers)
            .body_bytes(request.body)
            .timeout(timedelta(seconds=timeout_s))
            .build_streamed()
        )
        try:
            async with prepared as response:
                return await _read(response)
        except TimeoutError as error:
            raise UpstreamUnreachableError("no answer in time", timed_out=True) from error
        except PyreqwestError as error:
            reason = type(error).__name__
            raise UpstreamUnreachableError(reason, timed_out=False) from error

    async def close(self) -> None:
        """Close every pooled connection."""
        await self._client.close()


async def _read(response: Response) -> UpstreamReply:
    if 300 <= response.status <= 399:  # noqa: PLR2004 -- the class of redirects
        raise UnusableReplyError("a redirect, which is not followed")
    body = bytearray()
    while (chunk := await response.body_reader.read_chunk()) is not None:
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise UnusableReplyError("a reply larger than a count can be")
    return UpstreamReply(response.status, _headers(response), bytes(body))


def _headers(response: Response) -> dict[str, str]:
    """Read the headers, but for those that HTTP allows and that are no text."""
    try:
        return {name.lower(): value for name, value in response.headers.items()}
    except ValueError:
        found = {}
        for name in response.headers.keys():  # noqa: SIM118 -- a map of values that may fail
            with contextlib.suppress(ValueError):
                found[name.lower()] = response.headers.getall(name)[-1]
        return found
