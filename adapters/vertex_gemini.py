"""Gemini on Vertex AI.

    POST {base}/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-flash:countTokens
    {"contents":[…],"systemInstruction":{…},"tools":[…]}     →  {"totalTokens":14,…}

Flat, and without ``toolConfig``, which this method does not know (aiplatform v1 revision 20261106,
CountTokensRequest; maximhq/bifrost pull request 5619, 2026).
"""

from collections.abc import Mapping

from adapters._gemini_wire import CONVERTED_BYTES, Dialect, check_model, convert, read_total
from adapters._google_errors import read_google_error
from adapters._vertex import method_url, vertex_endpoint
from adapters.base import Count, CountRequest, Endpoint, Params, UpstreamError, UpstreamRequest

DEFAULT_LOCATION = "us-central1"
"""LiteLLM's default for Gemini (1.109.1): where its users' models already answer."""

_DIALECT = Dialect("vertex_gemini", takes_tool_config=False)
_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))


class VertexGemini:
    """The same conversion as on AI Studio, without an envelope."""

    WIRE_VERSION = 2
    LONG_BODY_BYTES = CONVERTED_BYTES

    def claims(self, prefix: str, model: str) -> bool:
        """``vertex_ai/…`` but for Claude, whose counter is another; ``vertex_ai/*`` is Gemini."""
        return prefix == "vertex_ai" and not model.startswith("claude")

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        model = check_model(params.model)
        return vertex_endpoint(params, environ, model=model, default_location=DEFAULT_LOCATION)

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        found = convert(count, _DIALECT)
        return UpstreamRequest(
            method="POST",
            url=method_url(endpoint, "google", endpoint.upstream_model, "countTokens"),
            headers=_HEADERS,
            body=found.joined(b"{", b"}"),
            dropped=found.dropped,
        )

    def count(self, body: bytes) -> Count:
        return read_total(body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return read_google_error(status, headers, body)
