"""Anthropic's own format against recorded traffic: what its SDKs send goes on as they sent it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters.anthropic import Anthropic
from adapters.base import Params, Secret, UpstreamError
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
    endpoint = ADAPTER.endpoint(Params(capture["body"]["model"], api_key=Secret("k")), {})
    sent = ADAPTER.request(count, endpoint)
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
