"""The official SDKs, three majors of the Python one and the TypeScript one, through the proxy."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import FAILURES_STAND_ALONE
from tests.server import KEY, ROOT, Tallygate

ASK = str(ROOT / "tests/clients/ask.py")
NODE = ROOT / "tests/clients/node"
COMMANDS = {
    "python 0": [str(ROOT / ".clients/anthropic-0/bin/python"), ASK],
    "python 1": [str(ROOT / ".clients/anthropic-1/bin/python"), ASK],
    "python 2": [sys.executable, ASK],
    "typescript": ["node", str(NODE / "ask.mjs")],
}
VERSIONS = {
    "python 0": "2023-06-01",
    "python 1": "2023-06-01",
    "python 2": "2026-10-21",
    "typescript": "2026-10-21",
}
PYTHON_WAYS = ("sync", "async", "sync beta", "async beta")
WAYS = [
    *((sdk, how) for sdk in COMMANDS if sdk != "typescript" for how in PYTHON_WAYS),
    ("typescript", "async"),
    ("typescript", "async beta"),
]

UPSTREAM_KEY = "sk-ant-the-servers-own"
UPSTREAM_MODEL = "claude-upstream-5"
CONTEXT_BETA = "context-management-2025-06-27"
BETAS = ["interleaved-thinking-2025-05-14", CONTEXT_BETA]

Fields = dict[str, Any]
_unique = count()


class Sdk:
    """One SDK in a process of its own."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self._url = name, url
        self._process = subprocess.Popen(
            COMMANDS[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, fields: Fields, how: str = "sync", key: str = KEY, **options: Any) -> Any:
        ask = {"url": self._url, "key": key, "how": how, "betas": BETAS, "arguments": fields}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({**ask, **options}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline() or '"the SDK\'s process ended"')

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="module")
def server(provider: SimulatedProvider, start: Callable[..., Tallygate]) -> Tallygate:
    def entry(alias: str, key: str) -> dict[str, Any]:
        model = f"anthropic/{UPSTREAM_MODEL if alias == 'claude' else alias}"
        params = {"model": model, "api_key": key, "api_base": provider.url}
        return {"model_name": alias, "litellm_params": params}

    entries = [entry("claude", UPSTREAM_KEY), entry("badly-configured", "sk-ant-invalid")]
    return start({"model_list": entries, "limits": FAILURES_STAND_ALONE}, workers=2)


@pytest.fixture(scope="module")
def sdks(server: Tallygate) -> Iterator[Callable[[str], Sdk]]:
    running: dict[str, Sdk] = {}

    def start_sdk(name: str) -> Sdk:
        if not shutil.which(COMMANDS[name][0]):
            pytest.skip(f"{COMMANDS[name][0]} is missing; `make clients` installs the SDKs")
        if name == "typescript" and not (NODE / "node_modules").exists():
            pytest.skip("node_modules is missing; `make clients` installs it where npm is")
        if name not in running:
            running[name] = Sdk(name, server.url)
        return running[name]

    yield start_sdk
    for sdk in running.values():
        sdk.close()


@pytest.fixture(params=COMMANDS)
def sdk(request: pytest.FixtureRequest, sdks: Callable[[str], Sdk]) -> Sdk:
    return sdks(request.param)


def question(model: str = "claude") -> Fields:
    """Ask what nobody has asked before."""
    content = f"What is the weather in Łódź? 🌦 {next(_unique)}"
    return {"model": model, "messages": [{"role": "user", "content": content}]}


def everything() -> Fields:
    """Set every field of the schema, and one that nobody knows yet."""
    schema = {
        "type": "object",
        "required": ["unit", "city"],
        "properties": {"unit": {"enum": ["c", "f"]}, "city": {"type": "string"}, "at": {}},
    }
    tool = {"name": "weather", "input_schema": schema, "description": "Tells the weather."}
    return {
        **question(),
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [tool],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "output_config": {"effort": "low"},
        "a_field_of_next_year": {"b": [1, 2.5, None], "a": "ä"},
    }


@pytest.mark.parametrize(("name", "how"), WAYS, ids=[" ".join(way) for way in WAYS])
def test_counts_are_right_and_nothing_is_lost(
    name: str, how: str, sdks: Callable[[str], Sdk], provider: SimulatedProvider
) -> None:
    sdk, fields = sdks(name), everything()
    if "beta" in how:
        fields["context_management"] = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    provider.clear()
    counted = sdk.ask(fields, how)

    tokens = count_tokens(fields)
    assert counted["answer"]["input_tokens"] == tokens
    assert counted["request_id"].startswith("req_")
    if "beta" in how:
        managed = {"original_input_tokens": tokens}
        assert counted["answer"]["context_management"] == managed
    (seen,) = provider.requests
    asked = json.loads(seen.body)
    assert asked == {**fields, "model": UPSTREAM_MODEL}
    assert json.dumps(asked["tools"]) == json.dumps(fields["tools"])
    assert seen.headers["anthropic-version"] == VERSIONS[name]
    betas = {*BETAS, "token-counting-2024-11-01"} if "beta" in how else set()
    assert set(filter(None, seen.headers.get("anthropic-beta", "").split(","))) == betas
    assert seen.headers["x-api-key"] == UPSTREAM_KEY
    assert "authorization" not in seen.headers
    assert KEY not in str(seen.raw_headers) + seen.target + seen.body.decode()

    again = sdk.ask(fields, how)
    assert again["answer"] == counted["answer"]
    assert again["request_id"] != counted["request_id"]
    assert provider.calls == 1


def test_a_body_that_the_provider_refuses(sdk: Sdk, provider: SimulatedProvider) -> None:
    source = {"type": "url", "url": "https://example.com/cat.png"}
    fields = question()
    fields["messages"][0]["content"] = [{"type": "image", "source": source}]
    provider.clear()
    error = sdk.ask(fields)["error"]
    assert error["classes"][0] == "BadRequestError"
    assert (error["status"], error["type"]) == (400, "invalid_request_error")
    assert "url sources are not supported" in error["message"]
    assert provider.calls == 1


def test_a_body_that_the_proxy_refuses(sdk: Sdk, provider: SimulatedProvider) -> None:
    provider.clear()
    error = sdk.ask({"model": "claude", "messages": []})["error"]
    assert error["classes"][0] == "BadRequestError"
    assert error["message"].startswith("messages: ")
    assert provider.calls == 0


def test_a_wrong_key(sdk: Sdk, provider: SimulatedProvider) -> None:
    provider.clear()
    error = sdk.ask(question(), key="sk-wrong")["error"]
    assert error["classes"][0] == "AuthenticationError"
    assert (error["status"], error["type"]) == (401, "authentication_error")
    assert error["request_id"].startswith("req_")
    assert provider.calls == 0


def test_an_unknown_model(sdk: Sdk, provider: SimulatedProvider) -> None:
    provider.clear()
    error = sdk.ask(question("claude-nobody-configured"))["error"]
    assert error["classes"][0] == "NotFoundError"
    assert (error["status"], error["type"]) == (404, "not_found_error")
    assert "claude-nobody-configured" in error["message"]
    assert provider.calls == 0


def test_a_rate_limit_says_when_to_come_back(sdk: Sdk, provider: SimulatedProvider) -> None:
    provider.clear()
    provider.behave(status=429, headers={"retry-after": "7"}, times=1)
    error = sdk.ask(question(), max_retries=0)["error"]
    assert error["classes"][0] == "RateLimitError"
    assert (error["status"], error["type"]) == (429, "rate_limit_error")
    assert error["retry_after"] == "7"
    assert provider.calls == 1


def test_an_overloaded_provider(sdk: Sdk, provider: SimulatedProvider) -> None:
    provider.clear()
    provider.behave(status=529, times=1)
    error = sdk.ask(question(), max_retries=0)["error"]
    assert {"InternalServerError", "OverloadedError"} & set(error["classes"])
    assert (error["status"], error["type"]) == (529, "overloaded_error")
    assert provider.calls == 1


def test_an_sdk_that_retries_gets_its_count(sdk: Sdk, provider: SimulatedProvider) -> None:
    fields = question()
    provider.clear()
    provider.behave(status=529, headers={"retry-after": "0.01"}, times=1)
    assert sdk.ask(fields)["answer"] == {"input_tokens": count_tokens(fields)}
    assert provider.calls == 2


def test_the_operators_bad_key_is_neither_the_callers_fault_nor_retried(
    sdk: Sdk, provider: SimulatedProvider
) -> None:
    provider.clear()
    error = sdk.ask(question("badly-configured"))["error"]
    assert "InternalServerError" in error["classes"]
    assert (error["status"], error["type"]) == (502, "api_error")
    assert "sk-ant-invalid" not in error["message"]
    assert provider.calls == 1
