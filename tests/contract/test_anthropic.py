"""Anthropic's own API: what goes out beside recorded SDK traffic, and what comes back."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.anthropic import Anthropic
from adapters.base import CountRequest, Endpoint, HeaderCredential, Params, Secret
from app.errors import from_upstream
from app.question import decode, decode_native

WIRE = Path(__file__).parents[1] / "fixtures" / "wire"
CAPTURES = sorted(
    path.stem
    for path in (WIRE / "captures").glob("anthropic*__messages__*.json")
    if "vertex" not in path.stem and "bedrock" not in path.stem
)
ERRORS = sorted(path.stem for path in (WIRE / "errors").glob("anthropic__*.json"))
ANTHROPIC = Anthropic()


def load(kind: str, name: str) -> dict[str, Any]:
    return msgspec.json.decode((WIRE / kind / f"{name}.json").read_bytes(), type=dict[str, Any])


def endpoint(environ: dict[str, str] | None = None, **given: Any) -> Endpoint:
    params: dict[str, Any] = {"model": "claude-sonnet-4-5-20250929", "api_key": Secret("k")} | given
    return ANTHROPIC.endpoint(Params(**params), environ or {})


@pytest.mark.parametrize("name", CAPTURES)
def test_what_is_sent_is_what_the_sdk_sends(name: str) -> None:
    capture = load("captures", name)
    headers = {
        header: value
        for header, value in capture["headers"].items()
        if header in {"anthropic-version", "anthropic-beta"}
    }
    count = decode_native(headers, msgspec.json.encode(capture["body"]), capture["query"]).request
    sent = ANTHROPIC.request(count, endpoint(model=capture["body"]["model"]))
    assert (sent.method, sent.url) == (capture["method"], capture["production_url"])
    assert msgspec.json.decode(sent.body) == capture["body"]
    for header in ("content-type", "accept", "anthropic-version", "anthropic-beta"):
        assert dict(sent.headers).get(header) == capture["headers"].get(header)
    assert sent.dropped == ()


def test_the_captures_are_of_every_release_and_kind() -> None:
    families = {name.partition("__")[0] for name in CAPTURES}
    assert families == {
        *("anthropic", "anthropic_async", "anthropic_auth_token", "anthropic_beta"),
        *("anthropic_v0", "anthropic_v0_beta", "anthropic_v1"),
    }


def test_the_clients_own_bytes_go_out() -> None:
    schema = b'{"z":1.0,"a":1e5,"big":123456789012345678901234567890,"a":"\\u00e9"}'
    body = b'{"tools":[' + schema + b'],"model":"m","messages":[{"role":"user","content":"hi"}]}'
    sent = ANTHROPIC.request(decode({}, body).request, endpoint(model='a"b'))
    assert sent.body == (
        b'{"model":"a\\"b","messages":[{"role":"user","content":"hi"}],"tools":[' + schema + b"]}"
    )


# A digest of everything that is sent for the inputs, with and without betas and an OAuth token. If
# it changes, raise WIRE_VERSION: counts remembered for other bytes must not be found.
GOLDEN = (1, "7365ca2f99deb6bf")


def test_other_bytes_need_another_wire_version() -> None:
    digest = hashlib.sha256()
    identity = (("anthropic-user-profile-id", "prof_1"), ("anthropic-workspace-id", "ws_1"))
    for path in sorted((WIRE / "inputs").glob("*.json")):
        body = decode({}, path.read_bytes()).request.body
        for count in (
            CountRequest(body, "2023-06-01"),
            CountRequest(body, "2026-10-21", ("a-1", "b-2"), identity, "beta=true"),
        ):
            for key in ("sk-ant-api03-x", "sk-ant-oat01-x"):
                sent = ANTHROPIC.request(count, endpoint(api_key=Secret(key)))
                digest.update(msgspec.json.encode(sent))
    assert (ANTHROPIC.WIRE_VERSION, digest.hexdigest()[:16]) == GOLDEN


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
    sent = dict(ANTHROPIC.request(CountRequest(b'{"a":1}', "2023-06-01"), found).headers)
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


@pytest.mark.parametrize("name", ERRORS)
def test_errors_reach_the_caller_as_they_should(name: str) -> None:
    fixture = load("errors", name)
    body = fixture["body"]
    raw = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    error = ANTHROPIC.error(fixture["status"], fixture["headers"], raw)
    answer = from_upstream(error, caller_credential=False)
    wanted = fixture["client_response"]
    assert answer.status == wanted["status"]
    assert msgspec.json.decode(answer.body("<PROXY_REQUEST_ID>")) == wanted["body"]


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
    error = ANTHROPIC.error(status, {}, page)
    assert (error.status, error.type) == (answered, kind)
    assert error.message == f"the provider answered {status}"


@pytest.mark.parametrize("details", [b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"{"])
def test_details_that_are_no_json_never_reach_the_caller(details: bytes) -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"m","details":%b}}' % details
    error = ANTHROPIC.error(500, {}, body)
    answer = from_upstream(error, caller_credential=False).body("req_1")
    assert msgspec.json.decode(answer.decode())["error"].keys() == {"type", "message"}
