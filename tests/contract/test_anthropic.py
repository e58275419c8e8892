"""Anthropic's own format against recorded traffic: what its SDKs send goes on as they sent it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.anthropic import Anthropic
from adapters.base import CountRequest, Endpoint, HeaderCredential, Params, Secret, UpstreamError
from app.errors import OPERATOR_FAULT, from_upstream
from app.question import decode

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
# Neither Vertex AI nor AWS, which have their own adapters; `anthropic_v0_vertex` is Vertex AI too.
CAPTURES = sorted(
    path.stem
    for path in (WIRE / "captures").glob("anthropic*__messages__*.json")
    if "vertex" not in path.stem and "bedrock" not in path.stem
)
ERRORS = sorted(path.stem for path in (WIRE / "errors").glob("anthropic__*.json"))
ADAPTER = Anthropic()


def load(kind: str, name: str) -> dict[str, Any]:
    return msgspec.json.decode((WIRE / kind / f"{name}.json").read_bytes(), type=dict[str, Any])


@pytest.mark.parametrize("name", CAPTURES)
def test_a_recorded_request_goes_on_as_it_came(name: str) -> None:
    capture = load("captures", name)
    count = decode(capture["headers"], msgspec.json.encode(capture["body"])).request
    sent = ADAPTER.request(count, endpoint(model=capture["body"]["model"]))
    # SDKs 0.x and 1.x add ?beta=true to a beta call, 2.x no longer does: the header decides.
    url = capture["production_url"].removesuffix("?beta=true")
    assert (sent.method, sent.url) == (capture["method"], url)
    assert msgspec.json.decode(sent.body) == capture["body"]
    headers = dict(sent.headers)
    # A set, which Tallygate sorts so that its order makes no other question.
    betas = headers.pop("anthropic-beta", "").split(",")
    assert betas == sorted(capture["headers"].get("anthropic-beta", "").split(","))
    names = ("content-type", "accept", "anthropic-version")
    assert headers == {name: capture["headers"][name] for name in names}
    assert sent.dropped == ()


def read(fixture: dict[str, Any]) -> UpstreamError:
    body = msgspec.json.encode(fixture["body"])
    return ADAPTER.error(fixture["status"], fixture["headers"], body)


@pytest.mark.parametrize("name", ERRORS)
def test_a_recorded_error_reaches_the_caller(name: str) -> None:
    fixture = load("errors", name)
    answer = from_upstream(read(fixture), caller_credential=False)
    wanted = fixture["client_response"]
    assert answer.status == wanted["status"] == fixture["maps_to"]["status"]
    assert msgspec.json.decode(answer.body("<PROXY_REQUEST_ID>")) == wanted["body"]
    passed_on = {
        header: value
        for header, value in fixture["headers"].items()
        if header == "retry-after" or header.startswith("anthropic-ratelimit-")
    }
    operators = wanted["body"]["error"]["message"] == OPERATOR_FAULT
    if not operators:
        assert passed_on.items() <= answer.headers.items()
    assert answer.headers.get("x-should-retry") == ("false" if operators else None)


@pytest.mark.parametrize("name", [name for name in ERRORS if "40" in name])
def test_of_the_callers_own_credential_it_hears_everything(name: str) -> None:
    fixture = load("errors", name)
    answer = from_upstream(read(fixture), caller_credential=True)
    body = msgspec.json.decode(answer.body("<PROXY_REQUEST_ID>"))
    assert answer.status == fixture["status"]
    assert body["error"] == fixture["body"]["error"]


def endpoint(environ: dict[str, str] | None = None, **given: Any) -> Endpoint:
    params: dict[str, Any] = {"model": "claude-sonnet-4-5-20250929", "api_key": Secret("k")} | given
    return ADAPTER.endpoint(Params(**params), environ or {})


def test_the_captures_are_of_every_release_and_kind() -> None:
    families = {name.partition("__")[0] for name in CAPTURES}
    assert families == {
        *("anthropic", "anthropic_async", "anthropic_auth_token", "anthropic_beta"),
        *("anthropic_v0", "anthropic_v0_beta", "anthropic_v1"),
    }


def test_the_clients_own_bytes_go_out() -> None:
    schema = b'{"z":1.0,"a":1e5,"big":123456789012345678901234567890,"a":"\\u00e9"}'
    body = b'{"tools":[' + schema + b'],"model":"m","messages":[{"role":"user","content":"hi"}]}'
    sent = ADAPTER.request(decode({}, body).request, endpoint(model='a"b'))
    assert sent.body == (
        b'{"model":"a\\"b","messages":[{"role":"user","content":"hi"}],"tools":[' + schema + b"]}"
    )


@pytest.mark.parametrize(
    ("key", "header", "value"),
    [
        ("sk-ant-api03-x", "x-api-key", "sk-ant-api03-x"),
        ("sk-ant-oat01-x", "authorization", "Bearer sk-ant-oat01-x"),
    ],
)
def test_a_subscriptions_token_is_never_an_api_key(key: str, header: str, value: str) -> None:
    found = endpoint(api_key=Secret(key))
    assert isinstance(found.credential, HeaderCredential)
    assert found.credential.header == header
    assert found.credential.prefix + found.credential.secret.reveal() == value
    sent = dict(ADAPTER.request(CountRequest(b'{"a":1}', "2023-06-01"), found).headers)
    assert ("oauth-2025-04-20" in sent.get("anthropic-beta", "")) == (header == "authorization")


@pytest.mark.parametrize(
    "wrong", ["localhost:8080", "ftp://x", "http://u:pw@x", "http://x?a=b", "http://x:99999", "//x"]
)
def test_a_base_of_the_environment_is_judged_like_one_of_the_entry(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^ANTHROPIC_API_BASE: ") as refused:
        endpoint({"ANTHROPIC_API_BASE": wrong})
    assert "pw" not in str(refused.value)


def test_a_base_whose_variable_is_not_set_is_missing_and_not_replaced() -> None:
    found = endpoint({"ANTHROPIC_API_KEY": "k"}, unset={"api_base": "MY_BASE"})
    assert found.missing == ("MY_BASE",)
    both = endpoint(api_key=None, unset={"api_base": "MY_BASE", "api_key": "MY_KEY"})
    assert both.missing == ("MY_BASE", "MY_KEY")


@pytest.mark.parametrize(
    ("status", "answered", "kind"),
    [
        (400, 502, "api_error"),
        (404, 502, "api_error"),
        (413, 413, "request_too_large"),
        (429, 429, "rate_limit_error"),
        (500, 500, "api_error"),
        (503, 529, "overloaded_error"),
        (504, 504, "timeout_error"),
    ],
)
@pytest.mark.parametrize("page", [b"<html>secret</html>", b"", b"[]", b'{"detail":"secret"}'])
def test_a_page_of_some_server_in_between_is_read_by_its_status(
    status: int, answered: int, kind: str, page: bytes
) -> None:
    error = ADAPTER.error(status, {}, page)
    assert (error.status, error.type) == (answered, kind)
    assert error.message == f"the provider answered {status}"


@pytest.mark.parametrize("details", [b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"{"])
def test_details_that_are_no_json_never_reach_the_caller(details: bytes) -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"m","details":%b}}' % details
    error = ADAPTER.error(500, {}, body)
    answer = from_upstream(error, caller_credential=False).body("req_1")
    assert msgspec.json.decode(answer.decode())["error"].keys() == {"type", "message"}


@pytest.mark.parametrize("kind", ["api_error", "overloaded_error", "service_unavailable"])
def test_unavailable_is_overloaded_whatever_it_is_called(kind: str) -> None:
    body = msgspec.json.encode({"type": "error", "error": {"type": kind, "message": "m"}})
    error = Anthropic().error(503, {}, body)
    assert (error.status, error.type, error.message) == (529, "overloaded_error", "m")
    assert (error.upstream_status, error.reason) == (503, "status 503, overloaded_error")
