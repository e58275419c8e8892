"""Google's bearer tokens: who fetches one when, and who waits for it."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from adapters._vertex import CREDENTIAL_PROJECT, check_project
from adapters.base import CredentialsError, GoogleCredential, UpstreamRequest
from adapters.credentials._google_auth import GoogleAuth, Grant

AHEAD_S = 225.0
"""google-auth's own threshold (2.62): the metadata server has no newer token before."""
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
NEW_S = 30.0
"""A younger token that is refused is not worth another one."""
THREADS = 4

_logger = logging.getLogger("tallygate.credentials")


class GoogleTokens:
    """One per worker: signs for every Google credential, each with one token for all."""

    def __init__(
        self,
        clock: Callable[[], float] = time.time,  # noqa: TID251 -- the injected clock itself
    ) -> None:
        self._clock = clock
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="google-auth")
        self._tokens: dict[str, _Token] = {}

    async def sign(self, request: UpstreamRequest, credential: GoogleCredential) -> UpstreamRequest:
        """Add the bearer token, and the credential's project where the address has none.

        Raises CredentialsError.
        """
        grant = await self._token(credential).grant()
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

    def _token(self, credential: GoogleCredential) -> "_Token":
        source = credential.source
        name = source.reveal() if source else ""
        token = self._tokens.get(name)
        if token is None:
            token = _Token(GoogleAuth(source).grant, self._pool, self._clock)
            self._tokens[name] = token
        return token


class _Token:
    """One credential's token.

    * Fresh: it is served, without an await that waits.
    * Less than 225 s left, or half of a life shorter than 450 s: whoever comes is served the old
      token and starts a refresh in the background.
    * None, or expired: whoever comes waits for the one refresh; if it fails, each of them gets a
      CredentialsError.
    * A failed refresh keeps the old token until it truly expires. The next one starts no sooner
      than after 1 s, then 2, 4 … 60 s; who needs a token before that gets the error at once.
    * A refresh is a task of its own, in a thread of its own: a waiter that leaves harms no other,
      and the loop never waits.
    * Nothing runs while nobody asks.
    """

    def __init__(
        self,
        fetch: Callable[[], Grant],
        pool: ThreadPoolExecutor,
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._pool = pool
        self._clock = clock
        self._grant: Grant | None = None
        self._granted_at_s = 0.0
        self._refresh_at_s = 0.0
        self._retry_at_s = 0.0
        self._failures = 0
        self._reason = ""
        self._flight: asyncio.Task[None] | None = None

    async def grant(self) -> Grant:
        now = self._clock()
        if now >= max(self._refresh_at_s, self._retry_at_s) and self._flight is None:
            self._flight = asyncio.get_running_loop().create_task(self._refresh())
        if (grant := self._valid(now)) is not None:
            return grant
        if self._flight is not None:
            # Not `await self._flight`: a cancelled waiter would take the flight with it.
            await asyncio.wait((self._flight,))
            if (grant := self._valid(self._clock())) is not None:
                return grant
        raise CredentialsError(self._reason)

    def renew(self) -> None:
        """Forget the token, unless it is new: many requests may have been refused at once."""
        if self._clock() >= self._granted_at_s + NEW_S:
            self._grant, self._refresh_at_s = None, 0.0

    def _valid(self, now: float) -> Grant | None:
        grant = self._grant
        return grant if grant is not None and now < grant.expires_s else None

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            grant = await loop.run_in_executor(self._pool, self._fetch)
        except CredentialsError as error:
            self._failed(error.reason)
        else:
            self._granted(grant)
        finally:
            self._flight = None

    def _granted(self, grant: Grant) -> None:
        now = self._clock()
        life_s = grant.expires_s - now
        if life_s <= 0:
            self._failed("Google gave a token that has expired; is this machine's clock right?")
            return
        self._grant = grant
        self._granted_at_s = now
        self._refresh_at_s = now + max(life_s - AHEAD_S, life_s / 2)
        self._failures = 0

    def _failed(self, reason: str) -> None:
        wait_s = min(FIRST_BACKOFF_S * 2**self._failures, MAX_BACKOFF_S)
        self._failures += 1
        self._reason = reason
        self._retry_at_s = self._clock() + wait_s
        _logger.warning("%s; trying again in %.0f s at the earliest", reason, wait_s)

    async def close(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,))


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
