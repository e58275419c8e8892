"""Claude on Bedrock: rows 64 to 71, and what rows 11, 12, 13, 33, 47, 49 and 56 say of it."""

from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    COUNT,
    anthropic,
    asked,
    counted,
    model_list,
    question,
    refused,
    until,
)
from tests.e2e.launch import Launch
from tests.e2e.stubs import Login, WayOut
from tests.server import Tallygate

BARE = "anthropic.claude-3-5-sonnet-20241022-v2:0"
QUOTED = "anthropic.claude-3-5-sonnet-20241022-v2%3A0"
PROFILE = "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/abc123"
MANTLE = "/anthropic/v1/messages/count_tokens"
STATIC = {"aws_access_key_id": "AKIASTATIC", "aws_secret_access_key": "static-secret"}
UNSUPPORTED = {
    "status": 400,
    "body": {"message": "The provided model doesn't support counting tokens."},
    "headers": {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/x/"},
}
IDS = {
    "us": f"us.{BARE}",
    "eu": f"eu.{BARE}",
    "apac": f"apac.{BARE}",
    "jp": f"jp.{BARE}",
    "au": f"au.{BARE}",
    "us-gov": f"us-gov.{BARE}",
    "global": f"global.{BARE}",
    "region": f"eu-central-1/{BARE}",
    "region-and-prefix": f"eu-central-1/eu.{BARE}",
    "converse": f"converse/{BARE}",
    "invoke": f"invoke/us.{BARE}",
    "throughput": f"{BARE}:51k",
}


@pytest.fixture(scope="module")
def server(
    start: Callable[..., Tallygate], provider: SimulatedProvider, login: Login, way_out: WayOut
) -> Tallygate:
    """The documented entry, ids by the dozen, every kind of credential, and mantle beside."""
    here = {"api_base": provider.url, "aws_region_name": "us-west-2"}
    both = {
        "aws_bedrock_runtime_endpoint": provider.url,
        "aws_bedrock_mantle_endpoint": provider.url,
        "aws_region_name": "us-west-2",
    }
    key = {"api_key": "bedrock-key"}
    documented = f"bedrock/{BARE}"
    models: dict[str, dict[str, Any]] = {
        "claude-bedrock": {"model": documented} | here | key,
        "runtime-endpoint": {
            "model": documented,
            "aws_bedrock_runtime_endpoint": provider.url,
        }
        | key,
        "signed": {"model": documented} | here | STATIC,
        "of-the-container": {"model": documented} | here,
        "home": {"model": documented, "aws_region_name": "eu-west-1"} | key,
        "profile": {"model": f"bedrock/{PROFILE}", "base_model": BARE} | here | key,
        "bedrock/*": {"model": "bedrock/*"} | here | key,
        "claude-direct": anthropic("claude-x", provider.url),
    }
    for name, model in IDS.items():
        region = {} if name.startswith("region") else {"aws_region_name": "us-west-2"}
        models[name] = {"model": f"bedrock/{model}", "api_base": provider.url} | region | STATIC
    for number in range(4):
        # A model of its own each: a refusal is remembered by model.
        models[f"uncounted-{number}"] = {"model": f"bedrock/anthropic.claude-{number}"} | both | key
    for name in ERRORS:
        models[f"fails-{name}"] = {"model": documented} | here | key
    return start(
        {"model_list": model_list(**models)},
        environ={
            "HTTPS_PROXY": way_out.url,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{login.url}/credentials",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )


@pytest.fixture(autouse=True)
def _counting(provider: SimulatedProvider, _willing: None) -> None:
    provider.behave(body={"inputTokens": 77, "input_tokens": 77})


def _inner(provider: SimulatedProvider) -> dict[str, Any]:
    """Unwrap the one request: ``invokeModel`` and nothing else, its body in base64."""
    outer = asked(provider)
    assert set(outer) == {"input"}
    assert set(outer["input"]) == {"invokeModel"}
    inner: dict[str, Any] = msgspec.json.decode(b64decode(outer["input"]["invokeModel"]["body"]))
    return inner


def test_row_11_documented_alias(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``claude-bedrock`` is counted by Bedrock's CountTokens."""
    response = client.post(COUNT, json=question("claude-bedrock"))
    assert response.json() == {"input_tokens": 77}
    assert response.headers["x-tallygate-provider"] == "bedrock"
    (sent,) = provider.requests
    assert sent.target == f"/model/{QUOTED}/count-tokens"


def test_row_12_documented_keys(server: Tallygate) -> None:
    """``aws_region_name`` is read unchanged, and nothing is missing."""
    (row,) = [
        line for line in server.err.read_text().splitlines() if line.startswith("claude-bedrock ")
    ]
    assert BARE in row
    assert "missing" not in row


def test_row_13_documented_id(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0`` counts in Bedrock's format."""
    body = question("claude-bedrock")
    assert counted(client.post(COUNT, json=body)) == 77
    assert _inner(provider)["messages"] == body["messages"]


def test_row_33_betas_in_the_body(client: httpx.Client, provider: SimulatedProvider) -> None:
    """The client's betas stand in the body as a list, each once; those unknown there are named."""
    headers = {"anthropic-beta": "context-1m-2025-08-07,a-1,context-1m-2025-08-07"}
    body = question("claude-bedrock")
    response = client.post(COUNT, json=body, headers=headers)
    counted(response)
    assert _inner(provider)["anthropic_beta"] == ["context-1m-2025-08-07"]
    assert response.headers["x-tallygate-dropped"] == "anthropic-beta:a-1"
    counted(client.post(COUNT, json=body))
    assert provider.calls == 2


def test_row_47_neither_counter_counts(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A model that neither the runtime nor mantle counts: 404 or 400, after both were asked."""
    provider.clear()
    provider.behave(**UNSUPPORTED)
    response = client.post(COUNT, json=question("uncounted-0"))
    assert response.status_code in {400, 404}
    refused(response, response.status_code, response.json()["error"]["type"])
    runtime = "/model/anthropic.claude-0/count-tokens"
    assert [one.path for one in provider.requests] == [runtime, MANTLE]


def test_row_49_bedrocks_own_limit(client: httpx.Client, provider: SimulatedProvider) -> None:
    """More than 25,000,000 bytes before base64: 413, and nobody is asked."""
    response = client.post(COUNT, json=question("claude-bedrock", system="x" * 25_000_000))
    refused(response, 413, "request_too_large")
    assert provider.calls == 0


ERRORS: dict[str, tuple[int, dict[str, str], str, int, str]] = {
    "validation": (400, {"message": "too odd"}, "ValidationException", 400, "invalid_request"),
    "suffix": (
        400,
        {"Message": "too odd"},
        "ValidationException:http://internal.amazon.com/coral/",
        400,
        "invalid_request",
    ),
    "missing": (404, {"message": "too odd"}, "ResourceNotFoundException", 404, "not_found"),
    "throttled": (429, {"message": "too odd"}, "ThrottlingException", 429, "rate_limit"),
    "internal": (500, {"message": "too odd"}, "InternalServerException", 500, "api"),
    "unavailable": (503, {"message": "too odd"}, "ServiceUnavailableException", 529, "overloaded"),
    "denied": (403, {"Message": "too odd"}, "AccessDeniedException", 502, "api"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_row_56_errors_of_aws(client: httpx.Client, provider: SimulatedProvider, name: str) -> None:
    """AWS's errors, in any of their spellings, become Anthropic's; the type from the status."""
    upstream_status, body, kind, status, type_ = ERRORS[name]
    provider.clear()
    provider.behave(status=upstream_status, body=body, headers={"x-amzn-errortype": kind})
    message = refused(client.post(COUNT, json=question(f"fails-{name}")), status, f"{type_}_error")
    assert "internal.amazon.com" not in message


CONTENTS: dict[str, dict[str, Any]] = {
    "string": {},
    "blocks": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello, blocks"}]}]
    },
    "tools": {
        "tools": [{"name": "my-tool!", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "none"},
        "system": "Be brief.",
    },
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_row_64_always_invoke_model(
    client: httpx.Client, provider: SimulatedProvider, kind: str
) -> None:
    """Any body goes as InvokeModel takes it: everything kept, the model out, the version in."""
    body = question("claude-bedrock", **CONTENTS[kind])
    assert counted(client.post(COUNT, json=body)) == 77
    inner = _inner(provider)
    assert inner.pop("anthropic_version") == "bedrock-2023-05-31"
    assert inner.pop("max_tokens") >= 1
    assert inner | {"model": "claude-bedrock"} == body


def test_row_64_room_above_the_thinking_budget(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """``max_tokens`` is above the thinking budget, as InvokeModel wants it."""
    thinking = {"type": "enabled", "budget_tokens": 4096}
    counted(client.post(COUNT, json=question("claude-bedrock", thinking=thinking, max_tokens=9)))
    inner = _inner(provider)
    assert inner["thinking"] == thinking
    assert inner["max_tokens"] > 4096


@pytest.mark.parametrize("name", IDS)
def test_row_65_ids(client: httpx.Client, provider: SimulatedProvider, name: str) -> None:
    """Profiles, routes and suffixes come off the id; a region in it is the region signed for."""
    assert counted(client.post(COUNT, json=question(name))) == 77
    (sent,) = provider.requests
    assert sent.target == f"/model/{QUOTED}/count-tokens"
    region = "eu-central-1" if name.startswith("region") else "us-west-2"
    assert f"/{region}/bedrock/aws4_request" in sent.headers["authorization"]


@pytest.mark.parametrize(
    "model",
    [
        "bedrock/../../admin",
        "bedrock/..",
        "bedrock/a/../../b",
        "bedrock/a?b=c",
        "bedrock/a#b",
        "bedrock/a%2F..%2Fb",
        "bedrock/@evil.example",
    ],
)
def test_row_66_no_id_leads_elsewhere(
    client: httpx.Client, provider: SimulatedProvider, model: str
) -> None:
    """Whatever a client calls its model, it is encoded or refused, and never another path."""
    response = client.post(COUNT, json=question(model))
    assert response.status_code in {200, 400, 404}
    for sent in provider.requests:
        _, first, id_, last = sent.target.split("/")
        assert (first, last) == ("model", "count-tokens")
        assert id_ not in {".", ".."}
        assert "?" not in id_
        assert "#" not in id_


def test_row_67_mantle_instead(client: httpx.Client, provider: SimulatedProvider) -> None:
    """What the runtime does not count mantle is asked once, and for a while at once."""
    provider.clear()
    provider.behave(**UNSUPPORTED, times=1)
    provider.behave(body={"input_tokens": 78})
    first = client.post(COUNT, json=question("uncounted-1"))
    assert counted(first) == 78
    assert first.headers["x-tallygate-provider"] == "bedrock_mantle"
    runtime = "/model/anthropic.claude-1/count-tokens"
    assert [one.path for one in provider.requests] == [runtime, MANTLE]
    assert counted(client.post(COUNT, json=question("uncounted-1"))) == 78
    assert provider.requests[-1].path == MANTLE
    assert provider.calls == 3


def test_row_68_profile_with_base_model(client: httpx.Client, provider: SimulatedProvider) -> None:
    """An application profile is counted with the model that ``base_model`` names."""
    counted(client.post(COUNT, json=question("profile")))
    (sent,) = provider.requests
    assert sent.target == f"/model/{QUOTED}/count-tokens"


def test_row_68_profile_without(launch: Callable[..., Launch], provider: SimulatedProvider) -> None:
    """Without ``base_model`` the start says what is missing."""
    entry = {"model": f"bedrock/{PROFILE}", "api_base": provider.url, "api_key": "k"}
    assert "base_model" in launch({"model_list": model_list(profile=entry)}).refusal()


def test_row_69_refresh_blocks_nobody(
    client: httpx.Client, provider: SimulatedProvider, login: Login
) -> None:
    """While AWS's credentials are being fetched, every other count goes on."""
    before = login.asked
    login.gate.clear()
    with ThreadPoolExecutor(5) as pool:
        waiting = [
            pool.submit(client.post, COUNT, json=question("of-the-container"))
            for _count in range(5)
        ]
        until(lambda: login.asked > before or waiting[0].done())
        assert counted(client.post(COUNT, json=question("claude-direct"))) == 77
        assert counted(client.post(COUNT, json=question("signed"))) == 77
        assert not any(one.done() for one in waiting)
        login.gate.set()
        assert {counted(one.result()) for one in waiting} == {77}
    assert login.asked == before + 1
    assert "Credential=AKIACONTAINER" in provider.requests[-1].headers["authorization"]


def test_row_70_key_as_bearer(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``api_key`` is Bearer, and nothing is signed."""
    counted(client.post(COUNT, json=question("claude-bedrock")))
    (sent,) = provider.requests
    assert sent.headers["authorization"] == "Bearer bedrock-key"
    assert "x-amz-date" not in sent.headers


def test_row_70_signed_without_a_key(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Access keys sign."""
    counted(client.post(COUNT, json=question("signed")))
    (sent,) = provider.requests
    assert sent.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIASTATIC/")
    assert "static-secret" not in str(sent.headers)


def test_row_71_custom_endpoint(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``aws_bedrock_runtime_endpoint`` is where the runtime is asked."""
    counted(client.post(COUNT, json=question("runtime-endpoint")))
    assert provider.requests[0].path == f"/model/{QUOTED}/count-tokens"


def test_row_71_home(client: httpx.Client, way_out: WayOut) -> None:
    """Without one, it is the region's own host."""
    way_out.hosts.clear()
    refused(client.post(COUNT, json=question("home")), 502, "api_error")
    assert set(way_out.hosts) == {"bedrock-runtime.eu-west-1.amazonaws.com:443"}


def test_row_71_from_the_environment(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    """AWS_BEARER_TOKEN_BEDROCK and AWS_BEDROCK_RUNTIME_ENDPOINT need no entry of their own."""
    server = start(
        {"model_list": model_list(bedrock={"model": f"bedrock/{BARE}"})},
        environ={
            "AWS_BEARER_TOKEN_BEDROCK": "from-the-environment",
            "AWS_BEDROCK_RUNTIME_ENDPOINT": provider.url,
            "AWS_REGION": "eu-west-3",
        },
    )
    assert counted(server.count(question("bedrock"))) == 77
    (sent,) = provider.requests
    assert sent.headers["authorization"] == "Bearer from-the-environment"
    assert sent.path == f"/model/{QUOTED}/count-tokens"
