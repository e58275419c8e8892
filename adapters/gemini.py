"""Gemini on AI Studio (the Gemini Developer API).

    POST {base}/v1beta/models/gemini-2.5-flash:countTokens
    {"contents":[…]}                               →  {"totalTokens":14,…}
    {"generateContentRequest":{"model":"models/gemini-2.5-flash","contents":[…],
     "systemInstruction":{…},"tools":[…],"toolConfig":{…}}}

One form or the other: system and tools count only in the second, which names the model again
(google-ai-generativelanguage 0.12.1 CountTokensRequest; https://ai.google.dev/api/tokens, 2026-11).
"""

from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from adapters._address import unset_base
from adapters._gemini_wire import CONVERTED_BYTES, Dialect, check_model, convert, read_total
from adapters._google_errors import read_google_error
from adapters.base import (
    Count,
    CountRequest,
    Endpoint,
    HeaderCredential,
    Params,
    Secret,
    UpstreamError,
    UpstreamRequest,
)

BASE_URL = "https://generativelanguage.googleapis.com"
KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")

_DIALECT = Dialect("gemini", takes_tool_config=True)
_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))


class Gemini:
    """One conversion, and the envelope that makes AI Studio count all of it."""

    WIRE_VERSION = 3
    LONG_BODY_BYTES = CONVERTED_BYTES

    def claims(self, prefix: str, model: str) -> bool:
        """``gemini/…``."""
        del model
        return prefix == "gemini"

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        base_url = trim_base(params.api_base or BASE_URL)
        key = params.api_key
        if key is None and "api_key" not in params.unset:
            given = next((environ[name] for name in KEY_VARIABLES if environ.get(name)), None)
            key = Secret(given) if given else None
        return Endpoint(
            upstream_model=check_model(params.model),
            base_url=base_url,
            scope=() if base_url == BASE_URL else (base_url,),
            credential=HeaderCredential("x-goog-api-key", "", key) if key else None,
            missing=(
                *unset_base(params),
                *(() if key else (params.unset.get("api_key", KEY_VARIABLES[0]),)),
            ),
        )

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        found = convert(count, _DIALECT)
        before, after = b"{", b"}"
        if found.system_instruction or found.tools:
            model = msgspec.json.encode(f"models/{endpoint.upstream_model}")
            before, after = b'{"generateContentRequest":{"model":%b,' % model, b"}}"
        segment = quote(endpoint.upstream_model, safe="")
        return UpstreamRequest(
            method="POST",
            url=f"{endpoint.base_url}/v1beta/models/{segment}:countTokens",
            headers=_HEADERS,
            body=found.joined(before, after),
            dropped=found.dropped,
        )

    def count(self, body: bytes) -> Count:
        return read_total(body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return read_google_error(status, headers, body)


def trim_base(base: str) -> str:
    """Take an ``api_base`` with or without ``/``, ``/v1beta`` or ``/v1`` at its end."""
    base = base.rstrip("/")
    return base.removesuffix("/v1beta").removesuffix("/v1").rstrip("/")
