"""Claude on AWS against recorded traffic: what boto3, aiobotocore and Anthropic's SDK send, and
what AWS answers.

Freedoms in a comparison, all others being faults: the order of the inner JSON's own members, and
white space. Not sent at all: the captures of `boto3_bedrock_converse`, because Converse is another
request (it has no form for tool_choice none, cache details, thinking and some names), whose count
differs from the one asked for.
"""

import hashlib
import json
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.base import (
    CannotExpressError,
    CountRequest,
    Endpoint,
    MalformedUpstreamError,
    Params,
    TooLargeError,
)
from adapters.bedrock import MAX_BODY_BYTES, Bedrock
from adapters.bedrock_mantle import BedrockMantle
from app.question import decode

WIRE = Path(__file__).parent.parent / "fixtures" / "wire"
MODEL = "anthropic.claude-sonnet-4-5-20250929-v1:0"
RUNTIME, MANTLE = Bedrock(), BedrockMantle()
BODY = b'{"messages":[{"role":"user","content":"Hi"}]}'


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def captures(prefix: str) -> list[Any]:
    found = sorted((WIRE / "captures").glob(f"{prefix}*.json"))
    assert found
    return [pytest.param(load(path), id=path.stem) for path in found]


def question(name: str, **headers: str) -> CountRequest:
    """Read an input as the server reads a client's request."""
    body = (WIRE / "inputs" / f"{name}.json").read_bytes()
    sent = {header.replace("_", "-"): value for header, value in headers.items()}
    return decode(sent, body).request


def runtime(environ: Mapping[str, str] | None = None, **params: Any) -> Endpoint:
    return RUNTIME.endpoint(Params(**{"model": MODEL} | params), environ or {})


def mantle(environ: Mapping[str, str] | None = None, **params: Any) -> Endpoint:
    return MANTLE.endpoint(Params(**{"model": MODEL} | params), environ or {})


def inner(count: CountRequest) -> bytes:
    """Decode what the runtime hands to the model."""
    sent = json.loads(RUNTIME.request(count, runtime()).body)
    assert sent.keys() == {"input"}
    assert sent["input"].keys() == {"invokeModel"}
    assert sent["input"]["invokeModel"].keys() == {"body"}
    return b64decode(sent["input"]["invokeModel"]["body"], validate=True)


@pytest.mark.parametrize(
    "capture", captures("boto3_bedrock_invoke") + captures("aiobotocore_bedrock_invoke")
)
def test_the_runtime_gets_what_awss_own_clients_send(capture: dict[str, Any]) -> None:
    count = question(capture["input"])
    request = RUNTIME.request(count, runtime(aws_region_name="us-east-1"))
    assert request.method == capture["method"]
    assert request.url == capture["production_url"]
    assert dict(request.headers)["content-type"] == capture["headers"]["content-type"]
    assert json.loads(inner(count)) == capture["decoded_invoke_model_body"]


@pytest.mark.parametrize("capture", captures("boto3_bedrock_converse"))
def test_a_question_never_leaves_as_converse(capture: dict[str, Any]) -> None:
    asked = load(WIRE / "inputs" / f"{capture['input']}.json")
    sent = json.loads(inner(question(capture["input"])))
    assert capture["body"]["input"].keys() == {"converse"}
    assert {name: sent[name] for name in asked.keys() - {"model"}} == {
        name: value for name, value in asked.items() if name != "model"
    }


@pytest.mark.parametrize("capture", captures("anthropic_bedrock_mantle"))
def test_mantle_gets_what_anthropics_sdk_sends(capture: dict[str, Any]) -> None:
    version = capture["headers"]["anthropic-version"]
    count = question(capture["input"], anthropic_version=version)
    endpoint = mantle(model="anthropic.claude-opus-4-7", aws_region_name="us-east-1")
    request = MANTLE.request(count, endpoint)
    assert request.method == capture["method"]
    assert request.url == capture["production_url"]
    assert dict(request.headers) == {
        name: capture["headers"][name] for name in ("content-type", "accept", "anthropic-version")
    }
    assert json.loads(request.body) == capture["body"]


def test_what_the_client_wrote_is_spliced_and_never_written_anew() -> None:
    schema = b'{"type":"object","z":1.0,"a":1e3,"z":{"\\u00e9":10000000000000000000000}}'
    body = (
        b'{"messages":[{"role":"user","content":"\\u00e9"}],"tools":[{"input_schema":%b}]}' % schema
    )
    sent = inner(CountRequest(body, "2023-06-01"))
    assert sent == b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":1,' + body[1:]
    thinking = (
        b'{"messages":[1.0],"thinking":{"type":"enabled","budget_tokens":16000},"tools":[%b]}'
    )
    sent = inner(CountRequest(thinking % schema, "2023-06-01"))
    assert sent == (
        b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":16001,' + (thinking % schema)[1:]
    )


@pytest.mark.parametrize(
    ("thinking", "max_tokens"),
    [
        ('{"type":"enabled","budget_tokens":1024}', 1025),
        ('{"type":"adaptive"}', 1),
        ('{"type":"disabled"}', 1),
        ('{"type":"between_tools","budget_tokens":9}', 1),
        ('{"type":"enabled","budget_tokens":"many"}', 1),
        ("null", 1),
        ("7", 1),
    ],
)
def test_max_tokens_leaves_room_for_thinking(thinking: str, max_tokens: int) -> None:
    body = b'{"messages":[],"thinking":%b}' % thinking.encode()
    sent = json.loads(inner(CountRequest(body, "2023-06-01")))
    assert sent["max_tokens"] == max_tokens
    assert sent["thinking"] == json.loads(thinking)


def test_betas_go_into_the_runtimes_body() -> None:
    count = question("01_simple", anthropic_beta="context-1m-2025-08-07,token-counting-2024-11-01")
    assert json.loads(inner(count))["anthropic_beta"] == ["context-1m-2025-08-07"]
    count = question("01_simple", anthropic_beta="token-counting-2024-11-01")
    assert "anthropic_beta" not in json.loads(inner(count))


def test_a_client_of_bedrocks_own_dialect_gets_no_member_twice() -> None:
    body = (
        b'{"anthropic_beta":["b","a"],"anthropic_version":"bedrock-2099","max_tokens":5,'
        b'"messages":[]}'
    )
    sent = inner(CountRequest(body, "2023-06-01", ("a", "c")))
    assert sent == (
        b'{"anthropic_version":"bedrock-2099","max_tokens":1,"anthropic_beta":["a","b","c"],'
        b'"messages":[]}'
    )
    with pytest.raises(CannotExpressError, match="anthropic_beta"):
        inner(CountRequest(b'{"anthropic_beta":"a","messages":[]}', "2023-06-01"))


def test_mantle_gets_betas_as_a_header_and_the_user_profile_in_the_body() -> None:
    identity = (("anthropic-user-profile-id", "prof_1"), ("anthropic-workspace-id", "ws_1"))
    count = CountRequest(BODY, "2026-10-21", ("a-1", "b-2"), identity)
    request = MANTLE.request(count, mantle())
    headers = dict(request.headers)
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["anthropic-beta"] == "a-1,b-2"
    assert headers["anthropic-workspace-id"] == "ws_1"
    assert "anthropic-user-profile-id" not in headers
    assert json.loads(request.body)["user_profile_id"] == "prof_1"
    own = CountRequest(b'{"messages":[],"user_profile_id":"own"}', "2026-10-21", (), identity)
    assert MANTLE.request(own, mantle()).body.count(b"user_profile_id") == 1
    assert MANTLE.request(count, mantle()).dropped == ()


def test_headers_that_the_runtime_has_no_place_for_are_named() -> None:
    identity = (("anthropic-user-profile-id", "prof_1"), ("anthropic-workspace-id", "ws_1"))
    betas = ("a-1", "token-counting-2024-11-01")
    count = CountRequest(BODY, "2026-10-21", betas, identity)
    assert RUNTIME.request(count, runtime()).dropped == (
        "anthropic-beta:token-counting-2024-11-01",
        "anthropic-user-profile-id",
        "anthropic-workspace-id",
        "anthropic-version",
    )
    assert RUNTIME.request(CountRequest(BODY, "2023-06-01"), runtime()).dropped == ()


def test_the_largest_body_is_sent_and_one_byte_more_is_refused() -> None:
    empty = len(inner(CountRequest(b'{"messages":""}', "2023-06-01")))
    largest = b'{"messages":"%b"}' % (b"x" * (MAX_BODY_BYTES - empty))
    assert len(inner(CountRequest(largest, "2023-06-01"))) == 25_000_000
    with pytest.raises(TooLargeError, match="25,000,000"):
        inner(CountRequest(largest[:-2] + b'x"}', "2023-06-01"))


def test_a_count_is_an_integer_of_at_least_one() -> None:
    assert RUNTIME.count(b'{"inputTokens":14}').input_tokens == 14
    assert MANTLE.count(b'{"input_tokens":14}').input_tokens == 14


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"[14]",
        b'{"inputTokens":0}',
        b'{"inputTokens":-1}',
        b'{"inputTokens":14.0}',
        b'{"inputTokens":"14"}',
        b'{"inputTokens":true}',
        b'{"inputTokens":null}',
        b'{"inputTokens":1000000001}',
        b'{"input_tokens":14}',
        b"<html>14</html>",
        b'{"inputTokens":14',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_no_count(body: bytes) -> None:
    with pytest.raises(MalformedUpstreamError):
        RUNTIME.count(body)


# The digest of everything that the adapter sends for the inputs and three hard cases. If it
# changes, raise WIRE_VERSION: answers remembered for other bytes must not be found.
GOLDEN = {"runtime": (2, "cf627d065ff9e2c6"), "mantle": (1, "0a6ecde4c4cae8de")}


@pytest.mark.parametrize("name", ["runtime", "mantle"])
def test_other_bytes_need_another_wire_version(name: str) -> None:
    adapter: Bedrock | BedrockMantle = RUNTIME if name == "runtime" else MANTLE
    endpoint = runtime(aws_region_name="us-east-1") if name == "runtime" else mantle()
    counts = [question(path.stem) for path in sorted((WIRE / "inputs").glob("*.json"))]
    identity = (("anthropic-user-profile-id", "prof_1"), ("anthropic-workspace-id", "ws_1"))
    counts += [
        CountRequest(BODY, "2026-10-21", ("a", "token-counting-2024-11-01"), identity),
        CountRequest(
            b'{"anthropic_beta":["x"],"max_tokens":3,"messages":[]}', "2023-06-01", ("y",)
        ),
    ]
    digest = hashlib.sha256()
    for count in counts:
        request = adapter.request(count, endpoint)
        sent = (request.method, request.url, request.headers, request.body, request.dropped)
        digest.update(repr(sent).encode())
    assert (adapter.WIRE_VERSION, digest.hexdigest()[:16]) == GOLDEN[name]
