"""AWS: who looks keys up when, who waits for them, and the signature made with them.

Requests are signed by hand with botocore's SigV4Auth and sent like all others: half the cost of
its client.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from adapters.base import AwsCredential, CredentialsError, Secret, UpstreamRequest
from adapters.credentials._aws_chain import Keys, Lookup, given

AHEAD_S = 300.0
"""New keys of a container or an instance are there five minutes before the old ones end
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html,
2026-11)."""
MARGIN_S = 30.0
"""Keys with less left may expire on the way."""
RETRY_S = 5.0
THREADS = 4
LONG_BODY_BYTES = 262_144
"""Hashing more than this takes longer than the event loop should wait."""

# botocore logs canonical requests with session tokens, and replies with keys, at DEBUG (1.43.117).
for _name in ("botocore", "aiobotocore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
_logger = logging.getLogger("tallygate.credentials")


class AwsSigner:
    """One per worker: signs for every AWS credential, each with one chain for all services."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,  # noqa: TID251 -- the injected clock itself
    ) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="aws-credentials")
        self._chains: dict[tuple[str | None, ...], _Chain] = {}

    async def sign(self, request: UpstreamRequest, credential: AwsCredential) -> UpstreamRequest:
        """Add SigV4's headers, as the last edit of the request. Raises CredentialsError."""
        keys = _at_once(credential) or await self._chain(credential).keys()
        if len(request.body) > LONG_BODY_BYTES:
            return await asyncio.to_thread(signed, request, credential, keys)
        return signed(request, credential, keys)

    def renew(self, credential: AwsCredential) -> bool:
        """Forget keys that AWS calls expired; False where there are no others to be had."""
        return _at_once(credential) is None and self._chain(credential).renew()

    async def close(self) -> None:
        """End what is being looked up; a thread in the middle of it ends by itself."""
        for chain in self._chains.values():
            await chain.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _chain(self, credential: AwsCredential) -> "_Chain":
        # The service is signed for with the same keys, and the region matters to STS alone.
        region = credential.region if credential.role else ""
        sought = msgspec.structs.replace(credential, service="", region=region)
        identity = tuple(
            value.reveal() if isinstance(value, Secret) else value
            for value in msgspec.structs.astuple(sought)
        )
        chain = self._chains.get(identity)
        if chain is None:
            chain = self._chains[identity] = _Chain(Lookup(credential), self._pool, self._clock)
        return chain


def _at_once(credential: AwsCredential) -> Keys | None:
    """Take given keys, where no role is to be assumed with them."""
    return given(credential) if credential.role is None else None


def signed(request: UpstreamRequest, credential: AwsCredential, keys: Keys) -> UpstreamRequest:
    """Sign every header that is sent, and ``host``.

    But ``connection``: a hop may change it, which would break the signature (anthropic 2.12.0).
    """
    headers = {name: value for name, value in request.headers if name != "connection"}
    prepared = AWSRequest(request.method, request.url, headers, request.body)
    SigV4Auth(Credentials(*keys.revealed()), credential.service, credential.region).add_auth(
        prepared
    )
    added = tuple(
        (name, str(prepared.headers[name]))
        for name in ("x-amz-date", "x-amz-security-token", "authorization")
        if name in prepared.headers
    )
    return msgspec.structs.replace(request, headers=request.headers + added)


class _Chain:
    """One credential's keys.

    * Fresh: they are served without waiting.
    * Less than 300 s left, or half of a life shorter than 600 s: whoever comes is served the old
      keys and starts a look-up in the background.
    * None, or expired: whoever comes waits for the one look-up; if it fails, each of them gets a
      CredentialsError.
    * The next look-up starts no sooner than 5 s after the last one ended, and a failed one keeps
      the old keys until they truly expire; who needs keys before that gets the error at once.
    * A look-up is a task of its own: a waiter that leaves harms no other.
    * Nothing runs while nobody asks.
    """

    def __init__(
        self, lookup: Lookup, pool: ThreadPoolExecutor, clock: Callable[[], float]
    ) -> None:
        self._lookup = lookup
        self._pool = pool
        self._clock = clock
        self._keys: Keys | None = None
        self._refresh_at_s = 0.0
        self._retry_at_s = 0.0
        self._reason = ""
        self._flight: asyncio.Task[None] | None = None

    async def keys(self) -> Keys:
        now = self._clock()
        if self._flight is None and now >= max(self._refresh_at_s, self._retry_at_s):
            self._flight = asyncio.get_running_loop().create_task(self._refresh())
        if (keys := self._valid(now)) is not None:
            return keys
        if self._flight is not None:
            # Not `await self._flight`: a cancelled waiter would take the flight with it.
            await asyncio.wait((self._flight,))
            if self._keys is not None and self._clock() < self._keys.expires_s:
                return self._keys
        raise CredentialsError(self._reason)

    def renew(self) -> bool:
        """Forget the keys, and where they came from; those of the last seconds are new enough."""
        if self._flight is not None:
            self._keys = None
        elif self._clock() >= self._retry_at_s:
            self._keys, self._refresh_at_s = None, 0.0
            self._lookup.forget()
        return True

    def _valid(self, now: float) -> Keys | None:
        keys = self._keys
        return keys if keys is not None and now < keys.expires_s - MARGIN_S else None

    async def _refresh(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            keys = await loop.run_in_executor(self._pool, self._lookup)
        except CredentialsError as error:
            self._reason = error.reason
            _logger.warning("%s; trying again in %.0f s at the earliest", error.reason, RETRY_S)
        else:
            now = self._clock()
            life_s = keys.expires_s - now
            self._keys = keys
            self._refresh_at_s = now + max(life_s - AHEAD_S, life_s / 2)
            self._reason = "AWS gave keys that have expired; is this machine's clock right?"
        finally:
            self._retry_at_s = self._clock() + RETRY_S
            self._flight = None

    async def close(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,))
