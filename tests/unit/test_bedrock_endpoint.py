"""An entry of the configuration for Claude on AWS → whom to ask about what, as whom."""

from collections.abc import Mapping
from typing import Any

import pytest

from adapters.base import (
    AwsCredential,
    CannotExpressError,
    CountRequest,
    Endpoint,
    HeaderCredential,
    Params,
    Secret,
)
from adapters.bedrock import Bedrock
from adapters.bedrock_mantle import BedrockMantle
from adapters.registry import provider_of

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
RUNTIME, MANTLE = Bedrock(), BedrockMantle()
BODY = b'{"messages":[{"role":"user","content":"Hi"}]}'


def runtime(environ: Mapping[str, str] | None = None, **params: Any) -> Endpoint:
    return RUNTIME.endpoint(Params(**{"model": MODEL} | params), environ or {})


def mantle(environ: Mapping[str, str] | None = None, **params: Any) -> Endpoint:
    return MANTLE.endpoint(Params(**{"model": MODEL} | params), environ or {})


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        (f"bedrock/{MODEL}", "bedrock"),
        (f"bedrock/converse/{MODEL}", "bedrock"),
        (f"bedrock/us-east-1/{MODEL}", "bedrock"),
        (f"bedrock/mantle/{MODEL}", "bedrock_mantle"),
        (f"bedrock_mantle/{MODEL}", "bedrock_mantle"),
        (MODEL, None),
    ],
)
def test_who_claims_a_model(model: str, provider: str | None) -> None:
    prefix, slash, rest = model.partition("/")
    assert provider_of(prefix if slash else "", rest if slash else model) == provider


ARN = "arn:aws:bedrock:eu-west-3"


@pytest.mark.parametrize(
    ("model", "asked", "region"),
    [
        (MODEL, MODEL, "us-west-2"),
        (f"us.{MODEL}", MODEL, "us-west-2"),
        (f"eu.{MODEL}", MODEL, "us-west-2"),
        (f"apac.{MODEL}", MODEL, "us-west-2"),
        (f"jp.{MODEL}", MODEL, "us-west-2"),
        (f"au.{MODEL}", MODEL, "us-west-2"),
        (f"us-gov.{MODEL}", MODEL, "us-west-2"),
        (f"global.{MODEL}", MODEL, "us-west-2"),
        (f"converse/us.{MODEL}", MODEL, "us-west-2"),
        (f"invoke/{MODEL}", MODEL, "us-west-2"),
        (f"eu-central-1/{MODEL}", MODEL, "eu-central-1"),
        (f"us-gov-west-1/us-gov.{MODEL}", MODEL, "us-gov-west-1"),
        (f"converse/ap-northeast-1/jp.{MODEL}", MODEL, "ap-northeast-1"),
        (f"{MODEL}:51k", MODEL, "us-west-2"),
        (f"{ARN}::foundation-model/{MODEL}", MODEL, "eu-west-3"),
        (f"invoke/{ARN}::foundation-model/{MODEL}", MODEL, "eu-west-3"),
        (f"{ARN}:123456789012:inference-profile/eu.{MODEL}", MODEL, "eu-west-3"),
    ],
)
def test_the_bare_id_is_counted_in_the_region_that_an_id_names(
    model: str, asked: str, region: str
) -> None:
    endpoint = runtime(model=model)
    assert endpoint.upstream_model == asked
    url = f"https://bedrock-runtime.{region}.amazonaws.com/model/{asked.replace(':', '%3A')}/"
    assert RUNTIME.request(CountRequest(BODY, ""), endpoint).url == f"{url}count-tokens"
    # Behind a wildcard, the same forms come from a client.
    wildcard = runtime(model="*", aws_region_name=region)
    written = Endpoint(model, wildcard.base_url, location=region)
    assert RUNTIME.request(CountRequest(BODY, ""), written).url == f"{url}count-tokens"


@pytest.mark.parametrize("kind", ["application-inference-profile", "provisioned-model"])
def test_an_arn_that_hides_its_model_needs_base_model(kind: str) -> None:
    arn = f"{ARN}:123456789012:{kind}/a1b2c3"
    with pytest.raises(ValueError, match=r"base_model: missing.*set base_model to"):
        runtime(model=arn)
    with pytest.raises(ValueError, match="base_model"):
        runtime(model=arn, base_model=arn)
    endpoint = runtime(model=arn, base_model=f"bedrock/us.{MODEL}")
    assert (endpoint.upstream_model, endpoint.location) == (MODEL, "eu-west-3")


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("../../x", "..%2F..%2Fx"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("a%2F../b", "a%252F..%2Fb"),
        ("é", "%C3%A9"),
    ],
)
def test_no_model_reaches_another_path(model: str, segment: str) -> None:
    url = RUNTIME.request(CountRequest(BODY, ""), runtime(model=model)).url
    assert url == f"https://bedrock-runtime.us-west-2.amazonaws.com/model/{segment}/count-tokens"


@pytest.mark.parametrize("model", ["..", ".", "us...", f"{ARN}:1:provisioned-model/x"])
def test_what_is_no_model_id_is_refused(model: str) -> None:
    endpoint = runtime(model="*")
    with pytest.raises(CannotExpressError, match="model: "):
        RUNTIME.request(CountRequest(BODY, ""), Endpoint(model, endpoint.base_url))


def test_a_client_cannot_choose_another_region() -> None:
    endpoint = Endpoint(f"eu-west-1/{MODEL}", "https://x", location="us-east-1")
    for adapter in (RUNTIME, MANTLE):
        with pytest.raises(CannotExpressError, match="us-east-1"):
            adapter.request(CountRequest(BODY, ""), endpoint)


ALL_REGIONS = {"AWS_REGION_NAME": "env-1", "AWS_REGION": "env-2", "AWS_DEFAULT_REGION": "env-3"}


@pytest.mark.parametrize(
    ("params", "environ", "region"),
    [
        ({"aws_region_name": "eu-west-1", "model": f"us-east-2/{MODEL}"}, ALL_REGIONS, "eu-west-1"),
        ({"model": f"us-east-2/{MODEL}"}, ALL_REGIONS, "us-east-2"),
        ({}, ALL_REGIONS, "env-1"),
        ({}, {"AWS_REGION": "env-2", "AWS_DEFAULT_REGION": "env-3"}, "env-2"),
        ({}, {"AWS_DEFAULT_REGION": "env-3"}, "env-3"),
        ({}, {}, "us-west-2"),
    ],
)
def test_what_names_the_region(
    params: dict[str, str], environ: dict[str, str], region: str
) -> None:
    endpoint = runtime(environ, **params)
    assert endpoint.location == region
    assert endpoint.scope == (), "the region does not decide the number"
    assert isinstance(endpoint.credential, AwsCredential)
    assert (endpoint.credential.region, endpoint.credential.service) == (region, "bedrock")


@pytest.mark.parametrize("region", ["evil.example/", "US-EAST-1", "us east 1", "x@y"])
def test_a_region_cannot_forge_a_host(region: str) -> None:
    with pytest.raises(ValueError, match="aws_region_name"):
        runtime(aws_region_name=region)


def test_beside_a_profile_the_region_must_be_named() -> None:
    with pytest.raises(ValueError, match="aws_region_name: missing"):
        runtime(aws_profile_name="team")
    with pytest.raises(ValueError, match="aws_region_name: missing"):
        runtime({"AWS_PROFILE": "team"})
    assert runtime({"AWS_PROFILE": "team", "AWS_REGION": "eu-west-1"}).location == "eu-west-1"


def test_whose_base_is_asked() -> None:
    environ = {"AWS_BEDROCK_RUNTIME_ENDPOINT": "http://env:1/"}
    given = {"api_base": "http://api:1/", "aws_bedrock_runtime_endpoint": "http://own:1/x/"}
    assert runtime(environ, **given).base_url == "http://api:1"
    del given["api_base"]
    assert runtime(environ, **given).base_url == "http://own:1/x"
    endpoint = runtime(environ)
    assert endpoint.base_url == "http://env:1"
    assert endpoint.scope == ("http://env:1",)
    china = runtime(aws_region_name="cn-north-1")
    assert china.base_url == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    for wrong in ("ftp://x", "bedrock.example", "http://user:pw@x", "http://x?y", "http://x/\n"):
        with pytest.raises(ValueError, match=r"^aws_bedrock_runtime_endpoint: ") as refused:
            runtime(api_base=wrong)
        assert "pw" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "bedrock-runtime-fips.us-east-2.amazonaws.com",
        "vpce-0a1b.bedrock-runtime.us-east-2.vpce.amazonaws.com",
        "bedrock-runtime.us-east-2.api.aws",
    ],
)
def test_a_host_of_aws_says_which_region_to_sign_for(host: str) -> None:
    endpoint = runtime(aws_bedrock_runtime_endpoint=f"https://{host}", aws_region_name="eu-west-1")
    assert isinstance(endpoint.credential, AwsCredential)
    assert endpoint.credential.region == "us-east-2"


@pytest.mark.parametrize("tail", ["", "/", "/anthropic", "/v1", "/anthropic/v1/messages/"])
def test_mantles_base_may_hold_a_path(tail: str) -> None:
    url = "http://own:1/anthropic/v1/messages/count_tokens"
    for params, environ in (
        ({"api_base": f"http://own:1{tail}"}, {}),
        ({"aws_bedrock_mantle_endpoint": f"http://own:1{tail}"}, {"BEDROCK_MANTLE_API_BASE": "x"}),
        ({}, {"BEDROCK_MANTLE_API_BASE": f"http://own:1{tail}"}),
    ):
        endpoint = mantle(environ, **params)
        assert MANTLE.request(CountRequest(BODY, ""), endpoint).url == url
        assert endpoint.scope == ("http://own:1",)


def test_mantle_takes_the_bare_id_and_signs_as_its_own_service() -> None:
    endpoint = mantle(model=f"mantle/us.{MODEL}", aws_region_name="eu-west-1")
    assert endpoint.upstream_model == MODEL
    assert endpoint.base_url == "https://bedrock-mantle.eu-west-1.api.aws"
    assert endpoint.scope == ()
    assert isinstance(endpoint.credential, AwsCredential)
    assert endpoint.credential.service == "bedrock-mantle"
    assert endpoint.credential.region == "eu-west-1"


def test_the_runtimes_alternate_is_mantle_as_the_same_caller() -> None:
    keys: dict[str, Any] = {"aws_access_key_id": Secret("a"), "aws_secret_access_key": Secret("b")}
    endpoint = runtime(model=f"eu.{MODEL}", aws_region_name="eu-west-1", **keys)
    assert endpoint.alternate is not None
    assert endpoint.alternate.provider == "bedrock_mantle"
    alternate = endpoint.alternate.endpoint
    assert alternate == mantle(model=MODEL, aws_region_name="eu-west-1", **keys)
    elsewhere = runtime(
        aws_region_name="us-west-2",
        aws_bedrock_mantle_endpoint="https://bedrock-mantle.us-east-1.api.aws",
    ).alternate
    assert elsewhere is not None
    assert isinstance(elsewhere.endpoint.credential, AwsCredential)
    assert elsewhere.endpoint.credential.region == "us-east-1"


def test_prompts_go_to_no_mantle_that_the_operator_did_not_choose() -> None:
    assert runtime(aws_bedrock_runtime_endpoint="http://own:1").alternate is None
    assert runtime(aws_region_name="cn-north-1").alternate is None
    both = runtime(api_base="http://own:1", aws_bedrock_mantle_endpoint="http://own:2/anthropic")
    assert both.alternate is not None
    assert both.alternate.endpoint.base_url == "http://own:2"


def test_a_bearer_key_comes_before_a_signature() -> None:
    environ = {"AWS_BEARER_TOKEN_BEDROCK": "env-key"}
    for endpoint, key in (
        (runtime(environ, api_key=Secret("own-key")), "own-key"),
        (runtime(environ), "env-key"),
        (mantle(environ), "env-key"),
        (mantle(environ | {"BEDROCK_MANTLE_API_KEY": "mantle-key"}), "mantle-key"),
    ):
        assert isinstance(endpoint.credential, HeaderCredential)
        assert (endpoint.credential.header, endpoint.credential.prefix) == (
            "authorization",
            "Bearer ",
        )
        assert endpoint.credential.secret.reveal() == key


@pytest.mark.parametrize(
    "base",
    ["https://:p@x", "https://u@x", "https://@x", "https://x?", "https://x/?a", "https://x#", "x"],
)
def test_a_base_holds_nothing_but_a_place(base: str) -> None:
    for ask in (runtime, mantle):
        with pytest.raises(ValueError, match=r"^aws_bedrock_(runtime|mantle)_endpoint: must "):
            ask(api_base=base)


def test_an_empty_key_means_a_signature_whatever_the_environment_holds() -> None:
    environ = {"AWS_BEARER_TOKEN_BEDROCK": "b", "BEDROCK_MANTLE_API_KEY": "m"}
    for ask in (runtime, mantle):
        assert isinstance(ask(environ).credential, HeaderCredential)
        assert isinstance(ask(environ, emptied=("api_key",)).credential, AwsCredential)
    alternate = runtime(environ, emptied=("api_key",)).alternate
    assert alternate is not None
    assert isinstance(alternate.endpoint.credential, AwsCredential)


def test_a_variable_that_is_not_set_is_named_and_replaced_by_nothing() -> None:
    unset = {"aws_access_key_id": "MY_ID", "aws_session_token": "MY_TOKEN", "api_base": "MY_BASE"}
    for endpoint in (runtime(unset=unset), mantle(unset=unset)):
        assert endpoint.credential is None
        assert endpoint.missing == ("MY_ID", "MY_BASE")


@pytest.mark.parametrize(
    "params",
    [
        {"aws_access_key_id": Secret("a")},
        {"aws_secret_access_key": Secret("a")},
        {"aws_web_identity_token": Secret("/token")},
        {"aws_web_identity_token": Secret("oidc/google/x"), "aws_role_name": "r"},
    ],
)
def test_half_a_credential_is_an_error_at_the_start(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="aws_"):
        runtime(**params)
