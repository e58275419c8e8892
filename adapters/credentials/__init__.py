"""Proof of who asks: the only place where credentials become headers.

A refresh never blocks the event loop, and one refresh serves all who wait for it.
"""

import msgspec

from adapters.base import (
    AwsCredential,
    CredentialSpec,
    GoogleCredential,
    HeaderCredential,
    UpstreamRequest,
)
from adapters.credentials.aws import AwsSigner
from adapters.credentials.google import GoogleTokens


class Credentials:
    """One per worker: signs every outgoing request, whatever kind of credential it needs."""

    def __init__(self) -> None:
        self._google = GoogleTokens()
        self._aws = AwsSigner()

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
        await self._google.close()
        await self._aws.close()
