"""Claude on Vertex AI: Anthropic's body under Google's address, credential and errors.

    POST {base}/v1/projects/{p}/locations/{l}/publishers/anthropic/models/count-tokens:rawPredict
    {"model":"claude-…","anthropic_version":"…","messages":[…],…}   →  {"input_tokens":14}

https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/partner-models/claude/count-tokens
(2026-11)
"""

from collections.abc import Mapping

import msgspec

from adapters._google_errors import read_google_error
from adapters._vertex import method_url, vertex_endpoint
from adapters.anthropic import read_count, read_error
from adapters.base import Count, CountRequest, Endpoint, Params, UpstreamError, UpstreamRequest

DEFAULT_LOCATION = "global"
"""In the newest of Google's three lists, unlike any region of the United States (2026-11), and
seen to count (LiteLLM pull request 25800, 2026-04)."""

# What the SDKs put into the body in place of the header: 0.x and 1.x the one, 2.x the other
# (anthropic 0.125.0 and 2.12.0, 2026-11). A version nobody knows yet goes on as it is.
_VERSIONS = {"2023-01-01": "vertex-2023-10-16", "2023-06-01": "vertex-2023-10-16"}

# Names that move are refused here, "claude-sonnet-4-6@default is not supported for token
# counting", the bare name counts (LiteLLM issue 25798, claude-code issue 24530, 2026). A date is
# part of the id: Google's own examples have it, and claude-code issue 24530 saw it count.
_MOVING = ("@default", "@latest")

# Vertex refuses a beta that a model's counter has not received yet, with a 400 that has broken
# counting for every new one (claude-code issue 11154, anthropic-sdk-typescript issue 1016, LiteLLM
# pull request 39597). So one goes along only beside the blocks or the field that it licenses and
# that would be refused without it (anthropic 2.12.0; LiteLLM 1.109.1 does so for two of them).
_COMPACT = (b'"type":"compact',)
_LICENSES = {
    "compact-2026-01-12": _COMPACT,
    "compact-2026-09-04": _COMPACT,
    "context-management-2025-06-27": (b'"context_management":',),
    "inline-tools-2026-09-15": (b'"type":"tool_definition"',),
    "mid-conversation-tool-changes-2026-07-01": (
        b'"type":"tool_addition"',
        b'"type":"tool_removal"',
    ),
}


class VertexClaude:
    """The native format again: the client's own bytes go out, and nothing is translated."""

    WIRE_VERSION = 1

    def claims(self, prefix: str, model: str) -> bool:
        """``vertex_ai/claude…``, wildcards such as ``vertex_ai/claude-*`` included."""
        return prefix == "vertex_ai" and model.startswith("claude")

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        return vertex_endpoint(
            params, environ, model=params.model, default_location=DEFAULT_LOCATION
        )

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        betas = [beta for beta in count.betas if _is_needed(beta, count.body)]
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        if betas:
            headers.append(("anthropic-beta", ",".join(betas)))
        return UpstreamRequest(
            method="POST",
            url=method_url(endpoint, "anthropic", "count-tokens", "rawPredict"),
            headers=tuple(headers),
            body=_body(endpoint.upstream_model, count),
            dropped=(
                *(f"anthropic-beta:{beta}" for beta in count.betas if beta not in betas),
                *(name for name, _ in count.identity),
            ),
        )

    def count(self, body: bytes) -> Count:
        return read_count(body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read the model's own refusal in Anthropic's shape, or the platform's in Google's."""
        if _is_anthropic(body):
            return read_error(status, headers, body)
        return read_google_error(status, headers, body)


def _is_needed(beta: str, body: bytes) -> bool:
    """Find what a beta licenses; within a JSON string its quotes would stand after backslashes."""
    return any(sign in body for sign in _LICENSES.get(beta, ()))


def _body(model: str, count: CountRequest) -> bytes:
    """Put the model and the version first into a canonical object, which is never empty."""
    for mark in _MOVING:
        model = model.removesuffix(mark)
    head = b'{"model":' + msgspec.json.encode(model) + b","
    if not _names_version(count.body):
        version = _VERSIONS.get(count.version, count.version)
        head += b'"anthropic_version":' + msgspec.json.encode(version) + b","
    return head + count.body[1:]


class _Versioned(msgspec.Struct):
    anthropic_version: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_VERSIONED = msgspec.json.Decoder(_Versioned)


def _names_version(body: bytes) -> bool:
    """Say whether the client wrote the member itself, as for Vertex: its own stands then."""
    if b'"anthropic_version":' not in body:
        return False
    return _VERSIONED.decode(body).anthropic_version is not msgspec.UNSET


class _Shape(msgspec.Struct):
    type: str


_SHAPE = msgspec.json.Decoder(_Shape)


def _is_anthropic(body: bytes) -> bool:
    try:
        return _SHAPE.decode(body).type == "error"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
