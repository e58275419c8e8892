"""What is told of each count, and to whom: rows 19 to 21."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    COUNT,
    JSON,
    MODEL,
    NATIVE,
    PATIENCE_S,
    anthropic,
    counted,
    event,
    model_list,
    question,
)
from tests.server import KEY, Tallygate

DOCUMENTED = "claude-3-5-sonnet-20241022"


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Tallygate:
    """One deployment for each refusal, so that none stands in another's way."""
    names = (MODEL, "fails-400", "fails-401", "fails-404")
    return start(
        {
            "model_list": model_list(**{one: anthropic(DOCUMENTED, provider.url) for one in names}),
            "general_settings": {
                "master_key": KEY,
                "user_header_mappings": [
                    {"header_name": "X-Person", "litellm_user_role": "customer"}
                ],
            },
        }
    )


SECRET_WORD = "heliotrope"


def test_row_19_event_of_a_count(server: Tallygate, client: httpx.Client) -> None:
    """A count is one event: who asked about what, who answered, how long it took."""
    tool = {"name": SECRET_WORD, "input_schema": {"title": SECRET_WORD}}
    body = question(system=SECRET_WORD, tools=[tool], metadata={"user_id": "u-19"})
    response = client.post(COUNT, json=body, headers={"user-agent": "some-sdk/1.0"})
    record = event(server, response.headers["request-id"])
    duration_ms = record.pop("duration_ms")
    assert duration_ms >= record.pop("upstream_from_ms") + record.pop("upstream_ms") > 0
    assert time.time() - 3600 < record.pop("time_s") <= time.time()
    assert record.pop("body_bytes") == len(response.request.content)
    assert record == {
        "event": "count",
        "request_id": response.headers["request-id"],
        "status": 200,
        "route": "messages",
        "source": "live",
        "input_tokens": counted(response),
        "caller": "master",
        "end_user": "u-19",
        "alias": MODEL,
        "model": MODEL,
        "provider": "anthropic",
        "upstream_model": DOCUMENTED,
        "deployment": f"{MODEL}[0]",
        "upstream_calls": 1,
        "user_agent": "some-sdk/1.0",
    }
    assert SECRET_WORD not in server.out.read_text() + server.err.read_text()


REFUSALS = {
    400: (400, "invalid_request_error"),
    404: (404, "not_found_error"),
    401: (502, "api_error"),
}


@pytest.mark.parametrize("upstream_status", REFUSALS)
def test_row_19_event_of_a_refusal(
    server: Tallygate,
    client: httpx.Client,
    provider: SimulatedProvider,
    upstream_status: int,
) -> None:
    """A provider's refusal is one event with its type, and a reason that quotes nothing."""
    status, type_ = REFUSALS[upstream_status]
    error = {"type": "error", "error": {"type": type_, "message": f"bad {SECRET_WORD}"}}
    provider.behave(status=upstream_status, body=error)
    response = client.post(COUNT, json=question(f"fails-{upstream_status}", user="u-19"))
    record = event(server, response.headers["request-id"])
    assert record["status"] == response.status_code == status
    assert record["error_type"] == type_
    assert str(upstream_status) in record["reason"]
    assert record["end_user"] == "u-19"
    assert record["provider"] == "anthropic"
    assert "input_tokens" not in record
    assert "source" not in record
    assert SECRET_WORD not in server.out.read_text() + server.err.read_text()


@pytest.mark.parametrize(
    ("key", "body", "type_"),
    [
        ("sk-wrong", b"{}", "authentication_error"),
        (KEY, b'{"model":', "invalid_request_error"),
        (KEY, msgspec.json.encode(question("nobody")), "not_found_error"),
    ],
    ids=["wrong-key", "bad-json", "unknown-model"],
)
def test_row_19_event_before_any_provider(
    server: Tallygate, stranger: httpx.Client, key: str, body: bytes, type_: str
) -> None:
    """Requests that reach no provider are events too."""
    response = stranger.post(COUNT, content=body, headers=JSON | {"x-api-key": key})
    record = event(server, response.headers["request-id"])
    assert record["status"] == response.status_code
    assert record["error_type"] == response.json()["error"]["type"] == type_
    assert "upstream_calls" not in record


def test_row_19_webhook(start: Callable[..., Tallygate], provider: SimulatedProvider) -> None:
    """A configured webhook is told of every count."""
    server = start(
        {
            "model_list": model_list(**{MODEL: anthropic(DOCUMENTED, provider.url)}),
            "telemetry": {"webhook": {"url": f"{provider.url}/hook"}},
        }
    )
    response = server.count(question())
    told = _received(provider, "/hook", response.headers["request-id"])
    assert b'"input_tokens"' in told


def test_row_19_otlp(start: Callable[..., Tallygate], provider: SimulatedProvider) -> None:
    """A configured OTLP collector receives a span for every count."""
    server = start(
        {
            "model_list": model_list(**{MODEL: anthropic(DOCUMENTED, provider.url)}),
            "telemetry": {"otlp": {"endpoint": provider.url}},
        }
    )
    response = server.count(question())
    told = _received(provider, "/v1/traces", response.headers["request-id"])
    assert f"count_tokens {MODEL}".encode() in told


PLACES: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({"x-litellm-customer-id": "h1"}, {}),
    ({"x-litellm-end-user-id": "h2"}, {}),
    ({"x-person": "h3"}, {}),
    ({}, {"user": "b1"}),
    ({}, {"litellm_metadata": {"user": "b2"}}),
    ({}, {"metadata": {"user_id": "b3"}}),
    ({}, {"safety_identifier": "b4"}),
]


@pytest.mark.parametrize("place", range(len(PLACES)))
def test_row_20_end_user_in_litellms_order(
    server: Tallygate, client: httpx.Client, place: int
) -> None:
    """The end user is found in each of LiteLLM's places, the first in its order deciding."""
    headers: dict[str, str] = {}
    fields: dict[str, Any] = {}
    for more_headers, more_fields in PLACES[place:]:
        headers |= more_headers
        fields |= more_fields
    response = client.post(COUNT, json=question(**fields), headers=headers)
    counted(response)
    assert event(server, response.headers["request-id"])["end_user"] == next(
        iter((PLACES[place][0] or {"": _innermost(PLACES[place][1])}).values())
    )


@pytest.mark.parametrize("name", ["metadata", "litellm_metadata"])
def test_row_20_metadata_as_a_string(server: Tallygate, client: httpx.Client, name: str) -> None:
    """Metadata may be a string that holds JSON."""
    inner = {"metadata": "user_id", "litellm_metadata": "user"}[name]
    body = question(**{name: f'{{"{inner}":"s-20"}}'})
    response = client.post(COUNT, json=body)
    counted(response)
    assert event(server, response.headers["request-id"])["end_user"] == "s-20"


def test_row_20_end_user_of_hits_and_of_the_pass_through(
    server: Tallygate, client: httpx.Client
) -> None:
    """Every event has its own end user: a repeat's, and the pass-through's."""
    body = question()
    client.post(COUNT, json=body | {"user": "first"})
    hit = client.post(COUNT, json=body | {"user": "second"})
    assert hit.headers["x-tallygate-source"] == "cache"
    assert event(server, hit.headers["request-id"])["end_user"] == "second"
    native = client.post(NATIVE, json=question(DOCUMENTED), headers={"x-person": "third"})
    assert event(server, native.headers["request-id"])["end_user"] == "third"


def test_row_20_hashed_if_so_configured(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    """With ``hash_end_users`` one person keeps one pseudonym, and no name is told."""
    server = start(
        {
            "model_list": model_list(**{MODEL: anthropic(DOCUMENTED, provider.url)}),
            "telemetry": {"hash_end_users": True},
        }
    )
    first, other, again = (
        event(server, server.count(question(user=user)).headers["request-id"])["end_user"]
        for user in ("ann@example.com", "bob@example.com", "ann@example.com")
    )
    assert first == again != other
    assert "@example.com" not in server.out.read_text() + server.err.read_text()


def test_row_21_no_cost(server: Tallygate, client: httpx.Client) -> None:
    """A count costs nothing: neither its event nor a metric speaks of cost or consumed usage."""
    response = client.post(COUNT, json=question())
    told = event(server, response.headers["request-id"]).keys() | response.headers.keys()
    metrics = client.get("/metrics").text
    for word in ("cost", "spend", "price", "usage"):
        assert not [name for name in told if word in name]
        assert word not in metrics


def _innermost(fields: dict[str, Any]) -> Any:
    (value,) = fields.values()
    return _innermost(value) if isinstance(value, dict) else value


def _received(provider: SimulatedProvider, path: str, text: str) -> bytes:
    """Wait until something was sent to ``path`` that holds the text."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for one in provider.requests:
            if one.path == path and text.encode() in one.body:
                return one.body
        time.sleep(0.05)
    raise AssertionError(f"nothing about {text} came to {path}")
