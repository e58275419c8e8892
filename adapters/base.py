"""The contract between the proxy and a provider.

An adapter turns one question into the one request that asks it, and the provider's reply into a
count or an error. It owns the wire format and nothing else: no I/O, no clock, no configuration.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct


class Secret:
    """A credential that shows itself only when asked: its repr and str are ``***``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the credential itself, for the one place that sends or compares it."""
        return self._value

    def __repr__(self) -> str:
        return "***"


class Params(Struct, frozen=True):
    """``litellm_params`` of one entry, ``os.environ/NAME`` resolved; LiteLLM's names and meaning.

    ``model`` stands without its provider prefix. A value whose variable is not set is None, and
    ``unset`` maps the parameter to the variable's name.
    """

    model: str
    api_key: Secret | None = None
    api_base: str | None = None
    base_model: str | None = None
    vertex_project: str | None = None
    vertex_location: str | None = None
    vertex_count_tokens_location: str | None = None
    vertex_credentials: Secret | None = None
    aws_region_name: str | None = None
    aws_access_key_id: Secret | None = None
    aws_secret_access_key: Secret | None = None
    aws_session_token: Secret | None = None
    aws_profile_name: str | None = None
    aws_role_name: str | None = None
    aws_session_name: str | None = None
    aws_external_id: str | None = None
    aws_web_identity_token: Secret | None = None
    aws_bedrock_runtime_endpoint: str | None = None
    aws_bedrock_mantle_endpoint: str | None = None
    count_from_too_long: bool = False
    count_without_date: bool = False
    unset: Mapping[str, str] = {}
    emptied: tuple[str, ...] = ()
    """Parameters that the entry sets to ``""``: not to be taken from elsewhere."""


class HeaderCredential(Struct, frozen=True):
    """A key that never expires: one header, sent as it is."""

    header: str
    prefix: str
    secret: Secret


class GoogleCredential(Struct, frozen=True):
    """Where a Google bearer token comes from; None means application default credentials."""

    source: Secret | None = None
    """A service account, authorized user or federation file: its path, or its JSON text."""


class AwsCredential(Struct, frozen=True):
    """Where AWS keys come from (all None: the default chain), and what SigV4 signs for."""

    region: str
    service: str
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    profile: str | None = None
    role: str | None = None
    session_name: str | None = None
    external_id: str | None = None
    web_identity_token: Secret | None = None
    """The absolute path of its file, read anew for every role session, or the token itself."""


CredentialSpec = HeaderCredential | GoogleCredential | AwsCredential


class Endpoint(Struct, frozen=True):
    """The counter that a deployment asks: what stands in its address, and who asks."""

    upstream_model: str
    base_url: str
    scope: tuple[str, ...] = ()
    """What else decides the number and so belongs in the key: a base URL that is not the
    provider's own, a region that runs its own counter."""
    project: str = ""
    location: str = ""
    credential: CredentialSpec | None = None
    missing: tuple[str, ...] = ()
    """Names of the environment variables that would supply what is not there; that of the
    credential comes last."""
    alternate: "Alternate | None" = None
    """Asked instead once this counter has said that it does not count the model."""
    count_from_too_long: bool = False
    """The operator wants the count that a refusal for length states (`UpstreamError`)."""
    without_date: bool = False
    """The operator wants the model counted by its name without ``@YYYYMMDD`` (part of `scope`)."""


class Alternate(Struct, frozen=True):
    """Another provider's counter of the same models. Its ``upstream_model`` is the asker's."""

    provider: str
    endpoint: Endpoint


class Deployment(Struct, frozen=True):
    """One entry of ``model_list``, resolved: which counter answers for an alias."""

    name: str
    alias: str
    provider: str
    endpoint: Endpoint
    timeout_s: float
    """The total deadline of a count, retries included."""
    rpm: float | None = None
    """Requests a minute that the provider allows."""
    weight: float = 1.0
    """Its share of what its pool is asked, beside the others' weights."""
    cache_ttl_s: float | None = None
    """How long its counts are fresh, where that differs from the configuration's own."""
    fallback_estimate: bool = False
    """An estimate, marked as one, may stand in when the provider fails."""

    @property
    def counter(self) -> tuple[object, ...]:
        """What decides the number besides the question; entries that share it may share a pool."""
        endpoint, alternate = self.endpoint, self.endpoint.alternate
        other = None if alternate is None else (alternate.provider, alternate.endpoint.scope)
        stated = endpoint.count_from_too_long
        return self.provider, endpoint.upstream_model, endpoint.scope, stated, other


class CountRequest(Struct, frozen=True, gc=False):
    """What the client asked, reduced to what decides the number.

    ``body`` is the canonical JSON object (see ``cache.key``) without ``model``; an adapter builds
    what it sends from these fields and from nothing else, so that what is hashed is what is sent.
    """

    body: bytes
    version: str
    betas: tuple[str, ...] = ()
    """Distinct and sorted, as the client sent them."""
    identity: tuple[tuple[str, str], ...] = ()
    """Forwarded identity headers (user profile, workspace), sorted."""
    query: str = ""
    """The client's query string; only the pass-through forwards it."""

    def __repr__(self) -> str:
        return f"<CountRequest of {len(self.body)} bytes>"


class UpstreamRequest(Struct, frozen=True, gc=False):
    """Everything the network layer needs. Header names are lower-case."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    dropped: tuple[str, ...] = ()
    """What this provider's counter has no form for, in the words of docs/providers.md."""

    def __repr__(self) -> str:
        return f"<UpstreamRequest to {self.url.partition('?')[0]} of {len(self.body)} bytes>"


def named_betas(betas: Iterable[str]) -> tuple[str, ...]:
    """Name betas that are not sent, as ``UpstreamRequest.dropped`` does."""
    return tuple(f"anthropic-beta:{beta}" for beta in betas)


class Count(Struct, frozen=True, gc=False):
    """A provider's answer: at least one token, and its extra reply fields.

    ``extra`` is ``b""`` or raw JSON members ``b',"name":value'`` to follow ``"input_tokens":N``.
    """

    input_tokens: int
    extra: bytes = b""


class UpstreamError(Struct, frozen=True):
    """A provider's refusal, in the caller's terms.

    ``message`` may quote the caller's own prompt: it goes to callers of that very question and
    into no log. ``reason`` is our own wording and safe to log.
    """

    status: int
    type: str
    message: str
    reason: str
    upstream_status: int = 0
    """What the provider said: 200 with a reply that holds no count, 0 when nothing was heard."""
    broken: bool = False
    """The connection could not be made, or broke before the reply was whole."""
    details: bytes = b""
    """The error object's further members as raw JSON members (``b',"details":{…}'``)."""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers worth passing on, ``retry-after`` (in seconds) among them."""
    upstream_request_id: str = ""
    credential_fault: bool = False
    """The credential was refused: the operator's fault, unless the credential is the caller's."""
    credential_expired: bool = False
    """A fresh credential may be accepted: worth one refresh and one more try."""
    model_not_counted: bool = False
    """This counter does not count the model, whatever is asked; an alternate may. Such a refusal is
    remembered and told to other callers: its ``message`` holds nothing of the request."""
    stated_count: int = 0
    """The exact count that a refusal for length states, or 0."""

    def __repr__(self) -> str:
        return f"<UpstreamError {self.status}: {self.reason}>"


class CannotExpressError(Exception):
    """The request holds something this provider's counter has no form for: a 400 with its path."""


class TooLargeError(CannotExpressError):
    """The request is larger than this provider's counter takes: a 413 request_too_large."""


class MalformedUpstreamError(Exception):
    """A reply with status 200 that holds no count: never answered as a number, always a 502."""


class CredentialsError(Exception):
    """No proof of who asks could be had: the operator's fault, answered as a 502.

    ``reason`` is our own wording: no secret and no provider's text, safe to log.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


SPLICED_BYTES = 1_000_000
"""``LONG_BODY_BYTES`` of adapters that only copy: 20 MB hold a loop for 100 ms (2026-11)."""


class Adapter(Protocol):
    """A provider's wire format. Pure: the same arguments give the same result."""

    WIRE_VERSION: int
    """Part of every key; raised whenever ``request`` gives other bytes for some input."""
    LONG_BODY_BYTES: int
    """From this size on ``request`` takes longer than an event loop should wait."""

    def claims(self, prefix: str, model: str) -> bool:
        """Say whether ``litellm_params.model`` = ``prefix/model`` is this provider's."""
        ...

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        """Resolve one entry of the configuration. Raises ValueError with a clear remedy."""
        ...

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        """Build the unsigned request. Raises CannotExpressError, TooLargeError."""
        ...

    def count(self, body: bytes) -> Count:
        """Read a 200 reply. Raises MalformedUpstreamError."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read any other reply. Header names are lower-case."""
        ...


class LocalCounter(Protocol):
    """A counter that asks no provider: only the estimate."""

    def estimate(self, body: bytes) -> int: ...
