"""What the two Gemini adapters make of Google's replies, and what a caller then hears."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.base import MalformedUpstreamError
from adapters.registry import ADAPTERS
from app.errors import OPERATOR_FAULT, ProxyError, from_upstream

ERRORS = Path(__file__).parents[1] / "fixtures" / "wire" / "errors"
ADAPTER_NAMES = ("gemini", "vertex_gemini")


@pytest.mark.parametrize("name", ADAPTER_NAMES)
@pytest.mark.parametrize("total", [b"1", b"31", b"1000000000"])
def test_a_count_is_totaltokens_and_nothing_else(name: str, total: bytes) -> None:
    reply = b'{"totalTokens":%b,"totalBillableCharacters":9,"promptTokensDetails":[{}]}' % total
    count = ADAPTERS[name].count(reply)
    assert (count.input_tokens, count.extra) == (int(total), b"")


NO_COUNTS = (
    b'{"totalTokens":%b}' % value
    for value in (b"0", b"-1", b"true", b"5.0", b"1e3", b'"5"', b"null", b"1000000001", b"9" * 40)
)


@pytest.mark.parametrize("name", ADAPTER_NAMES)
@pytest.mark.parametrize(
    "reply",
    [*NO_COUNTS, b"{}", b"", b"[]", b"null", b"<html>", b'{"totalTokens":5}x', b'{"\xff":1}'],
)
def test_a_reply_without_a_possible_count_is_malformed(name: str, reply: bytes) -> None:
    with pytest.raises(MalformedUpstreamError):
        ADAPTERS[name].count(reply)


RECORDED = sorted(
    path.stem for pattern in ("gemini__*", "vertex_gemini__*") for path in ERRORS.glob(pattern)
)


def load(name: str) -> dict[str, Any]:
    return msgspec.json.decode((ERRORS / f"{name}.json").read_bytes(), type=dict[str, Any])


def heard(
    adapter: str, status: int, body: bytes, headers: dict[str, str] | None = None
) -> ProxyError:
    """What a caller hears: the adapter's reading, through the proxy's own errors."""
    error = ADAPTERS[adapter].error(status, headers or {}, body)
    return from_upstream(error, caller_credential=False)


def as_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("wrapped", [False, True], ids=["object", "list"])
def test_a_recorded_error_reaches_the_caller_in_anthropics_terms(
    name: str, *, wrapped: bool
) -> None:
    recorded = load(name)
    body = [recorded["body"]] if wrapped else recorded["body"]
    said = heard(recorded["provider"], recorded["status"], as_bytes(body), recorded["headers"])
    wanted = recorded["client_response"]
    wanted["body"]["request_id"] = "req_1"
    assert said.status == wanted["status"]
    assert msgspec.json.decode(said.body("req_1")) == wanted["body"]
    operators = wanted["body"]["error"]["message"] == OPERATOR_FAULT
    assert said.headers.get("x-should-retry") == ("false" if operators else None)


def test_the_wait_that_google_names_is_passed_on() -> None:
    recorded = load("gemini__429_quota")
    body = as_bytes(recorded["body"])
    assert heard("gemini", 429, body).headers["retry-after"] == "36"
    assert heard("gemini", 429, body, {"retry-after": "7"}).headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("0.5s", "1"), ("36.000s", "36"), ("36.1s", "37"), ("36", None), ("-1s", None), (7, None)],
)
def test_a_wait_is_whole_seconds_or_none(delay: Any, seconds: str | None) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    body = as_bytes({"error": {"status": "RESOURCE_EXHAUSTED", "details": details}})
    assert heard("vertex_gemini", 429, body).headers.get("retry-after") == seconds


KEY = "AIzaSyA-0123456789abcdefghijklmnopqrstuv"
OPERATORS = [
    (400, {"status": "FAILED_PRECONDITION", "message": "User location is not supported"}),
    (400, {"status": "INVALID_ARGUMENT", "message": "API key expired. Please renew the API key."}),
    (401, {"status": "UNAUTHENTICATED", "message": "m"}),
    (402, {"message": "m"}),
    (403, {"status": "PERMISSION_DENIED", "message": f"Consumer 'api_key:{KEY}' is suspended."}),
    (400, {"message": 'Unknown name "toolConfig": Cannot find field.'}),
]


OPERATORS += [
    (400, {"message": text})
    for text in (
        "API key not valid. Please pass a valid API key.",
        "API Key not found. Please pass a valid API key.",
        "CountTokens requires generate_content_request or contents to be set.",
        "\n".join(
            f"Invalid JSON payload received. Unknown name \"{name}\" at 'x': Cannot find field."
            for name in "ab"
        ),
    )
]


@pytest.mark.parametrize(("status", "error"), OPERATORS)
def test_the_operators_fault_is_never_the_callers(status: int, error: dict[str, str]) -> None:
    said = heard("gemini", status, as_bytes({"error": error}))
    assert (said.status, said.type, said.message) == (502, "api_error", OPERATOR_FAULT)
    assert said.headers["x-should-retry"] == "false"
    assert KEY not in said.operator_detail + said.reason


@pytest.mark.parametrize(
    "text",
    [
        "Invalid value at 'contents[0].parts[0]' (oneof): API key not valid",
        "Invalid value at 'contents[0].role': \"API key expired. Please renew the API key.\"",
        'Please use a valid role: Unknown name "x": Cannot find field.',
        'Unknown name "x": Cannot find field. Invalid role',
        "Invalid value: CountTokens requires generate_content_request or contents to be set.",
    ],
)
@pytest.mark.parametrize("name", ADAPTER_NAMES)
def test_what_google_quotes_of_a_caller_makes_nobody_else_at_fault(name: str, text: str) -> None:
    error = {"code": 400, "status": "INVALID_ARGUMENT", "message": text}
    said = heard(name, 400, as_bytes({"error": error}))
    assert (said.status, said.type, said.message) == (400, "invalid_request_error", text)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, (502, "api_error")),
        (404, (502, "api_error")),
        (405, (502, "api_error")),
        (413, (413, "request_too_large")),
        (429, (429, "rate_limit_error")),
        (500, (500, "api_error")),
        (502, (502, "api_error")),
        (503, (529, "overloaded_error")),
        (504, (504, "timeout_error")),
    ],
)
@pytest.mark.parametrize("page", [b"<html>secret</html>", b"", b"[]", b'"secret"', b"\xff"])
def test_a_page_of_some_server_in_between_is_read_by_its_status(
    status: int, answer: tuple[int, str], page: bytes
) -> None:
    said = heard("vertex_gemini", status, page)
    assert (said.status, said.type) == answer
    assert said.message == f"the provider answered {status}"


def test_a_message_holds_no_json_no_key_and_an_end() -> None:
    def message(text: str) -> str:
        error = {"status": "INVALID_ARGUMENT", "message": text}
        return heard("gemini", 400, as_bytes({"error": error})).message

    assert message('{"error": {"message": "nested"}}') == "the provider answered 400"
    assert message(f"for {KEY}") == "for ***"
    assert len(message("long " * 10_000)) == 2_000


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_reason_for_the_log_holds_nothing_of_the_providers_text(status: int) -> None:
    details = [{"@type": "SECRET", "reason": "SECRET", "retryDelay": "SECRET"}]
    body = {
        "error": {"code": "SECRET", "message": "SECRET", "status": "SECRET", "details": details}
    }
    error = ADAPTERS["gemini"].error(status, {"x": "SECRET"}, as_bytes(body))
    assert error.upstream_status == status
    assert error.reason.startswith(f"status {status}, ")
    assert "SECRET" not in error.reason


@pytest.mark.parametrize("odd", [None, 1, [], {}, [1], ["a"], {"a": []}])
def test_an_error_of_another_shape_is_still_an_answer(odd: Any) -> None:
    for body in (odd, {"error": odd}, {"error": {"message": odd, "status": odd, "details": odd}}):
        assert heard("gemini", 503, as_bytes(body)).status == 529
