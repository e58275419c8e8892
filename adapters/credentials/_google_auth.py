"""google-auth, the library: everything here blocks and belongs into a thread.

It reads HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE as ``requests`` does; SSL_CERT_FILE too.
"""

import functools
import logging
import os
import warnings
from datetime import UTC
from pathlib import Path
from typing import Any

import google.auth
import msgspec
from google.auth.credentials import with_scopes_if_required
from google.auth.exceptions import (
    DefaultCredentialsError,
    OAuthError,
    RefreshError,
    TransportError,
)
from google.auth.transport.requests import Request

from adapters.base import CredentialsError, Secret
from adapters.credentials._refresh import check_header_safe

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
REQUEST_TIMEOUT_S = 10.0
"""For one connection and for each wait on it; the library's own is 120."""

# https://www.rfc-editor.org/rfc/rfc6749#section-5.2: known words, so that no other can leak.
_OAUTH_ERRORS = (
    "access_denied",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
)

# At DEBUG it logs what it sends and what it is told (2.62).
logging.getLogger("google").setLevel(logging.CRITICAL)


class Grant(msgspec.Struct, frozen=True):
    """What the token endpoint granted; ``expires_s`` is in seconds since the epoch."""

    headers: tuple[tuple[str, str], ...]
    expires_s: float
    project: str

    def __repr__(self) -> str:
        return f"Grant(headers=***, expires_s={self.expires_s:.0f}, project={self.project!r})"


class GoogleAuth:
    """One credential; None is application default credentials. For one thread at a time."""

    def __init__(self, source: Secret | None) -> None:
        self._source = source
        self._loaded: tuple[Any, str] | None = None

    def grant(self) -> Grant:
        """Ask for a new token. Raises CredentialsError.

        After a refusal the next call reads the source again: the file may have been replaced.
        """
        request = functools.partial(_request(), timeout=REQUEST_TIMEOUT_S)
        try:
            if self._loaded is None:
                self._loaded = _load(self._source, request)
            credentials, project = self._loaded
            credentials.refresh(request)
            # A quota project becomes x-goog-user-project here.
            headers: dict[str, str] = {}
            credentials.apply(headers)
            check_header_safe("Google's token", headers.values())
        except CredentialsError:
            raise
        except Exception as error:  # noqa: BLE001 -- the library raises whatever its parts raise
            # Not after an outage: to check a service account's key holds up the whole process for
            # some 30 ms (cryptography 50, 2026-11).
            if not (isinstance(error, TransportError) or getattr(error, "retryable", False)):
                self._loaded = None
            raise CredentialsError(_reason(error)) from None
        expiry = credentials.expiry
        # The library's expiry is UTC without saying so; none means never.
        expires_s = expiry.replace(tzinfo=UTC).timestamp() if expiry else float("inf")
        return Grant(tuple(headers.items()), expires_s, project)


def _request() -> Request:
    """Make a connection of its own for one refresh: two threads may not share one."""
    request = Request()
    request.session.verify = os.environ.get("SSL_CERT_FILE") or True
    return request


def _load(source: Secret | None, request: Any) -> tuple[Any, str]:
    if source is None:
        credentials, project = google.auth.default(scopes=SCOPES, request=request)
    else:
        info = _read(source.reveal())
        with warnings.catch_warnings():
            # It warns of files that strangers hand in; this one is the operator's own.
            warnings.simplefilter("ignore", DeprecationWarning)
            credentials, project = google.auth.load_credentials_from_dict(info, request=request)
        credentials = with_scopes_if_required(credentials, SCOPES)
    # A user has no project but the one that pays.
    return credentials, project or getattr(credentials, "quota_project_id", None) or ""


def _read(source: str) -> dict[str, Any]:
    """Read JSON text, or the file of that name. Raises CredentialsError without either."""
    text: str | bytes = source
    if not source.lstrip().startswith("{"):
        try:
            text = Path(source).read_bytes()
        except (OSError, ValueError):
            raise CredentialsError("vertex_credentials: no JSON, and no readable file") from None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CredentialsError("vertex_credentials: not a JSON object") from None


def _reason(error: Exception) -> str:
    """Say what went wrong in our words: the library's own quote the provider and the file."""
    if isinstance(error, RefreshError | OAuthError):
        said = str(error)
        known = next((word for word in _OAUTH_ERRORS if word in said), "for an unknown reason")
        return f"Google gave no token for the credential: {known}"
    if isinstance(error, TransportError):
        return "Google's token endpoint could not be reached"
    if isinstance(error, DefaultCredentialsError):
        return "no usable Google credential: vertex_credentials or application default credentials"
    return f"google-auth failed: {type(error).__name__}"
