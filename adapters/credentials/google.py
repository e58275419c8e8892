"""Google's bearer tokens: one for each credential, however many entries have it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from adapters._vertex import CREDENTIAL_PROJECT, check_project
from adapters.base import CredentialsError, GoogleCredential, UpstreamRequest
from adapters.credentials._google_auth import GoogleAuth, Grant
from adapters.credentials._refresh import Refreshed

AHEAD_S = 225.0
"""google-auth's own threshold (2.62): the metadata server has no newer token before."""
THREADS = 4


class GoogleTokens:
    """One per worker: signs for every Google credential, each with one token for all."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,  # noqa: TID251 -- the injected clock itself
    ) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="google-auth")
        self._tokens: dict[str, Refreshed[Grant]] = {}

    async def sign(self, request: UpstreamRequest, credential: GoogleCredential) -> UpstreamRequest:
        """Add the bearer token, and the credential's project where the address has none.

        Raises CredentialsError.
        """
        grant = await self._token(credential).get()
        return msgspec.structs.replace(
            request,
            url=_with_project(request.url, grant.project),
            headers=(*request.headers, *grant.headers),
        )

    def renew(self, credential: GoogleCredential) -> bool:
        """Forget a token that Google refused; True, since another can be had."""
        self._token(credential).renew()
        return True

    async def close(self) -> None:
        """End what is being refreshed; a thread in the middle of it ends by itself."""
        for token in self._tokens.values():
            await token.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _token(self, credential: GoogleCredential) -> Refreshed[Grant]:
        source = credential.source
        name = source.reveal() if source else ""
        token = self._tokens.get(name)
        if token is None:
            fetch = GoogleAuth(source).grant
            token = Refreshed(fetch, self._pool, self._clock, ahead_s=AHEAD_S)
            self._tokens[name] = token
        return token


def _with_project(url: str, project: str) -> str:
    blank = f"/projects/{CREDENTIAL_PROJECT}/"
    if blank not in url:
        return url
    try:
        check_project(project)
    except ValueError:
        raise CredentialsError(
            "the Google credential names no project: set vertex_project or VERTEXAI_PROJECT"
        ) from None
    return url.replace(blank, f"/projects/{project}/", 1)
