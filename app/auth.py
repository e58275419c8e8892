"""Headers → Caller: who asks, and what they may ask about."""

import hmac
import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from adapters.base import Secret
from app.config import sha256
from app.config_sections import CallerKey
from app.errors import unauthenticated

# LiteLLM's order (1.109.1, user_api_key_auth): the first one present decides.
KEY_HEADERS = (
    "x-litellm-api-key",
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "ocp-apim-subscription-key",
)
_SCHEMES = ("bearer ", "basic ")
_OWN_KEY = re.compile(r"sk-ant-[\x21-\x7e]{1,512}")


class Caller(Struct, frozen=True):
    """An authenticated client; ``models`` None means all."""

    name: str
    models: tuple[str, ...] | None = None
    is_master: bool = False
    rpm: int | None = None
    max_parallel_misses: int | None = None

    @property
    def is_limited(self) -> bool:
        """Say whether what it asks of providers is counted; nobody asks this of a hit."""
        return self.rpm is not None or self.max_parallel_misses is not None

    def unlimited(self) -> "Caller":
        """Give the same caller for what it has not asked itself."""
        return msgspec.structs.replace(self, rpm=None, max_parallel_misses=None)

    def may_count(self, names: tuple[str, ...]) -> bool:
        """Say whether one of a model's names is among those this key may use."""
        if self.models is None:
            return True
        return any(_matches(pattern, name) for pattern in self.models for name in names)


ANONYMOUS = Caller("anonymous")


def _matches(pattern: str, name: str) -> bool:
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return pattern == name


class Authenticator:
    """Compares keys by their SHA-256, in constant time; holds no key itself."""

    def __init__(self, keys: tuple[CallerKey, ...]) -> None:
        self._callers = {
            key.sha256: (
                key.sha256,
                Caller(key.name, key.models, key.is_master, key.rpm, key.max_parallel_misses),
            )
            for key in keys
        }

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Identify the caller. Raises ProxyError 401.

        Without any configured key everybody is the anonymous caller; the server then listens on
        loopback only.
        """
        if not self._callers:
            return ANONYMOUS
        for header in KEY_HEADERS:
            value = headers.get(header)
            if value is not None:
                return self._known(presented_key(header, value))
        raise unauthenticated("no API key; send it as x-api-key or as authorization: Bearer")

    def _known(self, key: str) -> Caller:
        digest = sha256(key)
        known, caller = self._callers.get(digest, (b"", ANONYMOUS))
        if not hmac.compare_digest(known, digest):
            raise unauthenticated("invalid API key")
        return caller


def presented_key(header: str, value: str) -> str:
    """Take the scheme off a credential; an authorization without a known scheme is no key."""
    value = value.strip()
    for scheme in _SCHEMES:
        if value[: len(scheme)].lower() == scheme:
            return value[len(scheme) :].strip()
    return "" if header == "authorization" else value


def upstream_credential(headers: Mapping[str, str], *, has_keys: bool) -> Secret | None:
    """Find the caller's own Anthropic credential beside the one that admitted it here.

    The header that proved the caller to this server is not looked at again: what is left over in
    ``authorization`` or ``x-api-key`` and has the form of an Anthropic key is the caller's own.
    """
    used = next((name for name in KEY_HEADERS if name in headers), None) if has_keys else None
    for header in ("authorization", "x-api-key"):
        value = headers.get(header)
        if value is None or header == used:
            continue
        key = presented_key(header, value)
        if _OWN_KEY.fullmatch(key):
            return Secret(key)
    return None
