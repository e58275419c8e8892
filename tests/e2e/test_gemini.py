"""A real server asks a real (simulated) Google: what it sends, and what its caller then sees."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import FAILURES_STAND_ALONE
from tests.server import Tallygate

ASKED: dict[str, Any] = {
    "model": "flash",
    "system": "Answer briefly.",
    "messages": [
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "text", "text": "Hi"},
            ],
        },
        {"role": "user", "content": "How are you?"},
    ],
}


@pytest.fixture(scope="module")
def server(provider: SimulatedProvider, start: Callable[..., Tallygate]) -> Tallygate:
    gemini = {"api_base": provider.url, "api_key": "os.environ/TEST_KEY"}
    config = {
        "limits": FAILURES_STAND_ALONE,
        "model_list": [
            {
                "model_name": "flash",
                "litellm_params": {"model": "gemini/gemini-2.5-flash", **gemini},
            },
            {"model_name": "gemini/*", "litellm_params": {"model": "gemini/*", **gemini}},
        ],
    }
    return start(config, environ={"TEST_KEY": "AIza-test"})


@pytest.fixture(autouse=True)
def _from_the_start(provider: SimulatedProvider) -> None:
    provider.clear()


def test_gemini_counts_and_says_what_it_did_not_see(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(body={"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT"}]})
    answers = [server.count(ASKED) for _ in range(2)]
    assert [answer.json() for answer in answers] == [{"input_tokens": 31}] * 2
    assert [answer.headers["x-tallygate-source"] for answer in answers] == ["live", "cache"]
    for answer in answers:
        assert answer.headers["x-tallygate-provider"] == "gemini"
        assert answer.headers["x-tallygate-dropped"] == "thinking"
    (request,) = provider.requests
    assert request.target == "/v1beta/models/gemini-2.5-flash:countTokens"
    assert request.headers["x-goog-api-key"] == "AIza-test"
    sent = msgspec.json.decode(request.body)["generateContentRequest"]
    assert [turn["role"] for turn in sent["contents"]] == ["user", "model", "user"]


def test_a_wildcards_name_is_quoted(server: Tallygate, provider: SimulatedProvider) -> None:
    provider.behave(body={"totalTokens": 3})
    assert server.count({**ASKED, "model": "gemini/a/../b"}).status_code == 200
    assert provider.requests[0].target == "/v1beta/models/a%2F..%2Fb:countTokens"


def test_what_gemini_cannot_count_is_never_asked(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    answer = server.count({**ASKED, "tools": tools})
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "type": "invalid_request_error",
        "message": "tools.0: tool type 'web_search_20250305' cannot be counted by provider gemini",
    }
    assert provider.calls == 0


def test_the_wait_after_a_quota_error_reaches_the_caller(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}]
    error = {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED", "details": details}
    provider.behave(status=429, body={"error": error})
    answer = server.count({**ASKED, "system": "quota"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "36")
    assert answer.json()["error"] == {"type": "rate_limit_error", "message": "Quota."}


def test_a_zero_is_no_count(server: Tallygate, provider: SimulatedProvider) -> None:
    provider.behave(body={})
    assert server.count({**ASKED, "system": "zero"}).status_code == 502
