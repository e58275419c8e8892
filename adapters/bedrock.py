"""Claude on Bedrock, counted by the runtime's own operation CountTokens.

    POST {base}/model/{id}/count-tokens
    {"input":{"invokeModel":{"body":"<base64 of the request as InvokeModel takes it>"}}}
                                                                    →  {"inputTokens":14}

Always in the form of InvokeModel, which is Anthropic's own: the other form, Converse, loses tool
names, tool_choice and part of thinking, and so counts another request (LiteLLM 27632, 2026).
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html (2026-11)
"""

from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Struct

from adapters._address import checked_base
from adapters._aws import asked_id, credential, find_region, target, unset
from adapters._aws_errors import read_error
from adapters._betas import betas_for_bedrock
from adapters._dialect import lifted
from adapters._reply import read_members, take_tokens
from adapters.base import (
    SPLICED_BYTES,
    Alternate,
    Count,
    CountRequest,
    Endpoint,
    Params,
    TooLargeError,
    UpstreamError,
    UpstreamRequest,
    named_betas,
)
from adapters.bedrock_mantle import mantle_endpoint

SERVICE = "bedrock"
MAX_BODY_BYTES = 25_000_000
"""Of the inner JSON, before base64 (botocore's service model, 1.43.117)."""
# The only version for every Claude on the runtime; 2026-10-21 is for 4.7 and newer (AWS, 2026-11).
ANTHROPIC_VERSION = "bedrock-2023-05-31"
_SAME_VERSIONS = frozenset({"2023-01-01", "2023-06-01"})


class Bedrock:
    """The canonical body, spliced as it is between what InvokeModel wants besides."""

    WIRE_VERSION = 3
    LONG_BODY_BYTES = SPLICED_BYTES

    def claims(self, prefix: str, model: str) -> bool:
        """``bedrock/…``, but for ``bedrock/mantle/…``."""
        return prefix == "bedrock" and not model.startswith("mantle/")

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        """Resolve an entry; the region is no part of the key, since the model alone decides."""
        asked = target(params)
        own = checked_base(
            params.api_base
            or params.aws_bedrock_runtime_endpoint
            or environ.get("AWS_BEDROCK_RUNTIME_ENDPOINT"),
            "aws_bedrock_runtime_endpoint",
        )
        region = find_region(params, environ, asked, own)
        base = own or _default_base(region)
        mantle = mantle_endpoint(params, environ, asked, region, beside=own)
        return Endpoint(
            upstream_model=asked.id,
            base_url=base,
            scope=() if base == _default_base(region) else (base,),
            location=region,
            credential=credential(params, environ, region, SERVICE),
            missing=unset(params),
            alternate=Alternate("bedrock_mantle", mantle) if mantle else None,
            count_from_too_long=params.count_from_too_long,
        )

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        count, version = lifted(count)
        betas = betas_for_bedrock(count)
        inner = _invoke_body(count.body, version, betas)
        if len(inner) > MAX_BODY_BYTES:
            raise TooLargeError(f"Bedrock counts at most {MAX_BODY_BYTES:,} bytes")
        return UpstreamRequest(
            method="POST",
            url=f"{endpoint.base_url}/model/{quote(asked_id(endpoint), safe='')}/count-tokens",
            headers=(("content-type", "application/json"), ("accept", "application/json")),
            body=b'{"input":{"invokeModel":{"body":"%b"}}}' % b64encode(inner),
            dropped=_dropped(count, betas),
        )

    def count(self, body: bytes) -> Count:
        return Count(take_tokens(read_members(body), "inputTokens"))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return read_error(status, headers, body)


def _dropped(count: CountRequest, betas: list[str]) -> tuple[str, ...]:
    """Name what InvokeModel does not take; a later version is not counted by."""
    return (
        *named_betas(beta for beta in count.betas if beta not in betas),
        *(name for name, _ in count.identity),
        *(() if count.version in _SAME_VERSIONS else ("anthropic-version",)),
    )


def _default_base(region: str) -> str:
    # Suffixes of the partitions: botocore's partitions.json (1.43.117).
    suffix = {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}
    return (
        f"https://bedrock-runtime.{region}.{suffix.get(region.partition('-')[0], 'amazonaws.com')}"
    )


class _Thinking(Struct):
    type: str
    budget_tokens: int


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_THINKING = msgspec.json.Decoder(_Thinking)


def _invoke_body(body: bytes, version: str, betas: list[str]) -> bytes:
    """Splice InvokeModel's own members before the client's; a value is never written anew.

    ``anthropic_version`` and ``max_tokens`` are required though neither counts: CountTokens
    validates like InvokeModel (Envoy AI Gateway, 2026-08).
    """
    max_tokens = 1
    if b'"thinking":' in body:
        max_tokens = _above_budget(_MEMBERS.decode(body).get("thinking"))
    if not version.startswith("bedrock-"):
        version = ANTHROPIC_VERSION
    return b'{"anthropic_version":%b,"max_tokens":%d%b,%b' % (
        msgspec.json.encode(version),
        max_tokens,
        b',"anthropic_beta":' + msgspec.json.encode(betas) if betas else b"",
        body[1:],
    )


def _above_budget(thinking: msgspec.Raw | None) -> int:
    """Leave room above the thinking budget, as InvokeModel demands; 1 where there is none."""
    try:
        found = _THINKING.decode(thinking or b"")
    except msgspec.DecodeError:
        return 1
    return max(found.budget_tokens, 0) + 1 if found.type == "enabled" else 1
