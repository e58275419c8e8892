"""Proof of who asks: the only place where credentials become headers.

A refresh never blocks the event loop, and one refresh serves all who wait for it.
"""

import msgspec

from adapters.base import CredentialSpec, GoogleCredential, HeaderCredential, UpstreamRequest
from adapters.credentials.google import GoogleTokens


class Credentials:
    """One per worker: signs every outgoing request, whatever kind of credential it needs."""

    def __init__(self) -> None:
        self._google = GoogleTokens()

    async def sign(self, request: UpstreamRequest, credential: CredentialSpec) -> UpstreamRequest:
        """Return the request with its credential added. Raises CredentialsError."""
        if isinstance(credential, HeaderCredential):
            value = credential.prefix + credential.secret.reveal()
            headers = (*request.headers, (credential.header, value))
            return msgspec.structs.replace(request, headers=headers)
        if isinstance(credential, GoogleCredential):
            return await self._google.sign(request, credential)
        raise TypeError(type(credential).__name__)

    def renew(self, credential: CredentialSpec) -> bool:
        """Forget what a provider called expired; False where there is nothing newer to be had."""
        return isinstance(credential, GoogleCredential) and self._google.renew(credential)

    async def close(self) -> None:
        """Let go of what refreshes in the background."""
        await self._google.close()
