"""AWS: one chain of keys for each credential, and the signature made with them.

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

from adapters.base import AwsCredential, Secret, UpstreamRequest
from adapters.credentials._aws_chain import Keys, Lookup, given
from adapters.credentials._refresh import Refreshed

AHEAD_S = 300.0
"""New keys of a container or an instance are there five minutes before the old ones end
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html,
2026-11)."""
MARGIN_S = 30.0
"""Keys with less left may expire on the way."""
THREADS = 4
LONG_BODY_BYTES = 262_144
"""Hashing more than this takes longer than the event loop should wait."""

# botocore logs canonical requests with session tokens, and replies with keys, at DEBUG (1.43.117).
for _name in ("botocore", "aiobotocore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class _Chain(msgspec.Struct):
    lookup: Lookup
    keys: Refreshed[Keys]


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
        keys = _at_once(credential) or await self._chain(credential).keys.get()
        if len(request.body) > LONG_BODY_BYTES:
            return await asyncio.to_thread(signed, request, credential, keys)
        return signed(request, credential, keys)

    def renew(self, credential: AwsCredential) -> bool:
        """Forget keys that AWS calls expired; False where there are no others to be had."""
        if _at_once(credential) is not None:
            return False
        chain = self._chain(credential)
        if chain.keys.renew():
            chain.lookup.forget()
        return True

    async def close(self) -> None:
        """End what is being looked up; a thread in the middle of it ends by itself."""
        for chain in self._chains.values():
            await chain.keys.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _chain(self, credential: AwsCredential) -> _Chain:
        # The service is signed for with the same keys, and the region matters to STS alone.
        region = credential.region if credential.role else ""
        sought = msgspec.structs.replace(credential, service="", region=region)
        identity = tuple(
            value.reveal() if isinstance(value, Secret) else value
            for value in msgspec.structs.astuple(sought)
        )
        chain = self._chains.get(identity)
        if chain is None:
            lookup = Lookup(credential)
            keys = Refreshed(lookup, self._pool, self._clock, ahead_s=AHEAD_S, margin_s=MARGIN_S)
            chain = self._chains[identity] = _Chain(lookup, keys)
        return chain


def _at_once(credential: AwsCredential) -> Keys | None:
    """Take given keys, where no role is to be assumed with them."""
    return given(credential) if credential.role is None else None


def signed(request: UpstreamRequest, credential: AwsCredential, keys: Keys) -> UpstreamRequest:
    """Sign every header that is sent, and ``host``."""
    prepared = AWSRequest(request.method, request.url, dict(request.headers), request.body)
    SigV4Auth(Credentials(*keys.revealed()), credential.service, credential.region).add_auth(
        prepared
    )
    added = tuple(
        (name, str(prepared.headers[name]))
        for name in ("x-amz-date", "x-amz-security-token", "authorization")
        if name in prepared.headers
    )
    return msgspec.structs.replace(request, headers=request.headers + added)
