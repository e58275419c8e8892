"""Proof of who asks: the only place where credentials become headers.

A refresh never blocks the event loop, and one refresh serves all who wait for it.
"""

import msgspec

from adapters.base import CredentialSpec, HeaderCredential, UpstreamRequest


class Credentials:
    """One per worker: signs every outgoing request, whatever kind of credential it needs."""

    async def sign(self, request: UpstreamRequest, credential: CredentialSpec) -> UpstreamRequest:
        """Return the request with its credential added."""
        if isinstance(credential, HeaderCredential):
            value = credential.prefix + credential.secret.reveal()
            headers = (*request.headers, (credential.header, value))
            return msgspec.structs.replace(request, headers=headers)
        raise TypeError(type(credential).__name__)

    async def close(self) -> None:
        """Let go of what refreshes in the background."""
