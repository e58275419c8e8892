"""The only network I/O to providers: pooled connections, bounded, each question within its time.

httptools under the loop's own transports: a client that has threads of its own costs a miss more
than all the rest of the network (docs/decisions/0018-asking-providers.md).
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping

from adapters.base import UpstreamRequest
from app.connections import Connections
from app.exchange import (
    MAX_REPLY_BYTES,
    UnusableReplyError,
    UpstreamReply,
    UpstreamUnreachableError,
)
from app.rooms import Rooms

__all__ = [
    "MAX_CONNECTIONS",
    "MAX_REPLY_BYTES",
    "CrowdedUpstreamError",
    "UnusableReplyError",
    "Upstream",
    "UpstreamReply",
    "UpstreamUnreachableError",
]

MAX_CONNECTIONS = 512
"""In use at a time; as many may be kept unused, for all providers together."""
REDIRECTS = range(300, 400)


class CrowdedUpstreamError(Exception):
    """No room to ask in time: all connections are taken by other questions."""


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
        speaks_tls: bool = False,
    ) -> None:
        """``connections`` are all that it may have open, to so many ``hosts``."""
        in_use = max(min(MAX_CONNECTIONS, connections * 3 // 4), 1)
        most_idle = max((connections - in_use) // hosts, 1)
        self._connections = Connections(environ, most_idle, speaks_tls=speaks_tls)
        # One address that hangs leaves room for the others.
        self._rooms = Rooms(in_use, in_use if hosts == 1 else max(in_use * 3 // 4, 1))

    async def send(
        self,
        request: UpstreamRequest,
        base_url: str,
        timeout_s: float,
        again: Callable[[], None] = lambda: None,
    ) -> UpstreamReply:
        """Send within ``timeout_s`` seconds in all, of which the half at most for room.

        ``again`` hears that it had to be sent a second time (`app.connections`).

        Raises UpstreamUnreachableError, UnusableReplyError and CrowdedUpstreamError.
        """
        # Nothing that a client sends may lead anywhere but to the configured counter.
        if not request.url.startswith(f"{base_url}/"):
            raise UpstreamUnreachableError("the request left its base URL", timed_out=False)
        until = time.monotonic() + timeout_s
        if not self._rooms.take(base_url):
            try:
                async with asyncio.timeout(timeout_s / 2):
                    await self._rooms.wait(base_url)
            except TimeoutError:
                raise CrowdedUpstreamError from None
        try:
            reply = await self._connections.send(request, base_url, until, again)
        finally:
            self._rooms.leave(base_url)
        if reply.status in REDIRECTS:
            raise UnusableReplyError("a redirect, which is not followed")
        return reply

    async def close(self) -> None:
        """Close every connection that is not in use; those in use close when they are free."""
        await self._connections.close()
