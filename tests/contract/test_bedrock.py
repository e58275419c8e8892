"""Claude on AWS against recorded traffic: what boto3, aiobotocore and Anthropic's SDK send, and
what AWS answers.

Freedoms in a comparison, all others being faults: the order of the inner JSON's own members, and
white space. Not sent at all: the captures of `boto3_bedrock_converse`, because Converse is another
request (it has no form for tool_choice none, cache details, thinking and some names), whose count
differs from the one asked for.
"""

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
        ('{"type":"enabled","budget_tokens":0}', 1),
        ('{"type":"enabled","budget_tokens":-5}', 1),
        ("null", 1),
        ("7", 1),
    ],
)
def test_max_tokens_leaves_room_for_thinking(thinking: str, max_tokens: int) -> None:
    body = b'{"messages":[],"thinking":%b}' % thinking.encode()
    sent = json.loads(inner(CountRequest(body, "2023-06-01")))
    assert sent["max_tokens"] == max_tokens
    assert sent["thinking"] == json.loads(thinking)


def test_betas_that_bedrock_knows_go_into_the_runtimes_body() -> None:
    betas = "context-1m-2025-08-07,claude-code-20250219,interleaved-thinking-2025-05-14"
    sent = json.loads(inner(question("01_simple", anthropic_beta=betas)))
    assert sent["anthropic_beta"] == sorted(betas.split(","))
    assert "anthropic_beta" not in json.loads(inner(question("01_simple", anthropic_beta="a-1")))


# Of Claude Code on Anthropic's own API: Bedrock answers "invalid beta flag" to each (CLIProxyAPI
# 4750, claude-code 30926 and 56595, LiteLLM 19877, 2026).
REFUSED = (
    "advanced-tool-use-2025-11-20",
    "extended-cache-ttl-2025-04-11",
    "fast-mode-2026-02-01",
    "mcp-servers-2025-12-04",
    "oauth-2025-04-20",
    "prompt-caching-scope-2026-01-05",
    "redact-thinking-2026-02-12",
    "token-counting-2024-11-01",
)


def test_betas_that_bedrock_refuses_are_left_out_and_named() -> None:
    count = CountRequest(BODY, "2023-06-01", (*REFUSED, "context-1m-2025-08-07"))
    assert json.loads(inner(count))["anthropic_beta"] == ["context-1m-2025-08-07"]
    dropped = RUNTIME.request(count, runtime()).dropped
    assert dropped == tuple(f"anthropic-beta:{beta}" for beta in REFUSED)


@pytest.mark.parametrize(
    ("beta", "member"),
    [
        ("compact-2026-01-12", b'"context_management":{"edits":[{"type":"compact_20260112"}]}'),
        ("computer-use-2025-01-24", b'"tools":[{"type":"computer_20250124"}]'),
        ("context-management-2025-06-27", b'"context_management":{"edits":[]}'),
        ("effort-2025-11-24", b'"output_config":{"effort":"low"}'),
        ("tool-examples-2025-10-29", b'"tools":[{"name":"t","input_examples":[{}]}]'),
        ("tool-search-tool-2025-10-19", b'"tools":[{"name":"t","defer_loading":true}]'),
        (
            "tool-search-tool-2025-10-19",
            b'"tools":[{"type":"tool_search_tool_regex_20251119","name":"s"}]',
        ),
    ],
)
def test_a_beta_goes_to_the_runtime_beside_what_it_licenses(beta: str, member: bytes) -> None:
    licensed = CountRequest(b'{"messages":[],%b}' % member, "2023-06-01", (beta,))
    assert json.loads(inner(licensed))["anthropic_beta"] == [beta]
    alone = CountRequest(
        b'{"messages":[],"tools":[{"name":"t","input_schema":{"effort":1,"input_examples":2,'
        b'"defer_loading":3,"context_management":4}}]}',
        "2023-06-01",
        (beta,),
    )
    assert RUNTIME.request(alone, runtime()).dropped == (f"anthropic-beta:{beta}",)


@pytest.mark.parametrize("name", ["output_config", "tools"])
@pytest.mark.parametrize("odd", ['"effort defer_loading"', "[1]", "null", '{"x":{"effort":1}}'])
def test_a_member_of_an_odd_shape_licenses_nothing(name: str, odd: str) -> None:
    body = b'{"%b":%b,"x":{"effort":1,"defer_loading":1}}' % (name.encode(), odd.encode())
    betas = ("effort-2025-11-24", "tool-search-tool-2025-10-19")
    assert "anthropic_beta" not in json.loads(inner(CountRequest(body, "2023-06-01", betas)))


DIALECT = (
    b'{"anthropic_beta":["tool-x","context-1m-2025-08-07"],"anthropic_version":"%b","messages":[]}'
)


@pytest.mark.parametrize(
    ("version", "sent_as"),
    [("bedrock-2099", "bedrock-2099"), ("vertex-2023-10-16", "bedrock-2023-05-31")],
)
def test_a_client_of_a_clouds_own_dialect_gets_no_member_twice(version: str, sent_as: str) -> None:
    betas = ("claude-code-20250219", "context-1m-2025-08-07")
    count = CountRequest(DIALECT % version.encode(), "2023-06-01", betas)
    assert inner(count) == (
        b'{"anthropic_version":"%b","max_tokens":1,'
        b'"anthropic_beta":["claude-code-20250219","context-1m-2025-08-07"],"messages":[]}'
        % sent_as.encode()
    )
    assert RUNTIME.request(count, runtime()).dropped == ("anthropic-beta:tool-x",)


def test_mantle_gets_bedrocks_own_dialect_as_headers() -> None:
    count = CountRequest(DIALECT % b"bedrock-2023-05-31", "2023-06-01", ("a",))
    request = MANTLE.request(count, mantle())
    assert json.loads(request.body) == {"model": MODEL, "messages": []}
    headers = dict(request.headers)
    assert headers["anthropic-beta"] == "a,context-1m-2025-08-07,tool-x"
    assert headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize(
    "member", [b'"anthropic_beta":"a"', b'"anthropic_beta":[1]', b'"anthropic_version":1']
)
def test_a_dialect_that_cannot_be_read_is_refused_by_its_place(member: bytes) -> None:
    name = member.decode().split('"')[1]
    for adapter, endpoint in ((RUNTIME, runtime()), (MANTLE, mantle())):
        with pytest.raises(CannotExpressError, match=f"^{name}: must be"):
            adapter.request(CountRequest(b'{%b,"messages":[]}' % member, "2023-06-01"), endpoint)


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
    count = CountRequest(BODY, "2026-10-21", ("token-counting-2024-11-01",), identity)
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
