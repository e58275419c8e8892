"""What Claude's two counters on AWS share: model ids, regions, addresses, who asks."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from adapters.base import (
    AwsCredential,
    CannotExpressError,
    CredentialSpec,
    Endpoint,
    HeaderCredential,
    Params,
    Secret,
)

DEFAULT_REGION = "us-west-2"
"""LiteLLM's, where nothing names a region (1.109.1)."""
GEOGRAPHIES = ("us.", "eu.", "apac.", "jp.", "au.", "us-gov.", "global.")
"""Prefixes of inference profiles. The runtime counts only for the id behind them: with one it
answers 400 "The provided model doesn't support counting tokens." (pydantic-ai 3367, 2025-11)."""

_ROUTES = frozenset({"converse", "converse_like", "invoke"})
_REGION_PATH = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-\d+")
_REGION = re.compile(r"[a-z0-9-]+")
_REGION_VARIABLES = ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION")
_THROUGHPUT = re.compile(r":\d+k\Z")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:([a-z0-9-]*):\d*:([a-z-]+)/(?:.*/)?(.+)")
_TELLING_ARNS = frozenset({"foundation-model", "inference-profile"})
_AWS_HOST = re.compile(
    r"(?:.+\.)?bedrock-(?:runtime|mantle)(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?"
    r"(?:amazonaws\.com|amazonaws\.com\.cn|api\.aws)"
)


class Target(Struct, frozen=True):
    """A model id as AWS counts it, and the region that the configured id names."""

    id: str
    region: str = ""
    hidden: bool = False
    """``id`` names a profile or a capacity, and not the model that runs there."""


def read_model(model: str) -> Target:
    """Take LiteLLM's path parts, an ARN, a geography and a throughput suffix off an id."""
    region = ""
    head, slash, rest = model.partition("/")
    while slash and (head in _ROUTES or _REGION_PATH.fullmatch(head)):
        region = region if head in _ROUTES else head
        model = rest
        head, slash, rest = model.partition("/")
    hidden = model.startswith("arn:")
    if arn := _ARN.fullmatch(model):
        region, kind, model = arn[1] or region, arn[2], arn[3]
        hidden = kind not in _TELLING_ARNS
    model = _THROUGHPUT.sub("", model)
    geography = next((it for it in GEOGRAPHIES if model.startswith(it)), "")
    return Target(model.removeprefix(geography), region, hidden)


def target(params: Params) -> Target:
    """Find the model to count for. Raises ValueError where only ``base_model`` can name it."""
    asked = read_model(params.model)
    if not asked.hidden:
        return asked
    if params.base_model is None:
        raise ValueError(
            "base_model: missing; this ARN does not say which model it runs, and Bedrock counts "
            "for a model: set base_model to that model's id, such as anthropic.claude-…"
        )
    base = read_model(params.base_model.removeprefix("bedrock/"))
    if base.hidden:
        raise ValueError("base_model: must be a model's id, such as anthropic.claude-…")
    return Target(base.id, asked.region or base.region)


def asked_id(endpoint: Endpoint) -> str:
    """Give the id to send; behind a wildcard a client may write any form of it.

    Raises CannotExpressError.
    """
    asked = read_model(endpoint.upstream_model)
    if asked.hidden:
        raise CannotExpressError("model: this ARN does not say which model it runs; name the model")
    if asked.region not in {"", endpoint.location}:
        raise CannotExpressError(f"model: the region that counts here is {endpoint.location}")
    # As a path segment these would be resolved away, even when percent-encoded.
    if asked.id in {"", ".", ".."}:
        raise CannotExpressError("model: is not a model's id")
    return asked.id


def find_region(params: Params, environ: Mapping[str, str], asked: Target, base: str | None) -> str:
    """Follow LiteLLM's order, after the region in the host name of AWS itself: it is signed for.

    The files of AWS profiles are not read for it. Raises ValueError.
    """
    host = urlsplit(base).hostname if base else None
    at_aws = _AWS_HOST.fullmatch(host) if host else None
    variables = (environ.get(name, "") for name in _REGION_VARIABLES)
    named = (at_aws[1] if at_aws else "", params.aws_region_name or "", asked.region, *variables)
    region = next(filter(None, named), "")
    if not region and base is None and (params.aws_profile_name or environ.get("AWS_PROFILE")):
        raise ValueError("aws_region_name: missing; beside an AWS profile the region must be named")
    region = region or DEFAULT_REGION
    if not _REGION.fullmatch(region):
        raise ValueError("aws_region_name: must hold a-z, 0-9 and hyphens only")
    return region


def unset(params: Params) -> tuple[str, ...]:
    """List the variables that the entry names and that are not set: no default replaces them."""
    optional = {"aws_session_token", "aws_session_name"}
    return tuple(
        variable
        for name, variable in params.unset.items()
        if name.startswith(("api_", "aws_")) and name not in optional
    )


def credential(
    params: Params,
    environ: Mapping[str, str],
    region: str,
    service: str,
    variables: tuple[str, ...] = ("AWS_BEARER_TOKEN_BEDROCK",),
) -> CredentialSpec | None:
    """Choose a Bearer key where there is one, else what SigV4 signs with.

    An empty ``api_key`` means SigV4 whatever the environment holds (LiteLLM 1.109.1). None where a
    variable that the entry names is not set. Raises ValueError.
    """
    if unset(params):
        return None
    names = () if "api_key" in params.emptied else variables
    given = next(filter(None, (environ.get(name) for name in names)), None)
    if key := params.api_key or (Secret(given) if given else None):
        return HeaderCredential("authorization", "Bearer ", key)
    if (params.aws_access_key_id is None) != (params.aws_secret_access_key is None):
        raise ValueError("aws_access_key_id and aws_secret_access_key: one needs the other")
    token = params.aws_web_identity_token
    if token and not params.aws_role_name:
        raise ValueError("aws_web_identity_token: needs aws_role_name")
    if token and token.reveal().startswith("oidc/"):
        raise ValueError("aws_web_identity_token: must be the absolute path of the token's file")
    return AwsCredential(
        region=region,
        service=service,
        access_key_id=params.aws_access_key_id,
        secret_access_key=params.aws_secret_access_key,
        session_token=params.aws_session_token,
        profile=params.aws_profile_name,
        role=params.aws_role_name,
        session_name=params.aws_session_name,
        external_id=params.aws_external_id,
        web_identity_token=token,
    )
