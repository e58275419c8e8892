"""The simulated AWS, seen through botocore's own client and Anthropic's."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import anthropic
import botocore.session
import httpx
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from bench.provider import SimulatedProvider, count_tokens

MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
QUESTION: Any = {"messages": [{"role": "user", "content": "Hello, how are you?"}]}
INVOKE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1}


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as running:
        yield running


def count(
    provider: SimulatedProvider,
    body: dict[str, Any],
    model: str = MODEL,
    key: tuple[str, str, str | None] = ("AKIDEXAMPLE", "secret", None),
) -> int:
    session = botocore.session.Session()
    session.set_credentials(*key)
    client = session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=provider.url,
        config=Config(retries={"total_max_attempts": 1}),
    )
    invoke = {"body": msgspec.json.encode(body)}
    reply = client.count_tokens(modelId=model, input={"invokeModel": invoke})
    tokens: int = reply["inputTokens"]
    return tokens


def refusal(*given: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        count(*given, **more)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def test_the_documented_example_counts_14(provider: SimulatedProvider) -> None:
    assert count(provider, INVOKE | QUESTION) == count_tokens(QUESTION) == 14


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (QUESTION, "anthropic_version"),
        ({"anthropic_version": "bedrock-2023-05-31"} | QUESTION, "max_tokens"),
        (INVOKE | QUESTION | {"model": MODEL}, "model: Extra inputs"),
        (INVOKE | QUESTION | {"stream": True}, "stream: Extra inputs"),
        (INVOKE | QUESTION | {"anthropic_beta": ["oauth-2025-04-20"]}, "invalid beta flag"),
        (INVOKE | QUESTION | {"any words": 1}, "any words: Extra inputs"),
        (
            INVOKE | QUESTION | {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "max_tokens",
        ),
        (
            INVOKE
            | QUESTION
            | {"tools": [{"name": "t", "input_schema": {}, "defer_loading": True}]},
            "tools.0.custom.defer_loading",
        ),
        (INVOKE | {"messages": []}, "at least one message"),
        (
            INVOKE | {"messages": [{"role": "user", "content": "x " * 500_000}]},
            "prompt is too long: 250",
        ),
    ],
)
def test_what_invoke_model_would_refuse_is_refused(
    provider: SimulatedProvider, body: dict[str, Any], text: str
) -> None:
    code, message = refusal(provider, body)
    assert code == "ValidationException"
    assert text in message


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (f"us.{MODEL}", "doesn't support counting tokens"),
        ("anthropic.claude-opus-4-8", "doesn't support counting tokens"),
        ("anthropic.claude-nonexistent", "model identifier is invalid"),
    ],
)
def test_models_that_the_runtime_does_not_count(
    provider: SimulatedProvider, model: str, text: str
) -> None:
    assert text in refusal(provider, INVOKE | QUESTION, model)[1]


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (("AKIAINVALID", "s", None), "UnrecognizedClientException"),
        (("AKIDEXAMPLE", "s", "expired-session"), "ExpiredTokenException"),
    ],
)
def test_keys_that_are_refused(provider: SimulatedProvider, key: Any, code: str) -> None:
    assert refusal(provider, INVOKE | QUESTION, key=key)[0] == code


def test_errors_on_request(provider: SimulatedProvider) -> None:
    provider.behave(status=429, model=MODEL)
    assert refusal(provider, INVOKE | QUESTION)[0] == "ThrottlingException"


def test_converse_is_another_question(provider: SimulatedProvider) -> None:
    blocks = [{"role": "user", "content": [{"text": "Hello, how are you?", "type": "text"}]}]
    reply = httpx.post(
        f"{provider.url}/model/{MODEL}/count-tokens",
        json={"input": {"converse": {"messages": blocks}}},
        headers={"authorization": "Bearer key"},
    )
    assert reply.json()["inputTokens"] != 14


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"input":{}}', '{"input":{"invokeModel":1}}'])
def test_what_is_no_request_is_refused(provider: SimulatedProvider, body: str) -> None:
    url = f"{provider.url}/model/{MODEL}/count-tokens"
    assert httpx.post(url, content=body).status_code == 403
    bearer = {"authorization": "Bearer key"}
    reply = httpx.post(url, content=body, headers=bearer)
    assert reply.status_code == 400
    assert reply.headers["x-amzn-errortype"].startswith("ValidationException:")
    inner = b64encode(b"[]").decode()
    nothing = {"input": {"invokeModel": {"body": inner}}}
    assert httpx.post(url, json=nothing, headers=bearer).status_code == 400


def test_mantle_answers_anthropics_client(provider: SimulatedProvider) -> None:
    client = anthropic.AnthropicBedrockMantle(
        api_key="key", aws_region="us-east-1", base_url=f"{provider.url}/anthropic", max_retries=0
    )
    model = "anthropic.claude-opus-4-8"
    assert client.messages.count_tokens(model=model, **QUESTION).input_tokens == 14
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model=f"us.{model}", **QUESTION)
    wrong = "AWS4-HMAC-SHA256 Credential=A/20261101/us-east-1/bedrock/aws4_request, "
    wrong += f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    url = f"{provider.url}/anthropic/v1/messages/count_tokens"
    reply = httpx.post(url, json={"model": model} | QUESTION, headers={"authorization": wrong})
    assert (reply.status_code, reply.json()["error"]["type"]) == (403, "permission_error")
    client.close()
