"""What LiteLLM's page on ``/v1/messages/count_tokens`` documents: rows 1 to 13, 22 and 23."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import (
    COUNT,
    JSON,
    MODEL,
    NATIVE,
    Connection,
    anthropic,
    asked,
    counted,
    model_list,
    question,
    refused,
    request,
)
from tests.e2e.launch import Launch
from tests.server import KEY, Tallygate

UPSTREAM_KEY = "sk-ant-api03-from-the-environment"
DOCUMENTED = "claude-3-5-sonnet-20241022"


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Tallygate:
    """The documented configuration's Anthropic part, and what rows 3 and 12 need."""
    base = provider.url
    given = {"api_key": "os.environ/ANTHROPIC_API_KEY"}
    return start(
        {
            "model_list": model_list(
                **{
                    MODEL: anthropic(DOCUMENTED, base, **given),
                    "bare": {"model": DOCUMENTED, "api_base": base, **given},
                    "short-lived": anthropic("claude-3-5-haiku-latest", base),
                    "unset": anthropic(DOCUMENTED, base, api_key="os.environ/NOBODY_SETS_THIS"),
                    "approximate": {"model": "estimate/claude"},
                }
            ),
            "cache": {"alias_ttl_s": 0.3},
        },
        environ={"ANTHROPIC_API_KEY": UPSTREAM_KEY},
    )


def test_row_01_documented_request(client: httpx.Client) -> None:
    """A model and one user message: 200, the provider's number, and nothing else in the body."""
    messages = [{"role": "user", "content": "Hello, how are you?"}]
    response = client.post(COUNT, json={"model": MODEL, "messages": messages})
    assert response.status_code == 200
    assert response.json() == {"input_tokens": 14}


def test_row_02_context_management_in_the_reply(client: httpx.Client) -> None:
    """The one other field that Anthropic defines for the reply comes back with the count."""
    beta = {"anthropic-beta": "context-management-2025-06-27"}
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    body = question(context_management=edits)
    response = client.post(COUNT, json=body, headers=beta)
    tokens = count_tokens(body)
    assert response.json() == {
        "input_tokens": tokens,
        "context_management": {"original_input_tokens": tokens},
    }


def test_row_03_provenance_of_live_and_cached(client: httpx.Client) -> None:
    """Headers say where a count came from and when the provider said so; the body never does."""
    body = question()
    before = datetime.now(UTC) - timedelta(seconds=1)
    live = client.post(COUNT, json=body)
    after = datetime.now(UTC)
    cached = client.post(COUNT, json=body)
    assert live.headers["x-tallygate-source"] == "live"
    assert live.headers["cache-status"] == "tallygate; fwd=miss; stored"
    assert cached.headers["x-tallygate-source"] == "cache"
    assert cached.headers["cache-status"] == "tallygate; hit"
    counted_at = live.headers["x-tallygate-counted-at"]
    assert before <= datetime.fromisoformat(counted_at) <= after
    assert cached.headers["x-tallygate-counted-at"] == counted_at
    for response in (live, cached):
        assert response.headers["x-tallygate-provider"] == "anthropic"
        assert response.headers["x-tallygate-model"] == DOCUMENTED
        assert response.json() == {"input_tokens": count_tokens(body)}


def test_row_03_provenance_of_coalesced(server: Tallygate, provider: SimulatedProvider) -> None:
    """An answer shared with another request in flight says so."""
    provider.behave(delay_s=0.5)
    body = msgspec.json.encode(question())
    with Connection(server.port) as first, Connection(server.port) as second:
        first.send(request(body))
        second.send(request(body))
        answers = [first.read(), second.read()]
    assert {counted(answer) for answer in answers} == {count_tokens(msgspec.json.decode(body))}
    headers = {answer.headers["x-tallygate-source"]: answer.headers for answer in answers}
    assert set(headers) == {"live", "coalesced"}
    assert headers["coalesced"]["cache-status"] == "tallygate; fwd=miss; collapsed"


def test_row_03_provenance_of_estimate(client: httpx.Client, provider: SimulatedProvider) -> None:
    """An estimate that the operator asked for is marked as one."""
    response = client.post(COUNT, json=question("approximate"))
    assert counted(response)
    assert response.headers["x-tallygate-source"] == "estimate"
    assert response.headers["x-tallygate-provider"] == "estimate"
    assert provider.calls == 0


def test_row_03_provenance_of_stale(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A remembered count that has expired is served, marked, while the provider fails."""
    body = question("short-lived")
    live = client.post(COUNT, json=body)
    time.sleep(0.4)
    provider.behave(status=529)
    stale = client.post(COUNT, json=body)
    assert stale.json() == live.json()
    assert stale.headers["x-tallygate-source"] == "stale"
    assert stale.headers["cache-status"] == "tallygate; fwd=stale"
    assert stale.headers["x-tallygate-counted-at"] == live.headers["x-tallygate-counted-at"]


@pytest.mark.parametrize("query", ["beta=true", "a=1&b=%2F&a=2", "beta=true&api-version=1", ""])
def test_row_04_query_is_ignored(
    client: httpx.Client, provider: SimulatedProvider, query: str
) -> None:
    """A query changes neither the question nor its key, and is not sent on."""
    body = question()
    plain = client.post(COUNT, json=body)
    queried = client.post(f"{COUNT}?{query}", json=body)
    assert queried.json() == plain.json()
    assert queried.headers["x-tallygate-source"] == "cache"
    assert [one.target for one in provider.requests] == [COUNT]


def test_row_05_every_turn_counts(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A conversation of several turns reaches the provider whole."""
    turns = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
        {"role": "user", "content": "What is its population?"},
    ]
    body = {"model": MODEL, "messages": turns}
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    assert asked(provider)["messages"] == turns


def test_row_06_content_blocks(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Content may be a list of blocks, and goes on as the client wrote it."""
    picture = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    blocks = [
        {"type": "text", "text": "What is in this image?"},
        {"type": "image", "source": picture},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}},
    ]
    body = question() | {"messages": [{"role": "user", "content": blocks}]}
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    assert asked(provider)["messages"][0]["content"] == blocks


@pytest.mark.parametrize(
    "system",
    [
        "Answer briefly.",
        [{"type": "text", "text": "Answer briefly.", "cache_control": {"type": "ephemeral"}}],
    ],
    ids=["string", "blocks"],
)
def test_row_07_system(client: httpx.Client, provider: SimulatedProvider, system: Any) -> None:
    """A system prompt counts, and is sent on in the form in which it came."""
    body = question(system=system)
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    assert asked(provider)["system"] == system


def test_row_08_leading_system_messages(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Leading system messages go as they are to a provider that knows the role."""
    messages = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "system", "content": "In French."},
        {"role": "user", "content": "Hello"},
    ]
    body = question(system=[{"type": "text", "text": "First."}]) | {"messages": messages}
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    sent = asked(provider)
    assert sent["messages"] == messages
    assert sent["system"] == body["system"]


def test_row_09_tools_are_untouched(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Names and schemas of tools go on unchanged, the order of keys in a schema included."""
    schema = (
        b'{"type":"object","required":["unit","at"],"properties":{"unit":{"enum":["C","F"],'
        b'"type":"string"},"at":{"description":"Z\\u00fcrich / \xc3\xa9","type":"string"}},'
        b'"additionalProperties":false,"$defs":{}}'
    )
    tool = b'{"name":"get-weather.v2","input_schema":%b,"description":"d"}' % schema
    messages = b'[{"role":"user","content":"What is the weather?"}]'
    body = b'{"tools":[%b],"model":"%b","messages":%b}' % (tool, MODEL.encode(), messages)
    assert counted(client.post(COUNT, content=body, headers=JSON))
    assert tool in provider.requests[0].body


def test_row_10_tools_have_a_price(client: httpx.Client) -> None:
    """The same body with and without tools gives two counts; their difference is the tools."""
    tool = {"name": "t", "description": "d" * 4000, "input_schema": {"type": "object"}}
    without = question() | {"messages": [{"role": "user", "content": "foo"}]}
    both = without | {"tools": [tool]}
    difference = counted(client.post(COUNT, json=both)) - counted(client.post(COUNT, json=without))
    assert difference == count_tokens(both) - count_tokens(without)
    assert difference > 0


def test_row_12_environment_variable_is_read(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """``os.environ/NAME`` is the variable's value, LiteLLM's keys keep their meaning."""
    counted(client.post(COUNT, json=question()))
    (sent,) = provider.requests
    assert sent.headers["x-api-key"] == UPSTREAM_KEY
    assert asked(provider)["model"] == DOCUMENTED


def test_row_12_unset_variable_is_named(
    server: Tallygate, client: httpx.Client, provider: SimulatedProvider
) -> None:
    """A provider's unset variable stops nothing but its own entry, and is named to the operator."""
    (row,) = [line for line in server.err.read_text().splitlines() if line.startswith("unset ")]
    assert "missing: NOBODY_SETS_THIS" in row
    response = client.post(COUNT, json=question("unset"))
    assert "NOBODY_SETS_THIS" in refused(response, 502, "api_error")
    assert response.headers["x-should-retry"] == "false"
    assert provider.calls == 0


@pytest.mark.parametrize(
    "entry",
    [
        {"litellm_params": {"model": "anthropic/claude-3-5-sonnet-20241022"}},
        {"model_name": MODEL},
        {"model_name": MODEL, "litellm_params": {"model": "anthropic/x", "api_base": "no-url"}},
    ],
    ids=["no-name", "no-params", "bad-base"],
)
def test_row_12_malformed_entry_stops_the_start(
    launch: Callable[..., Launch], entry: dict[str, Any]
) -> None:
    """An entry that cannot be used is a clear error at the start."""
    line = launch({"model_list": [entry]}).refusal()
    assert re.search(r"config\.yaml:\d+: model_list\[0\]\.\w+.*: must ", line)


@pytest.mark.parametrize("model", [MODEL, DOCUMENTED, "bare"])
def test_row_13_documented_names(
    client: httpx.Client, provider: SimulatedProvider, model: str
) -> None:
    """The page's configuration answers the page's requests: with the alias, and with the dated id.

    The page asks for ``claude-3-5-sonnet-20241022`` while ``model_name`` is ``claude-3-5-sonnet``.
    """
    body = question(model)
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    assert asked(provider)["model"] == DOCUMENTED


def test_row_22_pass_through_keeps_everything(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """Native headers, every field and the query go on; the reply comes back whole."""
    provider.behave(body={"input_tokens": 5, "context_management": None, "new": [1.0]})
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "token-counting-2024-11-01"}
    fields = {"metadata": {"user_id": "u"}, "max_tokens": 9, "stream": True, "brand_new": {"a": 1}}
    body = question("claude-opus-4-1-20250805", **fields)
    response = client.post(f"{NATIVE}?beta=true&x=%2F", json=body, headers=headers)
    assert response.content == b'{"input_tokens":5,"context_management":null,"new":[1.0]}'
    (sent,) = provider.requests
    assert asked(provider) == body
    assert sent.target == f"{COUNT}?beta=true&x=%2F"
    assert sent.headers["anthropic-version"] == "2026-10-21"
    assert sent.headers["anthropic-beta"] == "token-counting-2024-11-01"
    assert sent.headers["x-api-key"] == UPSTREAM_KEY


@pytest.mark.parametrize("status", [400, 404, 413])
def test_row_22_pass_through_keeps_refusals(
    client: httpx.Client, provider: SimulatedProvider, status: int
) -> None:
    """What the provider refuses is refused with its status, type and message."""
    provider.behave(status=status)
    response = client.post(NATIVE, json=question(DOCUMENTED))
    types = {400: "invalid_request_error", 404: "not_found_error", 413: "request_too_large"}
    assert refused(response, status, types[status])


def test_row_22_documented_pass_through_request(
    stranger: httpx.Client, provider: SimulatedProvider
) -> None:
    """The page's own example: the proxy's key in ``x-api-key``, Anthropic's headers beside it."""
    headers = {
        "x-api-key": KEY,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "token-counting-2024-11-01",
    }
    body = question(DOCUMENTED)
    assert counted(stranger.post(NATIVE, json=body, headers=headers)) == count_tokens(body)
    assert provider.requests[0].headers["x-api-key"] == UPSTREAM_KEY


def test_row_23_pass_through_is_not_slower(server: Tallygate) -> None:
    """64 connections with 190 KB each take about as long on either route."""

    def seconds(path: str, model: str) -> float:
        bodies = [
            msgspec.json.encode(question(model, system="x" * 190_000)) for _connection in range(64)
        ]
        connections = [Connection(server.port) for _body in bodies]
        started = time.perf_counter()
        for connection, body in zip(connections, bodies, strict=True):
            connection.send(request(body, target=path))
        for connection in connections:
            counted(connection.read())
        spent = time.perf_counter() - started
        for connection in connections:
            connection.close()
        return spent

    seconds(COUNT, MODEL)
    rounds = [(seconds(COUNT, MODEL), seconds(NATIVE, DOCUMENTED)) for _round in range(5)]
    assert min(native / unified for unified, native in rounds) < 2
