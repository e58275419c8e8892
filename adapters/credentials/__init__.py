"""Proof of who asks: the only place where credentials become headers.

A refresh never blocks the event loop, and one refresh serves all who wait for it. Each provider's
chain takes 50 ms and several MiB to load: a server that asks none of its models does without.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from adapters.base import (
    AwsCredential,
    CredentialSpec,
    GoogleCredential,
    HeaderCredential,
    UpstreamRequest,
)

if TYPE_CHECKING:
    from adapters.credentials.aws import AwsSigner
    from adapters.credentials.google import GoogleTokens


class Credentials:
    """One per worker: signs every outgoing request, whatever kind of credential it needs."""

    def __init__(self, expected: Iterable[CredentialSpec | None] = ()) -> None:
        """Load what those that are ``expected`` need: later it would hold up the loop."""
        kinds = {type(one) for one in expected}
        if GoogleCredential in kinds:
            _ = self._google
        if AwsCredential in kinds:
            _ = self._aws

    @cached_property
    def _google(self) -> "GoogleTokens":
        from adapters.credentials.google import GoogleTokens  # noqa: PLC0415 -- see above

        return GoogleTokens()

    @cached_property
    def _aws(self) -> "AwsSigner":
        from adapters.credentials.aws import AwsSigner  # noqa: PLC0415 -- see above

        return AwsSigner()

    async def sign(self, request: UpstreamRequest, credential: CredentialSpec) -> UpstreamRequest:
        """Return the request with its credential added. Raises CredentialsError."""
        match credential:
            case HeaderCredential(header, prefix, secret):
                headers = (*request.headers, (header, prefix + secret.reveal()))
                return msgspec.structs.replace(request, headers=headers)
            case GoogleCredential():
                return await self._google.sign(request, credential)
            case AwsCredential():
                return await self._aws.sign(request, credential)

    def renew(self, credential: CredentialSpec) -> bool:
        """Forget what a provider called expired; False where there is nothing newer to be had."""
        match credential:
            case HeaderCredential():
                return False
            case GoogleCredential():
                return self._google.renew(credential)
            case AwsCredential():
                return self._aws.renew(credential)

    async def close(self) -> None:
        """Let go of what refreshes in the background."""
        loaded = vars(self)
        if "_google" in loaded:
            await self._google.close()
        if "_aws" in loaded:
            await self._aws.close()
