"""Fields and headers reach the provider as the client sent them: rows 24 to 39."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import (
    COUNT,
    MODEL,
    anthropic,
    asked,
    counted,
    event,
    model_list,
    question,
    refused,
)
from tests.server import KEY, Tallygate

UPSTREAM_KEY = "sk-ant-api03-upstream"
TOKEN_COUNTING = "token-counting-2024-11-01"


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Tallygate:
    """A deployment with a key, one without, and every other id under a wildcard."""
    return start(
        {
            "model_list": model_list(
                **{
                    MODEL: anthropic("claude-3-5-sonnet-20241022", provider.url),
                    "keyless": {"model": "anthropic/claude-keyless", "api_base": provider.url},
                    "anthropic/*": anthropic("*", provider.url),
                }
            ),
            "general_settings": {"master_key": KEY},
        }
    )


def _forwarded(client: httpx.Client, provider: SimulatedProvider, fields: dict[str, Any]) -> None:
    """Count a question with these fields, and see them arrive and make the provider's number."""
    body = question(**fields)
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    assert asked(provider) == body | {"model": "claude-3-5-sonnet-20241022"}


@pytest.mark.parametrize(
    "thinking",
    [
        {"type": "enabled", "budget_tokens": 1024},
        {"type": "adaptive", "display": "omitted"},
        {"type": "disabled"},
        {"type": "between_tools"},
    ],
    ids=lambda thinking: thinking["type"],
)
def test_row_24_thinking(
    client: httpx.Client, provider: SimulatedProvider, thinking: dict[str, Any]
) -> None:
    """Every kind of ``thinking`` is forwarded."""
    _forwarded(client, provider, {"thinking": thinking})


def test_row_24_history_that_ends_in_thinking(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """A history may end in an assistant's thinking, signature and redacted data included."""
    thoughts = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmF0dXJl"},
        {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="},
    ]
    messages = [
        {"role": "user", "content": "Think."},
        {"role": "assistant", "content": thoughts},
    ]
    budget = {"type": "enabled", "budget_tokens": 1024}
    _forwarded(client, provider, {"messages": messages, "thinking": budget})


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "auto"},
        {"type": "any", "disable_parallel_tool_use": True},
        {"type": "tool", "name": "t"},
        {"type": "none"},
    ],
    ids=lambda choice: choice["type"],
)
def test_row_25_tool_choice(
    client: httpx.Client, provider: SimulatedProvider, choice: dict[str, Any]
) -> None:
    """Every kind of ``tool_choice`` is forwarded."""
    tools = [{"name": "t", "input_schema": {"type": "object"}}]
    _forwarded(client, provider, {"tools": tools, "tool_choice": choice})


SCHEMA = {"type": "json_schema", "schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    "config", [{"effort": "low"}, {"format": SCHEMA}, {"effort": "max", "format": SCHEMA}]
)
def test_row_26_output_config(
    client: httpx.Client, provider: SimulatedProvider, config: dict[str, Any]
) -> None:
    """``output_config`` is forwarded."""
    _forwarded(client, provider, {"output_config": config})


def test_row_26_legacy_output_format(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``output_format`` is kept, or merged into ``output_config`` as the SDK does."""
    counted(client.post(COUNT, json=question(output_format=SCHEMA)))
    sent = asked(provider)
    assert SCHEMA in (sent.get("output_format"), sent.get("output_config", {}).get("format"))


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"speed": "fast"},
        {"compaction": {"type": "auto"}},
        {"billing_policy": {"type": "standard"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_row_27_other_fields_of_the_schema(
    client: httpx.Client, provider: SimulatedProvider, fields: dict[str, Any]
) -> None:
    """The other fields of the counting schema are forwarded."""
    _forwarded(client, provider, fields)


def test_row_27_context_management(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``context_management`` is forwarded with the beta that the client sent for it."""
    body = question(context_management={"edits": [{"type": "compact_20260112"}]})
    response = client.post(COUNT, json=body, headers={"anthropic-beta": "compact-2026-01-12"})
    assert counted(response) == count_tokens(body)
    assert asked(provider)["context_management"] == body["context_management"]


def test_row_28_mcp_servers(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``mcp_servers`` is forwarded, so that the provider's own refusal reaches the caller."""
    servers = [{"type": "url", "url": "https://example.com/sse", "name": "m"}]
    response = client.post(COUNT, json=question(mcp_servers=servers))
    message = refused(response, 400, "invalid_request_error")
    assert "mcp_servers parameter is not supported on the count_tokens endpoint" in message
    assert asked(provider)["mcp_servers"] == servers


SERVER_TOOLS = (
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
    {"type": "web_fetch_20250910", "name": "web_fetch"},
    {"type": "code_execution_20250825", "name": "code_execution"},
    {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
    {"type": "advisor_20260301", "name": "advisor"},
)


@pytest.mark.parametrize("tool", SERVER_TOOLS, ids=lambda tool: tool["name"])
def test_row_29_server_tools(
    client: httpx.Client, provider: SimulatedProvider, tool: dict[str, Any]
) -> None:
    """Server tools are the provider's to judge: its count and its refusal both come through."""
    body = question("anthropic/claude-opus-5-5", tools=[tool])
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    assert asked(provider)["tools"] == [tool]
    provider.clear()
    provider.behave(status=400)
    older = question("anthropic/claude-opus-4-8", tools=[tool])
    refused(client.post(COUNT, json=older), 400, "invalid_request_error")
    assert asked(provider)["tools"] == [tool]


def test_row_30_deferred_tools(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``defer_loading`` is kept: a deferred tool is another question."""
    tool = {"name": "t", "input_schema": {"type": "object"}}
    body = question(tools=[tool])
    deferred = body | {"tools": [tool | {"defer_loading": True}]}
    assert counted(client.post(COUNT, json=body)) == count_tokens(body)
    assert counted(client.post(COUNT, json=deferred)) == count_tokens(deferred)
    assert provider.calls == 2


def test_row_31_unknown_field(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A field that nobody knows yet is forwarded, and is part of the question."""
    body = question()
    counts = [
        counted(client.post(COUNT, json=body | fields))
        for fields in ({}, {"brand_new": [1, {"a": None}]}, {"brand_new": [1, {"a": 0}]})
    ]
    assert provider.calls == 3
    assert counts[1] == count_tokens(body | {"brand_new": [1, {"a": None}]})


INFERENCE_ONLY = {
    "max_tokens": 2048,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "stop_sequences": ["\n"],
    "stream": True,
    "metadata": {"user_id": "u"},
    "service_tier": "auto",
    "container": "c",
    "user": "u",
    "litellm_metadata": {"user": "u"},
    "safety_identifier": "s",
}


@pytest.mark.parametrize("name", INFERENCE_ONLY)
def test_row_32_fields_of_inference(
    client: httpx.Client, provider: SimulatedProvider, name: str
) -> None:
    """A field that only inference takes is no reason to refuse, nor another question."""
    body = question()
    plain = counted(client.post(COUNT, json=body))
    response = client.post(COUNT, json=body | {name: INFERENCE_ONLY[name]})
    assert counted(response) == plain
    assert response.headers["x-tallygate-source"] == "cache"
    assert name not in asked(provider)


def test_row_32_all_of_them_together(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A whole inference request counts as it is."""
    body = question()
    assert counted(client.post(COUNT, json=body | INFERENCE_ONLY)) == count_tokens(body)
    assert not INFERENCE_ONLY.keys() & asked(provider).keys()


def test_row_33_betas_are_forwarded(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Betas are merged with what the route needs, and none is sent twice."""
    given = f"interleaved-thinking-2025-05-14, context-1m-2025-08-07,{TOKEN_COUNTING}"
    twice = [
        ("anthropic-beta", given),
        ("anthropic-beta", "context-1m-2025-08-07"),
    ]
    headers = [*client.headers.multi_items(), *twice]
    counted(client.post(COUNT, json=question(), headers=headers))
    sent = [beta.strip() for beta in provider.requests[0].headers["anthropic-beta"].split(",")]
    assert sorted(sent) == [
        "context-1m-2025-08-07",
        "interleaved-thinking-2025-05-14",
        TOKEN_COUNTING,
    ]


def test_row_33_betas_are_part_of_the_question(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """Other betas are another question; their order and repetition are not."""
    body = question()
    for betas in ("a-1,b-2", "b-2, a-1", "b-2,a-1,,b-2", "a-1", ""):
        counted(client.post(COUNT, json=body, headers={"anthropic-beta": betas}))
    assert provider.calls == 3


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_row_35_version_is_forwarded(
    client: httpx.Client, provider: SimulatedProvider, version: str
) -> None:
    """The client's ``anthropic-version`` goes on."""
    counted(client.post(COUNT, json=question(), headers={"anthropic-version": version}))
    assert provider.requests[0].headers["anthropic-version"] == version


def test_row_35_version_is_part_of_the_question(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """A body may count under one version and be refused under the other."""
    document = {"type": "document", "source": {"type": "text", "data": "a"}}
    body = question() | {
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [document]},
        ]
    }
    older = client.post(COUNT, json=body, headers={"anthropic-version": "2023-06-01"})
    newer = client.post(COUNT, json=body, headers={"anthropic-version": "2026-10-21"})
    assert counted(older) == count_tokens(body)
    assert "messages.1.content.0" in refused(newer, 400, "invalid_request_error")
    assert provider.calls == 2


def test_row_36_default_version(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Without ``anthropic-version`` a default is sent."""
    counted(client.post(COUNT, json=question()))
    assert provider.requests[0].headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("name", ["anthropic-user-profile-id", "anthropic-workspace-id"])
def test_row_37_identity_headers(
    client: httpx.Client, provider: SimulatedProvider, name: str
) -> None:
    """Profile and workspace go on, and are part of the question."""
    body = question()
    counted(client.post(COUNT, json=body))
    counted(client.post(COUNT, json=body, headers={name: "id-1"}))
    counted(client.post(COUNT, json=body, headers={name: "id-2"}))
    assert [one.headers.get(name) for one in provider.requests] == [None, "id-1", "id-2"]


def test_row_37_no_other_header_goes_on(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Nothing else that a client sends reaches the provider: no cookie, no key, no address."""
    private = {"cookie": "c=1", "x-forwarded-for": "10.0.0.1", "x-custom": "v", "referer": "r"}
    counted(client.post(COUNT, json=question(), headers=private))
    sent = provider.requests[0].headers
    assert not private.keys() & sent.keys()
    assert KEY not in str(sent)


def _own(token: str) -> dict[str, str]:
    return {"x-litellm-api-key": KEY, "authorization": f"Bearer {token}"}


def test_row_38_callers_own_token(
    server: Tallygate, client: httpx.Client, provider: SimulatedProvider
) -> None:
    """A deployment without a key asks with the caller's token: as Bearer, and never logged."""
    token = "sk-ant-oat01-the-callers-own"
    response = client.post(COUNT, json=question("keyless"), headers=_own(token))
    counted(response)
    (sent,) = provider.requests
    assert sent.headers["authorization"] == f"Bearer {token}"
    assert "oauth-2025-04-20" in sent.headers["anthropic-beta"]
    assert "x-api-key" not in sent.headers
    event(server, response.headers["request-id"])
    assert token not in server.out.read_text() + server.err.read_text()


def test_row_38_own_token_is_a_scope_of_its_own(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """What was counted with one caller's token is no answer for another's."""
    body = question("keyless")
    sources = [
        client.post(COUNT, json=body, headers=_own(f"sk-ant-oat01-{who}")).headers[
            "x-tallygate-source"
        ]
        for who in ("ann", "bob", "ann")
    ]
    assert sources == ["live", "live", "cache"]
    assert refused(client.post(COUNT, json=body), 502, "api_error")
    assert provider.calls == 2


def test_row_38_deployments_key_goes_first(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """A deployment with a key of its own is asked with that key."""
    counted(client.post(COUNT, json=question(), headers=_own("sk-ant-oat01-the-callers-own")))
    (sent,) = provider.requests
    assert sent.headers["x-api-key"] == UPSTREAM_KEY
    assert "authorization" not in sent.headers
    assert "oauth" not in sent.headers.get("anthropic-beta", "")


@pytest.mark.parametrize(
    "fields",
    [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
                    ],
                }
            ]
        },
        {"tools": [{"type": "custom", "custom": {"name": "t", "input_schema": {}}}]},
    ],
    ids=["image_url", "custom-wrapper"],
)
def test_row_39_other_formats(
    client: httpx.Client, provider: SimulatedProvider, fields: dict[str, Any]
) -> None:
    """What is not Anthropic's format is the provider's to judge; nothing is turned into it."""
    body = question(**fields)
    response = client.post(COUNT, json=body)
    if response.status_code != 200:
        refused(response, 400, "invalid_request_error")
    assert asked(provider) | {"model": MODEL} == body
