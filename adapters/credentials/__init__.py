"""Proof of who asks: the only place where credentials become headers.

A refresh never blocks the event loop, and one refresh serves all who wait for it.
"""

import msgspec

from adapters.base import AwsCredential, CredentialSpec, HeaderCredential, UpstreamRequest
from adapters.credentials.aws import AwsSigner


class Credentials:
    """One per worker: signs every outgoing request, whatever kind of credential it needs."""

    def __init__(self) -> None:
        self._aws = AwsSigner()

    async def sign(self, request: UpstreamRequest, credential: CredentialSpec) -> UpstreamRequest:
        """Return the request with its credential added. Raises CredentialsError."""
        if isinstance(credential, HeaderCredential):
            value = credential.prefix + credential.secret.reveal()
            headers = (*request.headers, (credential.header, value))
            return msgspec.structs.replace(request, headers=headers)
        if isinstance(credential, AwsCredential):
            return await self._aws.sign(request, credential)
        raise TypeError(type(credential).__name__)

    def renew(self, credential: CredentialSpec) -> bool:
        """Forget what a provider called expired; False where there is nothing newer to be had."""
        return isinstance(credential, AwsCredential) and self._aws.renew(credential)

    async def close(self) -> None:
        """Let go of what refreshes in the background."""
        await self._aws.close()
