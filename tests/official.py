"""The providers' own clients, made as their users make them, but for the address.

    with OFFICIAL["boto3"].open(url) as ask:
        ask(question)  # → 14

A question is a body of Anthropic's format with the provider's own model id. Google's clients are
given it in Google's types, Bedrock's as InvokeModel takes it.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, closing, contextmanager
from typing import Any, NamedTuple

import anthropic
import boto3
from aiobotocore.config import AioConfig
from aiobotocore.httpxsession import HttpxSession
from aiobotocore.session import get_session
from botocore.config import Config
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials

from tests.google_form import google_config, google_contents

Question = dict[str, Any]
Ask = Callable[[Question], int]
Opened = AbstractContextManager[Ask]

PROJECT, LOCATION, AWS_REGION = "my-project", "us-east5", "us-west-2"
ANTHROPIC_KEY, GOOGLE_TOKEN, GEMINI_KEY = "sk-ant-api03-upstream", "ya29.upstream", "AIza-upstream"
AWS_KEY_ID, AWS_SECRET, BEDROCK_KEY = "AKIAUPSTREAM", "secret", "bedrock-key"
MODELS = {
    "anthropic": "claude-sonnet-4-5-20250929",
    "vertex_claude": "claude-sonnet-4-5@20250929",
    "bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "bedrock_mantle": "anthropic.claude-opus-4-8",
    "gemini": "gemini-2.5-flash",
    "vertex_gemini": "gemini-2.5-flash",
}


def _anthropic(url: str, key: str = ANTHROPIC_KEY) -> Opened:
    return _claude(anthropic.Anthropic(base_url=url, api_key=key, max_retries=0))


def _anthropic_async(url: str, key: str = ANTHROPIC_KEY) -> Opened:
    return _claude_async(lambda: anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0))


def _vertex(url: str, token: str = GOOGLE_TOKEN) -> Opened:
    return _claude(anthropic.AnthropicVertex(**_on_vertex(url, token)))


def _vertex_async(url: str, token: str = GOOGLE_TOKEN) -> Opened:
    return _claude_async(lambda: anthropic.AsyncAnthropicVertex(**_on_vertex(url, token)))


def _on_vertex(url: str, token: str) -> dict[str, Any]:
    place = {"project_id": PROJECT, "region": LOCATION}
    return {"base_url": f"{url}/v1", "access_token": token, "max_retries": 0, **place}


def _mantle(url: str, key_id: str = AWS_KEY_ID) -> Opened:
    return _claude(anthropic.AnthropicBedrockMantle(**_on_mantle(url, key_id)))


def _mantle_async(url: str, key_id: str = AWS_KEY_ID) -> Opened:
    return _claude_async(lambda: anthropic.AsyncAnthropicBedrockMantle(**_on_mantle(url, key_id)))


def _mantle_by_key(url: str) -> Opened:
    return _claude(anthropic.AnthropicBedrockMantle(**_at_mantle(url), api_key=BEDROCK_KEY))


def _on_mantle(url: str, key_id: str) -> dict[str, Any]:
    return {**_at_mantle(url), "aws_access_key": key_id, "aws_secret_key": AWS_SECRET}


def _at_mantle(url: str) -> dict[str, Any]:
    return {"base_url": f"{url}/anthropic", "aws_region": AWS_REGION, "max_retries": 0}


@contextmanager
def _claude(client: Any) -> Iterator[Ask]:
    """Ask with any of Anthropic's clients; the types of some disown what they inherit."""
    with client:
        yield lambda question: _messages(client, question).count_tokens(**question).input_tokens


def _messages(client: Any, question: Question) -> Any:
    """Choose the beta resource for a question that names betas, as its users must."""
    return (client.beta if "betas" in question else client).messages


def _claude_async(make: Callable[[], Any]) -> Opened:
    async def ask(client: Any, question: Question) -> int:
        counted = await _messages(client, question).count_tokens(**question)
        tokens: int = counted.input_tokens
        return tokens

    return _in_a_loop(make, ask)


@contextmanager
def _in_a_loop(
    make: Callable[[], Any], ask: Callable[[Any, Question], Coroutine[Any, Any, int]]
) -> Iterator[Ask]:
    """Keep one client and its connections in a loop of its own."""
    stack = AsyncExitStack()

    async def enter() -> Any:
        return await stack.enter_async_context(make())

    with asyncio.Runner() as runner:
        client = runner.run(enter())
        try:
            yield lambda question: runner.run(ask(client, question))
        finally:
            runner.run(stack.aclose())


def _boto3(url: str, key_id: str = AWS_KEY_ID) -> Opened:
    config = Config(retries={"total_max_attempts": 1})
    return _runtime(boto3.client("bedrock-runtime", config=config, **_on_aws(url, key_id)))


@contextmanager
def _runtime(client: Any) -> Iterator[Ask]:
    with closing(client):
        yield lambda question: client.count_tokens(**_invoke(question))["inputTokens"]


def _aiobotocore(url: str, key_id: str = AWS_KEY_ID, **backend: Any) -> Opened:
    config = AioConfig(retries={"total_max_attempts": 1}, **backend)
    place = _on_aws(url, key_id)

    async def ask(client: Any, question: Question) -> int:
        tokens: int = (await client.count_tokens(**_invoke(question)))["inputTokens"]
        return tokens

    return _in_a_loop(
        lambda: get_session().create_client("bedrock-runtime", config=config, **place), ask
    )


def _aiobotocore_httpx(url: str, key_id: str = AWS_KEY_ID) -> Opened:
    """Over httpx, the client writes the whole address into the request line."""
    return _aiobotocore(url, key_id, http_session_cls=HttpxSession)


def _on_aws(url: str, key_id: str) -> dict[str, Any]:
    signer = {"aws_access_key_id": key_id, "aws_secret_access_key": AWS_SECRET}
    return {"endpoint_url": url, "region_name": AWS_REGION, **signer}


def _invoke(question: Question) -> dict[str, Any]:
    body = {"body": json.dumps(invoke_body(question)).encode()}
    return {"modelId": question["model"], "input": {"invokeModel": body}}


def invoke_body(question: Question) -> dict[str, Any]:
    """Write a question as AWS documents it for InvokeModel, which counts by it."""
    budget = question.get("thinking", {}).get("budget_tokens", 0)
    needed = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": budget + 1}
    return needed | {name: value for name, value in question.items() if name != "model"}


def _gemini(url: str, key: str = GEMINI_KEY) -> Opened:
    # The client's own default is v1 since 3.0; the adapter asks the version that is documented.
    options = types.HttpOptions(base_url=url, api_version="v1beta")
    return _google(genai.Client(api_key=key, http_options=options))


def _vertex_gemini(url: str, token: str = GOOGLE_TOKEN) -> Opened:
    # The client's own default is v1beta1; the method stands in v1 too.
    options = types.HttpOptions(base_url=url, api_version="v1")
    client = genai.Client(
        vertexai=True,
        project=PROJECT,
        location=LOCATION,
        credentials=Credentials(token),
        http_options=options,
    )
    return _google(client)


@contextmanager
def _google(client: genai.Client) -> Iterator[Ask]:
    def ask(question: Question) -> int:
        contents: Any = google_contents(question)
        config = google_config(question)
        reply = client.models.count_tokens(
            model=question["model"], contents=contents, config=config
        )
        return reply.total_tokens or 0

    with closing(client):
        yield ask


class Official(NamedTuple):
    """One client: whose it is, and how it is opened: at an address, with another credential."""

    provider: str
    open: Callable[..., Opened]


OFFICIAL = {
    "Anthropic": Official("anthropic", _anthropic),
    "AsyncAnthropic": Official("anthropic", _anthropic_async),
    "AnthropicVertex": Official("vertex_claude", _vertex),
    "AsyncAnthropicVertex": Official("vertex_claude", _vertex_async),
    "AnthropicBedrockMantle": Official("bedrock_mantle", _mantle),
    "AsyncAnthropicBedrockMantle": Official("bedrock_mantle", _mantle_async),
    "AnthropicBedrockMantle by key": Official("bedrock_mantle", _mantle_by_key),
    "boto3": Official("bedrock", _boto3),
    "aiobotocore": Official("bedrock", _aiobotocore),
    "aiobotocore over httpx": Official("bedrock", _aiobotocore_httpx),
    "google-genai on AI Studio": Official("gemini", _gemini),
    "google-genai on Vertex AI": Official("vertex_gemini", _vertex_gemini),
}
