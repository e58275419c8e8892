"""Every failure in Anthropic's shape, with the status that lets a client do the right thing: rows
40 to 61."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    BEARER,
    COUNT,
    FAILURES_STAND_ALONE,
    JSON,
    MODEL,
    NATIVE,
    Connection,
    anthropic,
    counted,
    event,
    model_list,
    question,
    refused,
    request,
    until,
)
from tests.server import KEY, Tallygate

UPSTREAM_KEY = "sk-ant-api03-upstream"
LIMITED = {"authorization": "Bearer sk-limited-0123456789"}
MAX_BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def refusing_url() -> Iterator[str]:
    """An address that refuses every connection."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(scope="module")
def server(
    start: Callable[..., Tallygate], provider: SimulatedProvider, refusing_url: str
) -> Tallygate:
    """Deployments by the dozen: a fault may close one for a while, and is no other's concern."""
    base = provider.url
    spare = {f"spare-{number}": anthropic("claude-spare", base) for number in range(60)}
    return start(
        {
            "model_list": model_list(
                **{
                    MODEL: anthropic("claude-3-5-sonnet-20241022", base),
                    "impatient": anthropic("claude-impatient", base, timeout=0.5),
                    "refusing": anthropic("claude-refusing", refusing_url),
                    "nonexistent": anthropic("claude-nonexistent", base),
                    "with-fallback": anthropic("claude-fallback", base, fallback="estimate"),
                    "one-a-minute": anthropic("claude-rpm", base, rpm=1),
                    **spare,
                }
            ),
            "general_settings": {"master_key": KEY},
            "server": {"max_body_bytes": MAX_BODY_BYTES},
            "pass_through": {"caller_key": True},
            "limits": FAILURES_STAND_ALONE,
            "keys": [{"name": "limited", "key": "sk-limited-0123456789", "models": ["spare-0"]}],
        }
    )


@pytest.fixture(scope="module")
def _spares() -> Iterator[str]:
    return (f"spare-{number}" for number in range(1, 60))


@pytest.fixture
def spare(_spares: Iterator[str]) -> str:
    """Name a deployment that no other test asks."""
    return next(_spares)


@pytest.mark.parametrize(
    "body", [b"", b"  \n", b"{}", b'{"messages":[{"role":"user","content":"a"}]}']
)
def test_row_40_no_model(client: httpx.Client, body: bytes) -> None:
    """Without a model, or without a body: 400 that names ``model``."""
    response = client.post(COUNT, content=body, headers=JSON)
    assert "model" in refused(response, 400, "invalid_request_error")


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (None, "Field required"),
        (b"[]", "must not be empty"),
        (b'"hi"', "array"),
        (b'{"role":"user"}', "array"),
        (b"null", "array"),
    ],
)
def test_row_41_no_messages(client: httpx.Client, messages: bytes | None, problem: str) -> None:
    """Without messages, or with none: 400 that names ``messages`` and what is wrong."""
    given = b"" if messages is None else b',"messages":%b' % messages
    body = b'{"model":"%b"%b}' % (MODEL.encode(), given)
    response = client.post(COUNT, content=body, headers=JSON)
    message = refused(response, 400, "invalid_request_error")
    assert message.startswith("messages: ")
    assert problem in message


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":',
        b'{"model":"a","messages":[]',
        '{"model":"a"}'.encode("utf-16"),
        b'{"model":"\xff"}',
        b"[]",
        b"7",
        b'"text"',
        b"null",
    ],
)
def test_row_42_no_json_object(
    client: httpx.Client, provider: SimulatedProvider, body: bytes
) -> None:
    """Malformed JSON, another encoding, or another kind of value: 400."""
    refused(client.post(COUNT, content=body, headers=JSON), 400, "invalid_request_error")
    assert provider.calls == 0


@pytest.mark.parametrize("path", [COUNT, NATIVE, "/v1/models"])
def test_row_43_no_key(stranger: httpx.Client, provider: SimulatedProvider, path: str) -> None:
    """No key: 401 authentication_error, before anything else is looked at."""
    method = "GET" if path == "/v1/models" else "POST"
    response = stranger.request(method, path, content=b"{", headers=JSON)
    refused(response, 401, "authentication_error")
    assert provider.calls == 0


@pytest.mark.parametrize("header", ["x-api-key", "x-litellm-api-key", "authorization"])
@pytest.mark.parametrize("key", ["sk-wrong", KEY[:-1], KEY + "0", KEY.upper(), ""])
def test_row_44_wrong_key(stranger: httpx.Client, header: str, key: str) -> None:
    """A wrong key: 401 authentication_error."""
    value = f"Bearer {key}".strip() if header == "authorization" else key
    response = stranger.post(COUNT, json=question(), headers={header: value})
    assert key not in refused(response, 401, "authentication_error") or not key


def test_row_45_key_without_permission(
    client: httpx.Client, stranger: httpx.Client, provider: SimulatedProvider
) -> None:
    """A key may count with its own models only, cached or not; 403 permission_error."""
    body = question()
    counted(client.post(COUNT, json=body))
    refused(stranger.post(COUNT, json=body, headers=LIMITED), 403, "permission_error")
    native = question("claude-3-5-sonnet-20241022")
    refused(stranger.post(NATIVE, json=native, headers=LIMITED), 403, "permission_error")
    assert provider.calls == 1
    assert counted(stranger.post(COUNT, json=question("spare-0"), headers=LIMITED))


@pytest.mark.parametrize("model", ["nope-model", "claude-3-5", "anthropic/claude-x", "Spare-0"])
def test_row_46_unknown_model(
    client: httpx.Client, provider: SimulatedProvider, model: str
) -> None:
    """A name that the configuration does not know: 404 that says which, and nobody is asked."""
    response = client.post(COUNT, json=question(model))
    assert model in refused(response, 404, "not_found_error")
    assert provider.calls == 0


def test_row_47_known_but_not_counted(client: httpx.Client) -> None:
    """A configured model that the provider cannot count: its 404, never a 501 and never a 200."""
    response = client.post(COUNT, json=question("nonexistent"))
    assert "claude-nonexistent" in refused(response, 404, "not_found_error")


def test_row_48_no_estimate_unasked(
    client: httpx.Client, provider: SimulatedProvider, spare: str
) -> None:
    """A provider's failure is a failure."""
    provider.behave(status=500)
    refused(client.post(COUNT, json=question(spare)), 500, "api_error")


def test_row_48_estimate_where_configured(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """With ``fallback: estimate`` an estimate stands in, marked, and is never remembered."""
    body = question("with-fallback")
    provider.behave(status=500, times=4)
    estimate = client.post(COUNT, json=body)
    assert counted(estimate)
    assert estimate.headers["x-tallygate-source"] == "estimate"
    assert "stored" not in estimate.headers["cache-status"]
    provider.clear()
    again = client.post(COUNT, json=body)
    assert counted(again)
    assert again.headers["x-tallygate-source"] != "cache"


@pytest.mark.parametrize("size", [MAX_BODY_BYTES, MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES])
def test_row_49_body_over_the_limit(
    server: Tallygate, provider: SimulatedProvider, size: int
) -> None:
    """A body over ``max_body_bytes``: 413 request_too_large, and nobody is asked."""
    body = msgspec.json.encode(question(system=""))
    body = body.replace(b'"system":""', b'"system":"%b"' % (b"x" * (size - len(body))))
    with Connection(server.port) as connection:
        connection.send(request(body))
        response = connection.read()
    if size <= MAX_BODY_BYTES:
        assert counted(response)
    else:
        refused(response, 413, "request_too_large")
        assert provider.calls == 0


@pytest.mark.parametrize(
    ("status", "type_"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (409, "conflict_error"),
        (413, "request_too_large"),
    ],
)
def test_row_50_refusals_come_through(
    client: httpx.Client, provider: SimulatedProvider, status: int, type_: str
) -> None:
    """The caller's own fault: the provider's status, type and words, and its id beside ours."""
    error = {"type": type_, "message": "messages.0: too big", "details": {"error_code": "x"}}
    reply = {"type": "error", "error": error, "request_id": "req_of_the_provider"}
    provider.behave(status=status, body=reply)
    response = client.post(COUNT, json=question())
    assert refused(response, status, type_) == error["message"]
    assert response.json()["error"] == error
    assert response.json()["request_id"] != "req_of_the_provider"
    assert "req_of_the_provider" in response.headers.values()


def test_row_51_rate_limit(client: httpx.Client, provider: SimulatedProvider, spare: str) -> None:
    """429 rate_limit_error with the provider's ``retry-after`` and limits, and no second try."""
    provider.behave(status=429, headers={"retry-after": "7"})
    response = client.post(COUNT, json=question(spare))
    refused(response, 429, "rate_limit_error")
    assert response.headers["retry-after"] == "7"
    assert response.headers["anthropic-ratelimit-requests-limit"] == "5000"
    assert response.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert provider.calls == 1


@pytest.mark.parametrize("value", ["86400", "-1", "soon", "1e9", "inf", "nan"])
def test_row_51_no_unreasonable_wait(
    client: httpx.Client, provider: SimulatedProvider, spare: str, value: str
) -> None:
    """Clients sleep for whatever they are told, so they are told nothing beyond an hour."""
    provider.behave(status=429, headers={"retry-after": value})
    response = client.post(COUNT, json=question(spare))
    refused(response, 429, "rate_limit_error")
    assert response.headers.get("retry-after") != value


FAILURES = {
    500: (500, "api_error"),
    503: (529, "overloaded_error"),
    529: (529, "overloaded_error"),
    504: (504, "timeout_error"),
}


@pytest.mark.parametrize("reply", [{}, {"body": "<html>oops</html>"}], ids=["its-own", "html"])
@pytest.mark.parametrize("upstream_status", FAILURES)
def test_row_52_failing_provider(
    client: httpx.Client,
    provider: SimulatedProvider,
    spare: str,
    upstream_status: int,
    reply: dict[str, str],
) -> None:
    """The provider's failures, whatever they look like, in Anthropic's words."""
    provider.behave(status=upstream_status, **reply)
    refused(client.post(COUNT, json=question(spare)), *FAILURES[upstream_status])


def test_row_52_silent_provider(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A provider that never answers: 504 at the deployment's ``timeout``."""
    provider.behave(hang=True)
    response = client.post(COUNT, json=question("impatient"))
    refused(response, 504, "timeout_error")


def test_row_52_refused_connection(client: httpx.Client) -> None:
    """Nobody there: 502 api_error, without the address."""
    response = client.post(COUNT, json=question("refusing"))
    assert "127.0.0.1" not in refused(response, 502, "api_error")


@pytest.mark.parametrize("fault", [{"reset": True}, {"raw": ""}, {"truncate_bytes": -3}])
def test_row_52_broken_connection(
    client: httpx.Client, provider: SimulatedProvider, spare: str, fault: dict[str, Any]
) -> None:
    """A connection that breaks before or within the reply: 502 api_error, never a number."""
    provider.behave(**fault)
    refused(client.post(COUNT, json=question(spare)), 502, "api_error")


NATIVE_ID = "claude-3-5-sonnet-20241022"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("path", "model"), [(COUNT, MODEL), (NATIVE, NATIVE_ID)])
def test_row_53_operators_credential(
    client: httpx.Client, provider: SimulatedProvider, status: int, path: str, model: str
) -> None:
    """The operator's bad key is never the caller's: 502, neutral, and not worth a retry."""
    provider.behave(status=status)
    elsewhere = {"x-forwarded-for": "10.0.0.1"}
    response = client.post(path, json=question(model), headers=elsewhere)
    message = refused(response, 502, "api_error")
    assert message == "upstream provider rejected the proxy's request"
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", [401, 403])
def test_row_53_is_told_to_the_operator(
    server: Tallygate, client: httpx.Client, provider: SimulatedProvider, status: int
) -> None:
    """The operator finds the reason in the log and in the event, and on this machine at once."""
    provider.behave(status=status)
    response = client.post(COUNT, json=question())
    assert f"status {status}" in refused(response, 502, "api_error")
    assert f"status {status}" in event(server, response.headers["request-id"])["reason"]
    assert f"status {status}" in server.err.read_text()


def test_row_53_callers_credential(stranger: httpx.Client, provider: SimulatedProvider) -> None:
    """The caller's own bad key on the pass-through is the caller's: 401 as the provider says."""
    headers = {"x-litellm-api-key": KEY, "x-api-key": "sk-ant-invalid"}
    response = stranger.post(NATIVE, json=question("claude-3-5-sonnet-20241022"), headers=headers)
    assert refused(response, 401, "authentication_error") == "invalid x-api-key"
    assert provider.requests[0].headers["x-api-key"] == "sk-ant-invalid"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "{}",
        "[]",
        "7",
        "null",
        "<html></html>",
        '{"input_tokens":',
        '{"tokens":12}',
        '{"input_tokens":null}',
        '{"input_tokens":true}',
        '{"input_tokens":"12"}',
        '{"input_tokens":[12]}',
        '{"input_tokens":12.0}',
        '{"input_tokens":12.5}',
        '{"input_tokens":1e3}',
        '{"input_tokens":0}',
        '{"input_tokens":-1}',
        '{"input_tokens":9223372036854775808}',
        '{"input_tokens":12}}',
        '\ufeff{"input_tokens":12}',
        '{"type":"error","error":{"type":"api_error","message":"m"}}',
    ],
)
def test_row_54_no_count_in_the_reply(
    client: httpx.Client, provider: SimulatedProvider, spare: str, reply: str
) -> None:
    """A 200 that holds no count is 502 api_error, never a number, and never remembered."""
    body = question(spare)
    provider.behave(status=200, body=reply)
    refused(client.post(COUNT, json=body), 502, "api_error")
    provider.clear()
    recovered = client.post(COUNT, json=body)
    assert recovered.headers.get("x-tallygate-source") != "cache"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_row_54_redirect(
    client: httpx.Client, provider: SimulatedProvider, spare: str, status: int
) -> None:
    """A redirect is no count, and is not followed."""
    provider.behave(status=status, body="", headers={"location": f"{provider.url}{COUNT}"})
    refused(client.post(COUNT, json=question(spare)), 502, "api_error")
    assert provider.calls == 1


def test_row_58_other_method(client: httpx.Client) -> None:
    """GET: 405 that says what is allowed."""
    response = client.get(COUNT)
    refused(response, 405, "invalid_request_error")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v1", "/v1/messages/count", "/v1/complete", "/uis", "/docs/v1"])
def test_row_58_unknown_path(client: httpx.Client, path: str) -> None:
    """An unknown path: 404 not_found_error."""
    refused(client.post(path, json=question()), 404, "not_found_error")


def test_row_58_messages_path_says_how_to_route_it(client: httpx.Client) -> None:
    """``/v1/messages`` is another server's: 404 that says so."""
    message = refused(client.post("/v1/messages", json=question()), 404, "not_found_error")
    assert COUNT in message


@pytest.mark.parametrize("path", [COUNT, NATIVE])
def test_row_58_trailing_slash(client: httpx.Client, path: str) -> None:
    """A trailing slash is served or unknown; a POST is never redirected."""
    response = client.post(f"{path}/", json=question("claude-3-5-sonnet-20241022"))
    if response.status_code != 200:
        refused(response, 404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", COUNT, msgspec.json.encode(question())),
        ("POST", COUNT, b"{"),
        ("POST", COUNT, msgspec.json.encode(question("nobody"))),
        ("POST", "/nowhere", b""),
        ("GET", COUNT, b""),
        ("GET", "/v1/models", b""),
        ("GET", "/health/liveliness", b""),
    ],
    ids=["count", "bad-json", "unknown-model", "unknown-path", "method", "models", "health"],
)
def test_row_59_request_id(client: httpx.Client, method: str, path: str, body: bytes) -> None:
    """Every response has a ``request-id`` of its own, the same in an error's body."""
    answers = [client.request(method, path, content=body, headers=JSON) for _twice in range(2)]
    ids = {answer.headers["request-id"] for answer in answers}
    assert len(ids) == 2
    assert all(one.startswith("req_") for one in ids)
    for answer in answers:
        if answer.status_code >= 400:
            assert answer.json()["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize("body", [msgspec.json.encode(question()), b"{"], ids=["count", "refusal"])
def test_row_59_callers_request_id(server: Tallygate, client: httpx.Client, body: bytes) -> None:
    """An incoming ``x-request-id`` is echoed, and linked to ours in the event."""
    headers = JSON | {"x-request-id": "trace-59"}
    response = client.post(COUNT, content=body, headers=headers)
    assert response.headers["x-request-id"] == "trace-59"
    record = event(server, response.headers["request-id"])
    assert record["client_request_id"] == "trace-59"


def test_row_60_budget_of_a_deployment(client: httpx.Client, provider: SimulatedProvider) -> None:
    """What a deployment's ``rpm`` does not allow is refused with the time to wait, and not sent."""
    counted(client.post(COUNT, json=question("one-a-minute")))
    response = client.post(COUNT, json=question("one-a-minute"))
    assert response.status_code in {429, 529}
    assert 0 < float(response.headers["retry-after"]) <= 60
    assert response.headers.get("x-should-retry") != "true" or (
        float(response.headers["retry-after"]) <= 30
    )
    refused(response, response.status_code, response.json()["error"]["type"])
    assert provider.calls == 1


def test_row_60_misses_of_one_key(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    """A key with its misses in flight is told to wait; hits and other keys are not."""
    one = {"name": "one", "key": "sk-one-0123456789", "max_parallel_misses": 1}
    server = start(
        {"model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}), "keys": [one]}
    )
    body = question()
    counted(server.count(body))
    provider.behave(delay_s=2)
    with Connection(server.port) as slow:
        first = request(msgspec.json.encode(question())).replace(
            BEARER["authorization"].encode(), b"Bearer sk-one-0123456789"
        )
        slow.send(first)
        until(lambda: provider.calls == 2)
        refusal = server.count(question(), authorization="Bearer sk-one-0123456789")
        assert refusal.status_code in {429, 529}
        assert float(refusal.headers["retry-after"]) > 0
        assert counted(server.count(body, authorization="Bearer sk-one-0123456789"))
        assert counted(server.count(question()))


@pytest.mark.parametrize("status", [400, 404, 500])
def test_row_61_no_secret_in_an_error(
    client: httpx.Client, provider: SimulatedProvider, spare: str, status: int
) -> None:
    """A provider's error text that repeats our credential does not carry it to the caller."""
    error = {"type": "api_error", "message": f"Bearer {UPSTREAM_KEY} is not well-formed"}
    provider.behave(status=status, body={"type": "error", "error": error})
    response = client.post(COUNT, json=question(spare))
    assert response.status_code == status
    assert UPSTREAM_KEY not in response.text
