"""Anthropic's own counting API, and every server that speaks its wire format.

    POST {base}/v1/messages/count_tokens
    {"model":"claude-…","messages":[…],…}          →  {"input_tokens":14}

The body goes out as the client wrote it: fields that nobody knows yet included.
https://platform.claude.com/docs/en/build-with-claude/token-counting (2026-11)
"""

from collections.abc import Mapping

import msgspec

from adapters._address import checked_base, unset_base
from adapters._reply import read_members, take_tokens
from adapters.base import (
    SPLICED_BYTES,
    Count,
    CountRequest,
    Endpoint,
    HeaderCredential,
    Params,
    Secret,
    UpstreamError,
    UpstreamRequest,
)

BASE_URL = "https://api.anthropic.com"
# The SDK's beta resource appends this value to the betas it is given (anthropic 2.12.0, 2026-11).
TOKEN_COUNTING_BETA = "token-counting-2024-11-01"  # noqa: S105 -- no password
# Sent with a subscription's OAuth token (LiteLLM 1.109.1, issue 22040, 2026-11).
OAUTH_BETA = "oauth-2025-04-20"
OAUTH_PREFIX = "sk-ant-oat"


class Anthropic:
    """The native format: nothing is translated, so nothing can be lost."""

    WIRE_VERSION = 1
    LONG_BODY_BYTES = SPLICED_BYTES

    def claims(self, prefix: str, model: str) -> bool:
        """``anthropic/…``, or a bare ``claude-…`` as LiteLLM infers it."""
        return prefix == "anthropic" or (not prefix and model.startswith("claude"))

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        own = params.api_base or environ.get("ANTHROPIC_API_BASE")
        base_url = trim_base(checked_base(own, "ANTHROPIC_API_BASE") or BASE_URL)
        key = params.api_key
        if key is None and "api_key" not in params.unset and environ.get("ANTHROPIC_API_KEY"):
            key = Secret(environ["ANTHROPIC_API_KEY"])
        return Endpoint(
            upstream_model=params.model,
            base_url=base_url,
            scope=() if base_url == BASE_URL else (base_url,),
            credential=key_credential(key) if key else None,
            missing=(
                *unset_base(params),
                *(() if key else (params.unset.get("api_key", "ANTHROPIC_API_KEY"),)),
            ),
        )

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        headers = [
            ("content-type", "application/json"),
            ("accept", "application/json"),
            ("anthropic-version", count.version),
            *count.identity,
        ]
        if betas := _betas(count, endpoint):
            headers.append(("anthropic-beta", ",".join(betas)))
        url = f"{endpoint.base_url}/v1/messages/count_tokens"
        return UpstreamRequest(
            method="POST",
            url=f"{url}?{count.query}" if count.query else url,
            headers=tuple(headers),
            body=with_model(endpoint.upstream_model, count.body),
        )

    def count(self, body: bytes) -> Count:
        return read_count(body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return read_error(status, headers, body)


def trim_base(base: str) -> str:
    """Take an ``api_base`` with or without ``/``, ``/v1`` or ``/v1/messages`` at its end."""
    base = base.rstrip("/")
    for tail in ("/v1/messages/count_tokens", "/v1/messages", "/v1"):
        if base.endswith(tail):
            return base.removesuffix(tail).rstrip("/")
    return base


def key_credential(key: Secret) -> HeaderCredential:
    """``x-api-key``, or Bearer for an OAuth token, which is never sent as ``x-api-key``."""
    if is_oauth(key):
        return HeaderCredential("authorization", "Bearer ", key)
    return HeaderCredential("x-api-key", "", key)


def is_oauth(key: Secret) -> bool:
    """Say whether the key is a subscription's OAuth token."""
    return key.reveal().startswith(OAUTH_PREFIX)


def with_model(model: str, body: bytes) -> bytes:
    """Put ``model`` first into a canonical object, which is never empty."""
    return b"".join((b'{"model":', msgspec.json.encode(model), b",", memoryview(body)[1:]))


def _betas(count: CountRequest, endpoint: Endpoint) -> list[str]:
    betas = set(count.betas)
    if betas:
        betas.add(TOKEN_COUNTING_BETA)
    credential = endpoint.credential
    if isinstance(credential, HeaderCredential) and is_oauth(credential.secret):
        betas.add(OAUTH_BETA)
    return sorted(betas)


def read_count(body: bytes) -> Count:
    """Read ``{"input_tokens":N,…}``; the rest comes back as it was sent.

    Raises MalformedUpstreamError.
    """
    members = read_members(body)
    tokens = take_tokens(members, "input_tokens")
    extra = b"".join(
        b"," + msgspec.json.encode(name) + b":" + bytes(value) for name, value in members.items()
    )
    return Count(tokens, extra)


class _ErrorObject(msgspec.Struct):
    type: str
    message: str
    details: msgspec.Raw = msgspec.Raw(b"null")


class _ErrorBody(msgspec.Struct):
    error: _ErrorObject
    request_id: str | None = None


_ERROR = msgspec.json.Decoder(_ErrorBody)
_PASSED_ON = ("retry-after", "retry-after-ms")
_RATELIMIT = "anthropic-ratelimit-"
CREDENTIAL_STATUSES = (401, 402, 403)


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read ``{"type":"error","error":{"type","message","details"?},"request_id"}``.

    https://platform.claude.com/docs/en/api/errors (2026-11); ``details`` is new in SDK 2.x. A 400
    or 404 in another shape is some server's in between: it knows neither the model nor the request.
    """
    upstream_status = status
    try:
        # Format looks into ``details``, which goes on as it is.
        parsed = _ERROR.decode(msgspec.json.format(body, indent=-1).decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parsed = _ErrorBody(_ErrorObject("", ""))
        status = BAD_GATEWAY if status in {BAD_REQUEST, NOT_FOUND} else status
    known = parsed.error.type or STATUS_TYPES.get(status, "api_error")
    if status == UNAVAILABLE:
        # Anthropic's own word for it; clients know 529 and its type (errors page, 2026-11).
        status, known = OVERLOADED, "overloaded_error"
    details = bytes(parsed.error.details)
    return UpstreamError(
        status=status,
        type=known,
        message=parsed.error.message or f"the provider answered {upstream_status}",
        # The type is the provider's text too; only the documented ones go into a log.
        reason=f"status {upstream_status}, {known if known in _TYPES else 'unknown type'}",
        upstream_status=upstream_status,
        details=b"" if details == b"null" else b',"details":' + details,
        headers=tuple(
            (name, value)
            for name, value in headers.items()
            if name in _PASSED_ON or name.startswith(_RATELIMIT)
        ),
        upstream_request_id=parsed.request_id or headers.get("request-id", ""),
        credential_fault=status in CREDENTIAL_STATUSES,
    )


BAD_REQUEST, NOT_FOUND, BAD_GATEWAY, UNAVAILABLE, OVERLOADED = 400, 404, 502, 503, 529
STATUS_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_TYPES = frozenset(STATUS_TYPES.values())
