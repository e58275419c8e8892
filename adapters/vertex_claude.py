"""Claude on Vertex AI: Anthropic's body under Google's address, credential and errors.

    POST {base}/v1/projects/{p}/locations/{l}/publishers/anthropic/models/count-tokens:rawPredict
    {"model":"claude-…","anthropic_version":"…","messages":[…],…}   →  {"input_tokens":14}

https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/partner-models/claude/count-tokens
(2026-11)
"""

import re
from collections.abc import Mapping

import msgspec

from adapters._betas import needed_betas
from adapters._dialect import lifted
from adapters._google_errors import read_google_error
from adapters._vertex import method_url, vertex_endpoint
from adapters.anthropic import read_count, read_error
from adapters.base import (
    SPLICED_BYTES,
    Count,
    CountRequest,
    Endpoint,
    Params,
    UpstreamError,
    UpstreamRequest,
    named_betas,
)

DEFAULT_LOCATION = "global"
"""In the newest of Google's three lists, unlike any region of the United States (2026-11), and
seen to count (LiteLLM pull request 25800, 2026-04)."""

# What the SDKs put into the body in place of the header: 0.x and 1.x the one, 2.x the other
# (anthropic 0.125.0 and 2.12.0, 2026-11). A version nobody knows yet goes on as it is.
_VERSIONS = {"2023-01-01": "vertex-2023-10-16", "2023-06-01": "vertex-2023-10-16"}

# Names that move are refused here, "claude-sonnet-4-6@default is not supported for token
# counting", the bare name counts (LiteLLM issue 25798, claude-code issue 24530, 2026). For dates
# see docs/decisions/0007.
_MOVING = ("@default", "@latest")
_DATE = re.compile(r"@\d{8}\Z")


class VertexClaude:
    """The native format again: the client's own bytes go out, and nothing is translated."""

    WIRE_VERSION = 3
    LONG_BODY_BYTES = SPLICED_BYTES

    def claims(self, prefix: str, model: str) -> bool:
        """``vertex_ai/claude…``, wildcards such as ``vertex_ai/claude-*`` included."""
        return prefix == "vertex_ai" and model.startswith("claude")

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        found = vertex_endpoint(
            params, environ, model=params.model, default_location=DEFAULT_LOCATION
        )
        if not params.count_without_date:
            return found
        scope = (*found.scope, "count_without_date")
        return msgspec.structs.replace(found, scope=scope, without_date=True)

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        count, version = lifted(count)
        betas = needed_betas(count)
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        if betas:
            headers.append(("anthropic-beta", ",".join(betas)))
        model = _counted_name(endpoint)
        dated = endpoint.without_date and _DATE.search(endpoint.upstream_model)
        return UpstreamRequest(
            method="POST",
            url=method_url(endpoint, "anthropic", "count-tokens", "rawPredict"),
            headers=tuple(headers),
            body=_body(model, version, count),
            dropped=(
                *named_betas(beta for beta in count.betas if beta not in betas),
                *(name for name, _ in count.identity),
                *(("model_date",) if dated else ()),
            ),
        )

    def count(self, body: bytes) -> Count:
        return read_count(body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read the model's own refusal in Anthropic's shape, or the platform's in Google's."""
        if _is_anthropic(body):
            return read_error(status, headers, body)
        return read_google_error(status, headers, body)


def _counted_name(endpoint: Endpoint) -> str:
    """Take off what Vertex does not count for: a version that moves, and a date where told to."""
    model = endpoint.upstream_model
    for mark in _MOVING:
        model = model.removesuffix(mark)
    return _DATE.sub("", model) if endpoint.without_date else model


def _body(model: str, version: str, count: CountRequest) -> bytes:
    """Put the model and the version first; one that the client wrote as for Vertex stands."""
    if not version or version.startswith("bedrock-"):
        version = _VERSIONS.get(count.version, count.version)
    head = b'{"model":%b,"anthropic_version":%b,' % (
        msgspec.json.encode(model),
        msgspec.json.encode(version),
    )
    return b"".join((head, memoryview(count.body)[1:]))


class _Shape(msgspec.Struct):
    type: str


_SHAPE = msgspec.json.Decoder(_Shape)


def _is_anthropic(body: bytes) -> bool:
    try:
        return _SHAPE.decode(body).type == "error"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
