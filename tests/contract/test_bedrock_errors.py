"""What AWS answers instead of a count, and what the caller gets for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters._aws_errors import NOT_COUNTED, UNKNOWN_MODEL
from adapters.base import UpstreamError
from adapters.bedrock import Bedrock
from adapters.bedrock_mantle import BedrockMantle
from app.errors import from_upstream

ERRORS = Path(__file__).parent.parent / "fixtures" / "wire" / "errors"
RUNTIME, MANTLE = Bedrock(), BedrockMantle()


def read(fixture: dict[str, Any]) -> UpstreamError:
    adapter = MANTLE if fixture["provider"] == "bedrock_mantle" else RUNTIME
    body = json.dumps(fixture["body"]).encode()
    return adapter.error(fixture["status"], fixture["headers"], body)


def errors() -> list[Any]:
    found = sorted(ERRORS.glob("bedrock_*.json"))
    assert found
    return [pytest.param(json.loads(path.read_bytes()), id=path.stem) for path in found]


@pytest.mark.parametrize("fixture", errors())
def test_every_refusal_becomes_the_callers_answer(fixture: dict[str, Any]) -> None:
    error = read(fixture)
    answer = from_upstream(error, caller_credential=False)
    expected = fixture["client_response"]
    assert answer.status == expected["status"] == fixture["maps_to"]["status"]
    assert json.loads(answer.body("<PROXY_REQUEST_ID>")) == expected["body"]
    text = fixture["body"].get("message") or fixture["body"]["error"]["message"]
    assert text not in error.reason
    assert error.upstream_request_id == fixture["headers"].get("x-amzn-requestid", "req_example")


FLAGS = {
    "bedrock__400_invalid_model": "model_not_counted",
    "bedrock__400_unsupported_model": "model_not_counted",
    "bedrock__404_not_found": "model_not_counted",
    "bedrock__403_expired_token": "credential_expired",
    "bedrock__400_prompt_too_long": "stated_count",
}


@pytest.mark.parametrize("fixture", errors())
def test_what_a_refusal_leads_to(fixture: dict[str, Any]) -> None:
    error = read(fixture)
    for flag in ("model_not_counted", "credential_expired", "stated_count"):
        assert bool(getattr(error, flag)) == (FLAGS.get(fixture["name"]) == flag)
    assert error.stated_count in {0, 300012}


@pytest.mark.parametrize(
    "text",
    [
        "prompt is too long: 0 tokens > 200000 maximum",
        "messages.0: prompt is too long: 300012 tokens > 200000 maximum",
        "prompt is too long: 300012 tokens > 200000 maximum, or so",
        "input length and `max_tokens` exceed context limit: 199000 + 20000 > 200000",
    ],
)
def test_only_the_known_sentence_states_a_count(text: str) -> None:
    body = json.dumps({"message": text}).encode()
    headers = {"x-amzn-errortype": "ValidationException"}
    assert RUNTIME.error(400, headers, body).stated_count == 0
    known = b'{"message":"prompt is too long: 300012 tokens > 200000 maximum"}'
    assert RUNTIME.error(400, headers, known).stated_count == 300012
    assert RUNTIME.error(500, {}, known).stated_count == 0


EXTRA = "Extra inputs are not permitted"
ON_DEMAND = (
    "Invocation of model ID anthropic.claude-3-7-sonnet-20250219-v1:0 with on-demand throughput "
    "isn\u2019t supported. Retry your request with the ID or ARN of an inference profile that "
    "contains this model."
)


@pytest.mark.parametrize(
    "text",
    [
        f"model identifier is invalid: {EXTRA}",
        f"The provided model identifier is invalid.: {EXTRA}",
        f"The provided model doesn't support counting tokens.: {EXTRA}",
        f"tools.0.support counting tokens: {EXTRA}",
        f"{ON_DEMAND}: {EXTRA}",
        f"x. {ON_DEMAND}",
        ON_DEMAND.replace("anthropic", "my words, anthropic"),
        "The provided model identifier is invalid.\nThe provided model identifier is invalid.",
    ],
)
def test_a_name_that_the_caller_chose_refuses_no_model(text: str) -> None:
    body = json.dumps({"message": text}).encode()
    for adapter in (RUNTIME, MANTLE):
        error = adapter.error(400, {"x-amzn-errortype": "ValidationException"}, body)
        assert (error.status, error.type) == (400, "invalid_request_error")
        assert error.message == text
        assert not error.model_not_counted


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("The provided model identifier is invalid", 404, UNKNOWN_MODEL),
        ("The provided model doesn\u2019t support counting tokens.", 400, NOT_COUNTED),
        (ON_DEMAND, 400, NOT_COUNTED),
    ],
)
def test_a_whole_sentence_refuses_a_model_in_words_that_are_always_the_same(
    text: str, status: int, message: str
) -> None:
    error = RUNTIME.error(400, {}, json.dumps({"message": text}).encode())
    assert error.model_not_counted
    assert (error.status, error.message) == (status, message)


def test_what_is_remembered_of_an_unknown_model_quotes_nothing() -> None:
    headers = {"x-amzn-errortype": "ResourceNotFoundException"}
    error = RUNTIME.error(404, headers, b'{"message":"what the caller wrote"}')
    assert error.model_not_counted
    assert (error.status, error.message) == (404, UNKNOWN_MODEL)


@pytest.mark.parametrize(
    ("status", "code", "body", "answered", "kind"),
    [
        (400, "ThrottlingException:", {"Message": "slow"}, 429, "rate_limit_error"),
        (400, "ServiceQuotaExceededException", {"message": "quota"}, 429, "rate_limit_error"),
        (400, "ValidationException", {"Message": "bad"}, 400, "invalid_request_error"),
        (
            400,
            "",
            {"__type": "a.b#ValidationException", "message": "bad"},
            400,
            "invalid_request_error",
        ),
        (400, "SerializationException", {"message": "x"}, 502, "api_error"),
        (404, "UnknownOperationException", {}, 502, "api_error"),
        (400, "", "<html>", 502, "api_error"),
        (404, "", {"detail": "x"}, 502, "api_error"),
        (408, "ModelTimeoutException", {"message": "x"}, 504, "timeout_error"),
        (413, "", "", 413, "request_too_large"),
        (424, "ModelErrorException", {"message": "x"}, 502, "api_error"),
        (418, "", {"message": "x"}, 502, "api_error"),
        (429, "", "", 429, "rate_limit_error"),
        (500, "InternalServerException", {"message": "x"}, 500, "api_error"),
        (502, "", "<html>", 502, "api_error"),
        (503, "", "<html>", 529, "overloaded_error"),
        (504, "", "", 504, "timeout_error"),
    ],
)
def test_a_code_decides_before_a_status(
    status: int, code: str, body: object, answered: int, kind: str
) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    error = RUNTIME.error(status, {"x-amzn-errortype": code} if code else {}, raw)
    assert (error.status, error.type) == (answered, kind)
    assert not error.credential_fault


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, ""),
        (403, ""),
        (400, "IncompleteSignature"),
        (400, "ExpiredTokenException"),
        (403, "SignatureDoesNotMatch"),
    ],
)
def test_a_refused_credential_is_the_operators_fault(status: int, code: str) -> None:
    body = b'{"message":"The canonical string should have been x-amz-security-token:abc"}'
    for adapter in (RUNTIME, MANTLE):
        error = adapter.error(status, {"x-amzn-errortype": code}, body)
        answer = from_upstream(error, caller_credential=False)
        assert (answer.status, answer.type) == (502, "api_error")
        assert "abc" not in answer.message + answer.reason + answer.operator_detail
        assert error.credential_expired == code.startswith("Expired")


def test_a_reason_holds_no_foreign_text() -> None:
    error = RUNTIME.error(400, {"x-amzn-errortype": "Secret-From-Elsewhere"}, b"{}")
    assert error.reason == "status 400"
    body = b'{"type":"error","error":{"type":"what the prompt said","message":"m"}}'
    error = MANTLE.error(400, {}, body)
    assert (error.reason, error.type) == ("status 400", "what the prompt said")


def test_mantle_refuses_in_anthropics_shape_or_in_awss() -> None:
    unavailable = b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}'
    error = MANTLE.error(503, {"x-amzn-requestid": "r-1"}, unavailable)
    assert (error.status, error.type, error.upstream_request_id) == (529, "overloaded_error", "r-1")
    expired = b'{"type":"error","error":{"type":"authentication_error","message":"token expired"}}'
    error = MANTLE.error(401, {}, expired)
    assert error.credential_fault
    assert error.credential_expired
    throttled = MANTLE.error(429, {"retry-after": "7"}, b'{"message":"slow"}')
    assert throttled.headers == (("retry-after", "7"),)
    assert (throttled.type, throttled.message) == ("rate_limit_error", "slow")


def test_a_message_is_bounded() -> None:
    body = json.dumps({"message": "x" * 100_000}).encode()
    assert len(RUNTIME.error(400, {}, body).message) == 2000
