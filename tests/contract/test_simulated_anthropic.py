"""The simulated provider, seen through the official SDK and through plain sockets."""

import asyncio
import copy
import http.client
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import pytest

from bench.provider import Request, SimulatedProvider, count_tokens

ROOT = Path(__file__).parents[2]
WIRE = ROOT / "tests" / "fixtures" / "wire"
COUNT = "/v1/messages/count_tokens"
HEADERS = {"x-api-key": "sk-ant-test", "anthropic-version": "2023-06-01"}
STRICT = HEADERS | {"anthropic-version": "2026-10-21"}
CONTEXT_BETA = "context-management-2025-06-27"
EDITS: Any = {"edits": [{"type": "clear_tool_uses_20250919"}]}


def load(kind: str, name: str) -> dict[str, Any]:
    return msgspec.json.decode((WIRE / kind / f"{name}.json").read_bytes(), type=dict[str, Any])


SIMPLE = load("inputs", "01_simple")
TOOLS = load("inputs", "04_tools")


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def sdk() -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="sk-ant-test", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def client(sdk: anthropic.Anthropic, provider: SimulatedProvider) -> anthropic.Anthropic:
    return sdk.with_options(base_url=provider.url)


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: Any


def ask(
    url: str,
    question: object,
    headers: dict[str, str] = HEADERS,
    *,
    target: str = COUNT,
    method: str = "POST",
) -> Answer:
    body = question if isinstance(question, bytes) else msgspec.json.encode(question)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, msgspec.json.decode(response.read()))
    finally:
        connection.close()


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def request_bytes(question: object = SIMPLE, *lines: str, target: str = COUNT) -> bytes:
    body = msgspec.json.encode(question)
    head = [f"POST {target} HTTP/1.1", "host: simulated", f"content-length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in HEADERS.items()]
    return ("\r\n".join([*head, *lines]) + "\r\n\r\n").encode() + body


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def talk(url: str, data: bytes) -> bytes:
    with connect(url) as sock:
        sock.sendall(data)
        return read_to_end(sock)


def wait_for_call(provider: SimulatedProvider) -> None:
    while not provider.calls:
        time.sleep(0.001)


def is_silent(sock: socket.socket) -> bool:
    return not select.select([sock], [], [], 0.05)[0]


def assert_is_capture(request: Request, capture: dict[str, Any]) -> None:
    """Compare with a recorded request of the SDK, whose ``<PLACEHOLDERS>`` stand for any text."""
    assert (request.method, request.path) == (capture["method"], capture["path"])
    assert request.query == capture["query"]
    assert request.headers.keys() == capture["headers"].keys()
    for name, value in capture["headers"].items():
        expected = value.replace(capture["sdk_version"], anthropic.__version__)
        pattern = re.sub(r"<[A-Z_]+>", ".+", re.escape(expected))
        assert re.fullmatch(pattern, request.headers[name]), name
    assert msgspec.json.decode(request.body) == capture["body"]
    assert len(request.body) == capture["body_bytes"]


@pytest.mark.parametrize(
    "name", ["01_simple", "02_system", "03_multi_turn", "04_tools", "05_image_base64"]
)
def test_sdk_counts(provider: SimulatedProvider, client: anthropic.Anthropic, name: str) -> None:
    question = load("inputs", name)
    reply = client.messages.count_tokens(**question)
    assert reply.input_tokens == count_tokens(question)
    assert reply._request_id is not None
    assert reply._request_id.startswith("req_sim_")
    assert_is_capture(provider.requests[0], load("captures", f"anthropic__messages__{name}"))


def test_documented_example_counts_14(client: anthropic.Anthropic) -> None:
    assert client.messages.count_tokens(**SIMPLE).input_tokens == 14


def test_async_sdk_counts(provider: SimulatedProvider) -> None:
    async def count() -> int:
        async with anthropic.AsyncAnthropic(
            api_key="sk-ant-test", base_url=provider.url, max_retries=0
        ) as client:
            return (await client.messages.count_tokens(**SIMPLE)).input_tokens

    assert asyncio.run(count()) == 14
    assert_is_capture(
        provider.requests[0], load("captures", "anthropic_async__messages__01_simple")
    )


def test_sdk_with_auth_token(provider: SimulatedProvider) -> None:
    with anthropic.Anthropic(
        auth_token="sk-ant-test", base_url=provider.url, max_retries=0
    ) as client:
        assert client.messages.count_tokens(**SIMPLE).input_tokens == 14
    assert_is_capture(
        provider.requests[0], load("captures", "anthropic_auth_token__messages__01_simple")
    )


@pytest.mark.parametrize("name", ["01_simple", "04_tools"])
def test_sdk_beta_counts_with_context_management(
    provider: SimulatedProvider, client: anthropic.Anthropic, name: str
) -> None:
    question = load("inputs", name) | {"context_management": EDITS}
    reply = client.beta.messages.count_tokens(**question, betas=[CONTEXT_BETA])
    assert reply.input_tokens == count_tokens(question)
    assert reply.context_management is not None
    assert reply.context_management.original_input_tokens == reply.input_tokens
    assert_is_capture(provider.requests[0], load("captures", f"anthropic_beta__messages__{name}"))


def test_beta_reply_has_null_context_management_and_the_other_has_none(
    client: anthropic.Anthropic,
) -> None:
    beta = client.beta.messages.with_raw_response.count_tokens(**SIMPLE)
    assert beta.read() == b'{"input_tokens":14,"context_management":null}'
    plain = client.messages.with_raw_response.count_tokens(**SIMPLE)
    assert plain.read() == b'{"input_tokens":14}'


@pytest.mark.parametrize(
    "name",
    [
        "anthropic_v0__messages__04_tools",
        "anthropic_v0_beta__messages__01_simple",
        "anthropic_v1__messages__04_tools",
        "anthropic_v1__messages__08_unicode",
    ],
)
def test_requests_of_earlier_sdks_are_counted(provider: SimulatedProvider, name: str) -> None:
    capture = load("captures", name)
    target = COUNT + (f"?{capture['query']}" if capture["query"] else "")
    sent = {n: v for n, v in capture["headers"].items() if n not in ("host", "content-length")}
    answer = ask(provider.url, capture["body"], sent, target=target)
    assert (answer.status, answer.body["input_tokens"]) == (200, count_tokens(capture["body"]))
    assert ("context_management" in answer.body) == ("beta" in name)


def changes(value: Any) -> Iterator[Any]:
    """Every copy of a JSON value in which one thing, at any depth, is changed, gone or added."""
    if isinstance(value, dict):
        yield value | {"new": 1}
        for name in value:
            yield {key: item for key, item in value.items() if key != name}
            yield from (value | {name: changed} for changed in changes(value[name]))
    elif isinstance(value, list):
        yield [*value, "new"]
        for index, item in enumerate(value):
            yield value[:index] + value[index + 1 :]
            yield from ([*value[:index], one, *value[index + 1 :]] for one in changes(item))
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield value.swapcase()
        yield value + "s"


def test_count_notices_every_single_change() -> None:
    question = {name: value for name, value in TOOLS.items() if name != "model"}
    numbers = [count_tokens(changed) for changed in changes(question)]
    assert len(numbers) > 100
    assert count_tokens(question) not in numbers


def test_count_of_numbers_beyond_64_bits_is_exact() -> None:
    assert count_tokens({"n": 10**30}) != count_tokens({"n": 10**30 + 1})


def test_count_ignores_what_a_provider_cannot_see(provider: SimulatedProvider) -> None:
    question = TOOLS | {"system": "café"}
    spellings = [
        msgspec.json.encode(question),
        msgspec.json.format(msgspec.json.encode(question), indent=4),
        msgspec.json.encode(dict(reversed(question.items()))),
        msgspec.json.encode(question | {"model": "another"}),
        msgspec.json.encode(question).replace("é".encode(), rb"\u00e9"),
    ]
    assert len(set(spellings)) == 5
    answers = {ask(provider.url, body).body["input_tokens"] for body in spellings}
    assert answers == {count_tokens(question)}


def test_count_sees_the_order_inside_a_schema() -> None:
    other = copy.deepcopy(TOOLS)
    schema = other["tools"][0]["input_schema"]
    other["tools"][0]["input_schema"] = dict(reversed(schema.items()))
    assert count_tokens(other) != count_tokens(TOOLS)


def block(**fields: Any) -> dict[str, Any]:
    return SIMPLE | {"messages": [{"role": "user", "content": [fields]}]}


def assistant(**fields: Any) -> dict[str, Any]:
    return SIMPLE | {"messages": [{"role": "assistant", "content": [fields]}]}


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
CITED = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}
REFUSED: list[tuple[object, str]] = [
    (b"", "The request body is not valid JSON: Input data was truncated"),
    (b'{"model":', "The request body is not valid JSON: Input data was truncated"),
    (b'"\xff"', "The request body is not valid JSON: "),
    (b'{"messages":' + b"[" * 100_000, "The request body is nested too deeply"),
    ([], "Input should be a valid dictionary"),
    ({"messages": SIMPLE["messages"]}, "model: Field required"),
    ({"model": "m"}, "messages: Field required"),
    (SIMPLE | {"model": 1}, "model: Input should be a valid string"),
    (SIMPLE | {"messages": []}, "messages: at least one message is required"),
    (SIMPLE | {"messages": "hi"}, "messages: Input should be a valid list"),
    (SIMPLE | {"messages": ["hi"]}, "messages.0: Input should be a valid dictionary"),
    (SIMPLE | {"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
    (SIMPLE | {"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    (
        SIMPLE | {"messages": [{"role": "tool", "content": "x"}]},
        "messages.0.role: Input should be 'user', 'assistant' or 'system'",
    ),
    (SIMPLE | {"system": 1}, "system: Input should be a valid list"),
    (SIMPLE | {"system": [{"text": "x"}]}, "system.0.type: Field required"),
    (block(text="x"), "messages.0.content.0.type: Field required"),
    (
        block(type="tool_result", tool_use_id="t", content=[{"text": "x"}]),
        "messages.0.content.0.content.0.type: Field required",
    ),
    (
        block(type="image", source={"type": "url", "url": "https://x"}),
        "messages.0.content.0.source: url sources are not supported",
    ),
    (
        block(type="document", source={"type": "file", "file_id": "f"}),
        "messages.0.content.0.source: file sources are not supported",
    ),
    (
        block(
            type="document",
            source={"type": "content", "content": [{"type": "image", "source": {"type": "url"}}]},
        ),
        "messages.0.content.0.source.content.0.source: url sources are not supported",
    ),
    (
        SIMPLE | {"mcp_servers": []},
        "The mcp_servers parameter is not supported on the count_tokens endpoint",
    ),
    (
        SIMPLE | {"context_management": EDITS},
        "context_management: Extra inputs are not permitted",
    ),
    (SIMPLE | {"tools": [{"name": "t"}]}, "tools.0.custom.input_schema: Field required"),
]
INFERENCE_ONLY = [
    *("max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "stream", "metadata"),
    *("service_tier", "container", "user", "litellm_metadata", "safety_identifier"),
]


@pytest.mark.parametrize(("question", "message"), REFUSED)
def test_refuses(provider: SimulatedProvider, question: object, message: str) -> None:
    answer = ask(provider.url, question)
    assert answer.status == 400
    error = answer.body["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(message)
    assert answer.body["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize("field", INFERENCE_ONLY)
def test_refuses_fields_of_inference(client: anthropic.Anthropic, field: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.count_tokens(**SIMPLE, extra_body={field: 1})
    assert caught.value.api_message == f"{field}: Extra inputs are not permitted"


@pytest.mark.parametrize(
    "question",
    [
        assistant(type="document", source=PDF),
        block(**CITED),
        block(type="search_result", source="s", title="t", content=[CITED]),
    ],
)
def test_refuses_from_october_2026_on(provider: SimulatedProvider, question: object) -> None:
    assert ask(provider.url, question).status == 200
    answer = ask(provider.url, question, STRICT)
    assert answer.status == 400
    assert answer.body["error"]["message"].startswith("messages.0.content.0")


@pytest.mark.parametrize("question", [assistant(**CITED), block(type="document", source=PDF)])
def test_the_other_role_may_cite_and_attach(provider: SimulatedProvider, question: object) -> None:
    assert ask(provider.url, question, STRICT).status == 200


@pytest.mark.parametrize(
    "question",
    [
        SIMPLE | {"a_field_of_tomorrow": {"depth": 3}},
        block(type="block_of_tomorrow", text="x"),
        SIMPLE | {"messages": [*SIMPLE["messages"], {"role": "system", "content": "Be brief."}]},
    ],
)
def test_counts_what_it_does_not_know(
    provider: SimulatedProvider, question: dict[str, Any]
) -> None:
    answer = ask(provider.url, question)
    assert (answer.status, answer.body) == (200, {"input_tokens": count_tokens(question)})


def test_server_tools_are_refused_except_on_the_line_that_counts_them(
    provider: SimulatedProvider, client: anthropic.Anthropic
) -> None:
    capture = load("captures", "anthropic__messages__server_tool_web_search")
    tools: Any = capture["body"]["tools"]
    with pytest.raises(anthropic.BadRequestError):
        client.messages.count_tokens(**SIMPLE, tools=tools)
    assert_is_capture(provider.requests[0], capture)
    question = SIMPLE | {"tools": tools, "model": "claude-sonnet-5-5"}
    assert client.messages.count_tokens(**question).input_tokens == count_tokens(question)


def test_unknown_model(provider: SimulatedProvider, client: anthropic.Anthropic) -> None:
    question = SIMPLE | {"model": "claude-nonexistent-1"}
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.count_tokens(**question)
    assert caught.value.type == "not_found_error"
    expected = load("errors", "anthropic__404_model_not_found")["body"]
    body = ask(provider.url, question).body
    assert body == expected | {"request_id": body["request_id"]}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "x-api-key header is required"),
        ({"authorization": "Basic c2s="}, "x-api-key header is required"),
        ({"x-api-key": ""}, "invalid x-api-key"),
        ({"x-api-key": "sk-ant-invalid"}, "invalid x-api-key"),
        ({"authorization": "Bearer sk-ant-invalid"}, "invalid x-api-key"),
    ],
)
def test_wrong_credential(
    provider: SimulatedProvider, headers: dict[str, str], message: str
) -> None:
    answer = ask(provider.url, SIMPLE, {"anthropic-version": "2023-06-01"} | headers)
    assert answer.status == 401
    assert answer.body["error"] == {"type": "authentication_error", "message": message}


def test_missing_version_and_wrong_method(provider: SimulatedProvider) -> None:
    answer = ask(provider.url, SIMPLE, {"x-api-key": "sk-ant-test"})
    assert answer.status == 400
    assert answer.body["error"]["message"] == "anthropic-version: header is required"
    assert ask(provider.url, b"", method="GET").status == 405


def test_body_over_32_mb(provider: SimulatedProvider) -> None:
    answer = ask(provider.url, b" " * (32 * 2**20 + 1))
    expected = load("errors", "anthropic__413_too_large")
    assert (answer.status, answer.body) == (413, expected["body"])


def test_unclaimed_path_is_no_count(provider: SimulatedProvider) -> None:
    assert ask(provider.url, SIMPLE, target="/v1/messages").status == 404


STATUSES: list[tuple[int, type[anthropic.APIStatusError], str]] = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.AuthenticationError, "authentication_error"),
    (402, anthropic.APIStatusError, "billing_error"),
    (403, anthropic.PermissionDeniedError, "permission_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (409, anthropic.ConflictError, "conflict_error"),
    (413, anthropic.APIStatusError, "request_too_large"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (503, anthropic.InternalServerError, "api_error"),
    (504, anthropic.InternalServerError, "timeout_error"),
    (529, anthropic.InternalServerError, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "error_class", "kind"), STATUSES)
def test_status_raises_the_sdks_exception(
    provider: SimulatedProvider,
    client: anthropic.Anthropic,
    status: int,
    error_class: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    provider.behave(status=status)
    with pytest.raises(error_class) as caught:
        client.messages.count_tokens(**SIMPLE)
    assert (caught.value.status_code, caught.value.type) == (status, kind)
    assert caught.value.api_message


@pytest.mark.parametrize(
    "name",
    [
        "400_invalid_request",
        "401_authentication",
        "403_permission",
        "413_too_large",
        "429_rate_limit",
        "500_api_error",
        "529_overloaded",
    ],
)
def test_status_gives_the_recorded_error(provider: SimulatedProvider, name: str) -> None:
    recorded = load("errors", f"anthropic__{name}")
    provider.behave(status=recorded["status"])
    answer = ask(provider.url, SIMPLE)
    assert answer.status == recorded["status"]
    assert answer.headers.keys() >= recorded["headers"].keys()
    assert answer.body.get("request_id") == answer.headers.get("request-id")
    assert answer.body == recorded["body"] | {
        name: value for name, value in answer.body.items() if name == "request_id"
    }


def test_times_then_back_to_normal(provider: SimulatedProvider) -> None:
    provider.behave(status=529, times=2, headers={"retry-after": "0.01"})
    with anthropic.Anthropic(api_key="k", base_url=provider.url, max_retries=2) as client:
        assert client.messages.count_tokens(**SIMPLE).input_tokens == 14
    retries = [request.headers["x-stainless-retry-count"] for request in provider.requests]
    assert retries == ["0", "1", "2"]
    assert provider.stats() == {"calls": 3, "replies": {"200": 1, "529": 2}, "behaviours": []}


def test_exact_answer_instead(provider: SimulatedProvider, client: anthropic.Anthropic) -> None:
    provider.behave(body={"input_tokens": 0}, headers={"x-extra": "1"})
    answer = client.messages.with_raw_response.count_tokens(**SIMPLE)
    assert (answer.status_code, answer.read()) == (200, b'{"input_tokens":0}')
    assert answer.headers["x-extra"] == "1"


def test_headers_are_set_on_the_true_answer_or_removed(provider: SimulatedProvider) -> None:
    provider.behave(headers={"Request-Id": None, "content-type": "text/plain"})
    answer = ask(provider.url, SIMPLE)
    assert answer.body == {"input_tokens": 14}
    assert answer.headers["content-type"] == "text/plain"
    assert "request-id" not in answer.headers


def test_first_matching_behaviour_applies(provider: SimulatedProvider) -> None:
    provider.behave(status=500, model="claude-other")
    provider.behave(status=529, times=1)
    provider.behave(status=503)
    assert ask(provider.url, SIMPLE | {"model": "claude-other"}).status == 500
    assert [ask(provider.url, SIMPLE).status for _ in range(3)] == [529, 503, 503]
    provider.clear()
    assert provider.calls == 0
    assert ask(provider.url, SIMPLE).status == 200


def test_delay_holds_back_one_connection_only(provider: SimulatedProvider) -> None:
    provider.behave(delay_s=0.3, times=1)
    with connect(provider.url) as slow:
        slow.sendall(request_bytes(SIMPLE, "connection: close"))
        wait_for_call(provider)
        assert ask(provider.url, SIMPLE).status == 200
        assert is_silent(slow)
        assert b'{"input_tokens":14}' in read_to_end(slow)


def test_pipelined_answers_keep_their_order(provider: SimulatedProvider) -> None:
    provider.behave(delay_s=0.05, model="slow")
    questions = [SIMPLE | {"model": "slow", "n": 1}, SIMPLE | {"n": 2}, SIMPLE | {"n": 3}]
    last = request_bytes(questions[2], "connection: close")
    data = talk(provider.url, b"".join(map(request_bytes, questions[:2])) + last)
    numbers = [int(number) for number in re.findall(rb'"input_tokens":(\d+)', data)]
    assert numbers == [count_tokens(question) for question in questions]
    assert provider.calls == 3


def test_raw_bytes(provider: SimulatedProvider) -> None:
    provider.behave(raw=b"\x00\xffnot HTTP")
    assert talk(provider.url, request_bytes()) == b"\x00\xffnot HTTP"


def test_nothing_follows_a_closing_answer(provider: SimulatedProvider) -> None:
    provider.behave(raw="last words", delay_s=0.01, times=1)
    assert talk(provider.url, request_bytes() * 2) == b"last words"
    assert provider.calls == 2


def test_hang(provider: SimulatedProvider) -> None:
    provider.behave(hang=True, times=1)
    with connect(provider.url) as hung:
        hung.sendall(request_bytes())
        wait_for_call(provider)
        assert ask(provider.url, SIMPLE).status == 200
        assert is_silent(hung)


def test_sdk_times_out_on_hang(provider: SimulatedProvider) -> None:
    provider.behave(hang=True)
    with (
        anthropic.Anthropic(
            api_key="k", base_url=provider.url, max_retries=0, timeout=0.1
        ) as client,
        pytest.raises(anthropic.APITimeoutError),
    ):
        client.messages.count_tokens(**SIMPLE)


def test_reset(provider: SimulatedProvider) -> None:
    provider.behave(reset=True)
    with pytest.raises(ConnectionResetError):
        talk(provider.url, request_bytes())
    assert provider.calls == 1


@pytest.mark.parametrize(
    ("kept", "received"),
    [(0, rb""), (20, rb"HTTP/1.1 200 OK\r\nCON"), (-5, rb'HTTP/1.1 200 OK.+\r\n{"input_tokens')],
)
def test_truncated_answer(
    provider: SimulatedProvider, client: anthropic.Anthropic, kept: int, received: bytes
) -> None:
    provider.behave(truncate_bytes=kept)
    data = talk(provider.url, request_bytes())
    assert re.fullmatch(received, data, re.DOTALL | re.IGNORECASE)
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.count_tokens(**SIMPLE)


def test_drip(provider: SimulatedProvider) -> None:
    provider.behave(drip_s=0.001, times=1)
    with connect(provider.url) as sock:
        sock.sendall(request_bytes(SIMPLE, "connection: close"))
        pieces = list(iter(lambda: sock.recv(65536), b""))
    assert len(pieces) > 20
    assert b"".join(pieces).endswith(b'\r\n\r\n{"input_tokens":14}')


def test_wrong_behaviour_is_refused(provider: SimulatedProvider) -> None:
    with pytest.raises(msgspec.ValidationError, match="delay"):
        provider.behave(delay=1)
    with pytest.raises(msgspec.ValidationError, match=r"\$.raw"):
        provider.behave(raw="→")
    answer = ask(provider.url, {"status": "500"}, target="/_sim/behave")
    assert answer.status == 400
    assert "$.status" in answer.body["error"]
    assert ask(provider.url, SIMPLE).status == 200


def test_connection_is_kept_until_asked_to_close(provider: SimulatedProvider) -> None:
    with connect(provider.url) as sock:
        sock.sendall(request_bytes())
        first = sock.recv(65536)
        assert first.endswith(b'{"input_tokens":14}')
        assert b"connection: close" not in first
        sock.sendall(request_bytes(SIMPLE, "connection: close"))
        assert b"connection: close" in read_to_end(sock)


@pytest.mark.parametrize(
    ("target", "recorded"),
    [
        (f"http://simulated{COUNT}?beta=true", f"{COUNT}?beta=true"),
        (f"/a/prefix{COUNT}", f"/a/prefix{COUNT}"),
    ],
)
def test_targets(provider: SimulatedProvider, target: str, recorded: str) -> None:
    data = talk(provider.url, request_bytes(SIMPLE, "connection: close", target=target))
    assert b'{"input_tokens":14' in data
    assert provider.requests[0].target == recorded


def test_chunked_body(provider: SimulatedProvider) -> None:
    body = msgspec.json.encode(SIMPLE)
    head = f"POST {COUNT} HTTP/1.1\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    coding = b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert b'{"input_tokens":14}' in talk(provider.url, head.encode() + coding + chunks)
    assert provider.requests[0].body == body


def test_expect_100_continue(provider: SimulatedProvider) -> None:
    head, _, body = request_bytes(SIMPLE, "expect: 100-continue", "connection: close").partition(
        b"\r\n\r\n"
    )
    with connect(provider.url) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_to_end(sock).endswith(b'{"input_tokens":14}')


def test_body_limit(provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.provider.connection.MAX_BODY_BYTES", 1000)
    data = talk(provider.url, request_bytes(SIMPLE | {"system": "x" * 1000}))
    assert data.startswith(b"HTTP/1.1 413 ")


def test_malformed_http(provider: SimulatedProvider) -> None:
    assert talk(provider.url, b"\x16\x03\x01 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_record_keeps_header_lines_as_sent(provider: SimulatedProvider) -> None:
    lines = "Anthropic-Beta: a", "anthropic-beta: b", "connection: close"
    talk(provider.url, request_bytes(SIMPLE, *lines))
    (request,) = provider.requests
    assert request.headers["anthropic-beta"] == "a, b"
    assert (b"Anthropic-Beta", b"a") in request.raw_headers


def test_record_is_bounded(provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.provider.simulation.KEPT_REQUESTS", 2)
    for number in range(3):
        ask(provider.url, SIMPLE | {"n": number})
    assert provider.calls == 3
    assert [msgspec.json.decode(request.body)["n"] for request in provider.requests] == [1, 2]
    monkeypatch.setattr("bench.provider.simulation.KEPT_BODY_BYTES", 1)
    ask(provider.url, SIMPLE)
    assert (provider.calls, provider.requests) == (4, [])


def test_control_over_http(provider: SimulatedProvider) -> None:
    url = provider.url
    assert ask(url, {"status": 503, "times": 2}, target="/_sim/behave").body == {"behaviours": 1}
    assert [ask(url, {"n": number}).status for number in range(2)] == [503, 503]
    assert ask(url, b"\xff").status == 400
    stats = ask(url, b"", method="GET", target="/_sim/stats").body
    assert stats == {"calls": 3, "replies": {"400": 1, "503": 2}, "behaviours": []}
    first, second, third = ask(url, b"", method="GET", target="/_sim/requests").body
    assert (first["method"], first["target"], first["body"]) == ("POST", COUNT, '{"n":0}')
    assert first["headers"]["x-api-key"] == "sk-ant-test"
    assert ["x-api-key", "sk-ant-test"] in first["raw_headers"]
    assert first["time"] < second["time"]
    assert third["body_base64"] == "/w=="
    assert ask(url, b"", method="GET", target="/_sim/requests?last=1").body == [third]
    ask(url, b"", method="DELETE", target="/_sim/requests")
    assert provider.calls == 0


def test_record_is_readable_after_the_end() -> None:
    with SimulatedProvider() as provider:
        ask(provider.url, SIMPLE)
    assert provider.calls == 1
    with pytest.raises(ConnectionRefusedError):
        connect(provider.url)


def test_the_end_closes_hanging_connections() -> None:
    with SimulatedProvider() as provider:
        provider.behave(hang=True)
        hung = connect(provider.url)
        hung.sendall(request_bytes())
        wait_for_call(provider)
    with hung:
        assert read_to_end(hung) == b""


def test_taken_port_is_said(provider: SimulatedProvider) -> None:
    port = int(provider.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), SimulatedProvider(port=port):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_line(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "bench.provider"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            match = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
            assert match is not None
            assert ask(match[1], SIMPLE).body == {"input_tokens": 14}
            process.send_signal(number)
            assert process.wait(timeout=10) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()
