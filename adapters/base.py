"""The contract between the proxy and a provider.

An adapter turns one question into the one request that asks it, and the provider's reply into a
count or an error. It owns the wire format and nothing else: no I/O, no clock, no configuration.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class Source(StrEnum):
    """Where a number comes from, as the answer says it in ``x-tallygate-source``."""

    LIVE = "live"
    CACHE = "cache"
    COALESCED = "coalesced"
    STALE = "stale"
    ESTIMATE = "estimate"


class Secret:
    """A credential that shows itself only when asked: its repr and str are ``***``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"


class CountRequest(Struct, frozen=True):
    """What the client asked, reduced to what decides the number.

    ``body`` is the canonical JSON object (see ``cache.key``) without ``model``; an adapter builds
    what it sends from these fields and from nothing else, so that what is hashed is what is sent.
    """

    body: bytes
    version: str
    betas: tuple[str, ...] = ()
    identity: tuple[tuple[str, str], ...] = ()
    query: str = ""


class Deployment(Struct, frozen=True):
    """One entry of ``model_list``, resolved: which counter is asked, where, and as whom."""

    name: str
    alias: str
    provider: str
    upstream_model: str
    base_url: str
    own_base_url: bool = False
    """True when ``base_url`` is not the provider's own address, and so part of the key."""
    region: str = ""
    project: str = ""
    api_key: Secret | None = None
    missing: tuple[str, ...] = ()
    """Environment variables that the entry names and that are not set."""
    timeout_s: float = 30.0
    rpm: int | None = None
    fallback_estimate: bool = False


class UpstreamRequest(Struct, frozen=True):
    """Everything the network layer needs. Header names are lower-case."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Count(Struct, frozen=True):
    """A provider's answer: at least one token, and its extra reply fields as raw JSON members.

    ``extra`` is ``b""`` or ``b',"name":value'``, ready to follow ``"input_tokens":N``.
    """

    input_tokens: int
    extra: bytes = b""
    dropped: tuple[str, ...] = ()


class UpstreamError(Struct, frozen=True):
    """A provider's refusal, in the caller's terms.

    ``message`` may quote the caller's own prompt: it goes to callers of that very question and
    into no log. ``reason`` is our own wording and safe to log.
    """

    status: int
    type: str
    message: str
    reason: str
    retry_after_s: float | None = None
    upstream_request_id: str = ""
    credential_fault: bool = False
    """The credential was refused: the operator's fault, unless the credential is the caller's."""
    details: bytes = b""
    """The error object's further members as raw JSON members (``b',"details":{…}'``)."""
    headers: tuple[tuple[str, str], ...] = ()


class CannotExpressError(Exception):
    """The request holds something this provider's counter has no form for: a 400 with its path."""


class MalformedUpstreamError(Exception):
    """A reply with status 200 that holds no count: never answered as a number, always a 502."""


class Adapter(Protocol):
    """A provider's wire format. Pure: the same arguments give the same bytes."""

    WIRE_VERSION: int
    """Part of every key; raised whenever ``request`` gives other bytes for some input."""

    def request(self, count: CountRequest, deployment: Deployment) -> UpstreamRequest:
        """Build the unsigned request. Raises CannotExpressError."""
        ...

    def count(self, body: bytes) -> Count:
        """Read a 200 reply. Raises MalformedUpstreamError."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read any other reply. Header names are lower-case."""
        ...


class Credentials(Protocol):
    """Adds what proves who asks; may wait for a token, never blocks the event loop."""

    async def sign(self, request: UpstreamRequest) -> UpstreamRequest: ...


class LocalCounter(Protocol):
    """A counter that needs no provider: only the estimate."""

    def estimate(self, body: bytes) -> int: ...
