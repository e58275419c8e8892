"""Claude on Bedrock through a real server: the runtime, mantle behind it, keys, limits."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.provider import SimulatedProvider
from tests.server import Tallygate

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Tallygate:
    def entry(name: str, model: str, **params: Any) -> dict[str, Any]:
        base = {"aws_region_name": "us-east-1", "aws_bedrock_runtime_endpoint": provider.url}
        return {"model_name": name, "litellm_params": {"model": model, **base, **KEYS, **params}}

    mantle = {"aws_bedrock_mantle_endpoint": provider.url}
    return start(
        {
            "model_list": [
                entry("claude-bedrock", f"bedrock/us.{SONNET}"),
                entry("beside-mantle", f"bedrock/{SONNET}", **mantle),
                entry("opus", "bedrock/us.anthropic.claude-opus-4-8", **mantle),
                entry("opus-alone", "bedrock/anthropic.claude-opus-4-8"),
                entry("nobody", "bedrock/anthropic.claude-nonexistent", **mantle),
                entry("any/*", "bedrock/*", **mantle),
                entry(
                    "straight", "bedrock_mantle/anthropic.claude-opus-4-8", api_base=provider.url
                ),
                entry("bearer", f"bedrock/{SONNET}", api_key="key"),
                entry("long", f"bedrock/{SONNET}", count_from_too_long=True),
                entry("refused", f"bedrock/{SONNET}", aws_access_key_id="AKIAINVALID"),
                entry("expired", f"bedrock/{SONNET}", aws_session_token="expired-session"),
            ]
        }
    )


@pytest.fixture(autouse=True)
def forget(provider: SimulatedProvider) -> None:
    provider.clear()


def ask(text: str, model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize("model", ["claude-bedrock", "bearer", f"any/us.{SONNET}"])
def test_the_documented_example(server: Tallygate, model: str) -> None:
    reply = server.count(ask("Hello, how are you?", model))
    assert (reply.status_code, reply.json()) == (200, {"input_tokens": 14})
    assert reply.headers["x-tallygate-provider"] == "bedrock"


@pytest.mark.parametrize("model", ["opus", "any/eu.anthropic.claude-opus-4-7"])
def test_mantle_answers_for_a_model_that_the_runtime_does_not_count(
    server: Tallygate, provider: SimulatedProvider, model: str
) -> None:
    first = server.count(ask("first", model))
    assert first.status_code == 200, first.text
    assert first.headers["x-tallygate-provider"] == "bedrock_mantle"
    assert provider.calls == 2
    second = server.count(ask("second", model))
    assert second.headers["x-tallygate-source"] == "live"
    assert provider.calls == 3, "the refusal is remembered"
    again = server.count(ask("first", model))
    assert (again.json(), again.headers["x-tallygate-source"]) == (first.json(), "cache")
    assert again.headers["x-tallygate-provider"] == "bedrock_mantle"
    assert provider.calls == 3


def test_both_ways_to_mantle_are_one_counter(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    server.count(ask("both ways", "opus"))
    calls = provider.calls
    reply = server.count(ask("both ways", "straight"))
    assert reply.headers["x-tallygate-source"] == "cache"
    assert provider.calls == calls


def test_without_an_alternate_the_runtimes_refusal_stands(server: Tallygate) -> None:
    reply = server.count(ask("Hi", "opus-alone"))
    assert reply.status_code == 400
    assert "support counting tokens" in reply.json()["error"]["message"]


def test_a_model_that_nobody_knows_is_404(server: Tallygate, provider: SimulatedProvider) -> None:
    reply = server.count(ask("Hi", "nobody"))
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")
    assert provider.calls == 2


@pytest.mark.parametrize("model", ["beside-mantle", "claude-bedrock"])
@pytest.mark.parametrize(
    "name",
    [
        "model identifier is invalid",
        "The provided model identifier is invalid.",
        "The provided model doesn't support counting tokens.",
    ],
)
def test_no_name_in_a_request_takes_the_model_from_others(
    server: Tallygate, provider: SimulatedProvider, model: str, name: str
) -> None:
    refused = server.count(ask(f"{model}, mine: {name}", model) | {name: 1})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    assert name in refused.json()["error"]["message"]
    reply = server.count(ask(f"{model}, another's: {name}", model))
    assert (reply.status_code, reply.headers["x-tallygate-provider"]) == (200, "bedrock")
    assert provider.calls == 2


def test_the_betas_of_claude_code_break_no_count(server: Tallygate) -> None:
    betas = "claude-code-20250219,interleaved-thinking-2025-05-14,prompt-caching-scope-2026-01-05"
    reply = server.count(ask("with betas", "claude-bedrock"), anthropic_beta=betas)
    assert (reply.status_code, reply.headers["x-tallygate-provider"]) == (200, "bedrock")
    named = reply.headers["x-tallygate-dropped"]
    assert named == "anthropic-beta:prompt-caching-scope-2026-01-05"


def test_a_count_in_a_refusal_is_taken_only_where_configured(server: Tallygate) -> None:
    question = "x " * 500_000
    refused = server.count(ask(question, "claude-bedrock"))
    assert refused.status_code == 400
    counted = server.count(ask(question, "long"))
    assert counted.status_code == 200
    assert f"too long: {counted.json()['input_tokens']} tokens" in refused.text


def test_more_than_bedrock_takes_is_413_without_a_call(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    reply = server.count(ask("x" * 25_000_000, "claude-bedrock"))
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "request_too_large")
    assert provider.calls == 0


@pytest.mark.parametrize("model", ["refused", "expired"])
def test_refused_keys_are_the_operators_fault(
    server: Tallygate, provider: SimulatedProvider, model: str
) -> None:
    reply = server.count(ask("Hi", model))
    assert (reply.status_code, reply.json()["error"]["type"]) == (502, "api_error")
    assert reply.headers["x-should-retry"] == "false"
    assert provider.calls == 1
