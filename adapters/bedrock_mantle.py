"""Claude on Bedrock, counted by Anthropic's own API on the newer endpoint, bedrock-mantle.

    POST https://bedrock-mantle.{region}.api.aws/anthropic/v1/messages/count_tokens
    {"model":"anthropic.claude-…","messages":[…]}   →  {"input_tokens":14}

It counts the models that the runtime does not, and signs as a service of its own.
https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html (2026-11); the client
AnthropicBedrockMantle of anthropic 2.12.0
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from adapters import _aws_errors
from adapters._address import checked_base
from adapters._aws import Target, asked_id, credential, find_region, target, unset
from adapters._dialect import lifted
from adapters.anthropic import STATUS_TYPES, read_count, with_model
from adapters.anthropic import read_error as read_anthropic_error
from adapters.base import (
    SPLICED_BYTES,
    Count,
    CountRequest,
    CredentialSpec,
    Endpoint,
    Params,
    UpstreamError,
    UpstreamRequest,
)

SERVICE = "bedrock-mantle"
PATH = "/anthropic/v1/messages/count_tokens"
USER_PROFILE = "anthropic-user-profile-id"


class BedrockMantle:
    """The native format under another address."""

    WIRE_VERSION = 2
    LONG_BODY_BYTES = SPLICED_BYTES

    def claims(self, prefix: str, model: str) -> bool:
        """``bedrock_mantle/…`` and ``bedrock/mantle/…``."""
        return prefix == "bedrock_mantle" or (prefix == "bedrock" and model.startswith("mantle/"))

    def endpoint(self, params: Params, environ: Mapping[str, str]) -> Endpoint:
        params = msgspec.structs.replace(params, model=params.model.removeprefix("mantle/"))
        asked = target(params)
        own = _own_base(params.api_base, params, environ)
        region = find_region(params, environ, asked, own)
        place = Target(asked.id, region)
        bearers = ("BEDROCK_MANTLE_API_KEY", "AWS_BEARER_TOKEN_BEDROCK")
        return _endpoint(place, own, params, credential(params, environ, region, SERVICE, bearers))

    def request(self, count: CountRequest, endpoint: Endpoint) -> UpstreamRequest:
        # The header says the same of the version in other words.
        count, _ = lifted(count)
        headers = [
            ("content-type", "application/json"),
            ("accept", "application/json"),
            ("anthropic-version", count.version),
        ]
        if count.betas:
            headers.append(("anthropic-beta", ",".join(count.betas)))
        body = count.body
        for name, value in count.identity:
            if name == USER_PROFILE:
                body = _with_user_profile(value, body)
            else:
                headers.append((name, value))
        return UpstreamRequest(
            method="POST",
            url=endpoint.base_url + PATH,
            headers=tuple(headers),
            body=with_model(asked_id(endpoint), body),
        )

    def count(self, body: bytes) -> Count:
        return read_count(body)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read Anthropic's shape, or AWS's where the request did not get that far."""
        if not _is_anthropic(body):
            return _aws_errors.read_error(status, headers, body)
        error = read_anthropic_error(status, headers, body)
        named = f"status {status}, {error.type}"
        return msgspec.structs.replace(
            error,
            status=_aws_errors.OVERLOADED if status == _UNAVAILABLE else status,
            reason=named if error.type in STATUS_TYPES.values() else f"status {status}",
            credential_expired=error.credential_fault and "expired" in error.message,
            upstream_request_id=error.upstream_request_id or headers.get("x-amzn-requestid", ""),
        )


def mantle_endpoint(
    params: Params, environ: Mapping[str, str], asked: Target, region: str, beside: str | None
) -> Endpoint | None:
    """Resolve what an entry of the runtime asks instead: mantle, as the same caller of AWS.

    None where the runtime's base is the operator's own (``beside``) and mantle's is not given, or
    where mantle is not known to be: prompts go nowhere that the operator did not choose.
    """
    own = _own_base(None, params, environ)
    if own is None and (beside is not None or region.startswith(("cn-", "eusc-"))):
        return None
    if own is not None:
        region = find_region(params, environ, Target("", region), own)
    place = Target(asked.id, region)
    return _endpoint(place, own, params, credential(params, environ, region, SERVICE))


def _endpoint(
    place: Target, own: str | None, params: Params, who: CredentialSpec | None
) -> Endpoint:
    default = f"https://bedrock-mantle.{place.region}.api.aws"
    base = own or default
    return Endpoint(
        upstream_model=place.id,
        base_url=base,
        scope=() if base == default else (base,),
        location=place.region,
        credential=who,
        missing=unset(params),
    )


def _own_base(api_base: str | None, params: Params, environ: Mapping[str, str]) -> str | None:
    """Take an operator's base with any of the paths that are found behind it."""
    base = checked_base(
        api_base or params.aws_bedrock_mantle_endpoint or environ.get("BEDROCK_MANTLE_API_BASE"),
        "aws_bedrock_mantle_endpoint",
    )
    for tail in (
        PATH,
        "/anthropic/v1/messages",
        "/anthropic/v1",
        "/anthropic",
        "/openai/v1",
        "/v1",
    ):
        if base and base.endswith(tail):
            return base.removesuffix(tail).rstrip("/")
    return base


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _with_user_profile(value: str, body: bytes) -> bytes:
    """Put the profile where mantle reads it; a body's own wins (anthropic 2.12.0)."""
    if "user_profile_id" in _MEMBERS.decode(body):
        return body
    return b'{"user_profile_id":' + msgspec.json.encode(value) + b"," + body[1:]


class _Tagged(Struct, tag_field="type", tag="error"):
    error: msgspec.Raw


_TAGGED = msgspec.json.Decoder(_Tagged)
_UNAVAILABLE = 503


def _is_anthropic(body: bytes) -> bool:
    try:
        _TAGGED.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
