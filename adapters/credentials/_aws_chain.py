"""aiobotocore's credential chain, asked from a thread: some of its steps block.

It reads files, parses client models, starts processes; so each look-up has an event loop of its
own, and only plain keys leave the thread.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, ProfileNotFound
from msgspec import Struct

from adapters.base import AwsCredential, CredentialsError, Secret
from adapters.credentials._refresh import check_header_safe

LOOKUP_S = 10.0
CALL_S = 5.0
SESSION_NAME = "tallygate"


class Keys(Struct, frozen=True):
    """What a request is signed with, and until when: infinity where AWS names no end."""

    access_key: Secret
    secret_key: Secret
    token: Secret | None
    expires_s: float = float("inf")

    def revealed(self) -> tuple[str, str, str | None]:
        """Return the keys themselves, in botocore's order."""
        token = self.token.reveal() if self.token else None
        return self.access_key.reveal(), self.secret_key.reveal(), token


def given(credential: AwsCredential) -> Keys | None:
    """Take the keys that stand in the configuration."""
    access_key, secret_key = credential.access_key_id, credential.secret_access_key
    if access_key is None or secret_key is None:
        return None
    return Keys(access_key, secret_key, credential.session_token)


class Lookup:
    """Blocking: asks aiobotocore's chain, whose session is kept from one look-up to the next."""

    def __init__(self, credential: AwsCredential) -> None:
        self._credential = credential
        self._source: Any = None

    def __call__(self) -> Keys:
        """Find valid keys. Raises CredentialsError."""
        try:
            return asyncio.run(self._find())
        except Exception as error:  # noqa: BLE001 -- what it says may quote keys, so it ends here
            raise CredentialsError(self._explain(error)) from None

    def forget(self) -> None:
        """Read files and environment anew next time."""
        self._source = None

    async def _find(self) -> Keys:
        async with asyncio.timeout(LOOKUP_S):
            source = self._source or await _source(self._credential)
            found = await source.get_frozen_credentials()
        check_header_safe("AWS's keys", (found.access_key, found.token or "-"))
        self._source = source
        # botocore keeps it to itself, as a datetime or None.
        expiry = getattr(source, "_expiry_time", None)
        return Keys(
            Secret(found.access_key),
            Secret(found.secret_key),
            Secret(found.token) if found.token else None,
            expiry.timestamp() if expiry else float("inf"),
        )

    def _explain(self, error: Exception) -> str:
        """Say what failed in our own words: botocore's may quote a reply or a process's output."""
        if isinstance(error, CredentialsError):
            return error.reason
        if isinstance(error, TimeoutError):
            return f"AWS gave no keys within {LOOKUP_S:.0f} s"
        if isinstance(error, ProfileNotFound):
            return "the AWS profile stands in none of AWS's files"
        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            known = code if re.fullmatch(r"[A-Za-z]{1,64}", code) else "an error"
            return f"AWS refused {error.operation_name}: {known}"
        if isinstance(error, OSError):
            return f"no AWS keys: {error.strerror or type(error).__name__}"
        return f"no AWS keys: {type(error).__name__}"


async def _source(credential: AwsCredential) -> Any:
    """Build the object that gives keys and refreshes them."""
    # 220 ms and 17 MB, which only those should pay who need the chain; this is its thread.
    from aiobotocore import credentials  # noqa: PLC0415
    from aiobotocore.config import AioConfig  # noqa: PLC0415
    from aiobotocore.session import AioSession  # noqa: PLC0415

    session = AioSession(profile=credential.profile)
    session.set_default_client_config(
        AioConfig(connect_timeout=CALL_S, read_timeout=CALL_S, retries={"total_max_attempts": 2})
    )
    session.set_config_variable("region", credential.region)
    if credential.role is None:
        return await _ambient(session)

    def client(service: str, **options: Any) -> Any:
        return session.create_client(service, region_name=credential.region, **options)

    extra = {"RoleSessionName": credential.session_name or SESSION_NAME}
    if credential.web_identity_token is not None:
        token = credential.web_identity_token.reveal()
        fetcher = credentials.AioAssumeRoleWithWebIdentityCredentialFetcher(
            client, lambda: _read_token(token), credential.role, extra_args=extra
        )
        return credentials.AioDeferredRefreshableCredentials(
            fetcher.fetch_credentials, "assume-role-with-web-identity"
        )
    if credential.external_id:
        extra["ExternalId"] = credential.external_id
    base = given(credential)
    own = credentials.AioCredentials(*base.revealed()) if base else await _ambient(session)
    fetcher = credentials.AioAssumeRoleCredentialFetcher(
        client, own, credential.role, extra_args=extra
    )
    return credentials.AioDeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


async def _ambient(session: Any) -> Any:
    found = await session.get_credentials()
    if found is None:
        raise CredentialsError(
            "no AWS keys in the configuration, the environment, AWS's files, a container's or an "
            "instance's metadata: set api_key, aws_access_key_id, aws_profile_name or aws_role_name"
        )
    return found


def _read_token(token: str) -> str:
    """Read the file that holds the token, which its issuer renews; or take the token itself."""
    return Path(token).read_text().strip() if token.startswith("/") else token
