"""What leaves, and where to, whatever a client sends: outgoing headers and SSRF. Rows A4 and A5."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from bench.provider import SimulatedProvider
from bench.provider.exchange import Request
from tests.e2e.exchange import (
    COUNT,
    JSON,
    NATIVE,
    Connection,
    anthropic,
    model_list,
    question,
    refused,
    request,
)
from tests.e2e.stubs import Login
from tests.faults.scripted_provider import ScriptedProvider
from tests.server import KEY, Tallygate

ODD_HEADERS = 200
CLAUDE = "claude-3-5-sonnet"
SIGNED = r"AWS4-HMAC-SHA256 Credential=AKIA1/\d{8}/us-west-2/%s/aws4_request, SignedHeaders=%s, .*"

Fields = dict[str, str]
COMMON: Fields = {
    "content-type": "application/json",
    "accept": "application/json",
    "user-agent": r"tallygate/[0-9.]+",
    "content-length": r"\d+",
}
VERSION = {"anthropic-version": "2023-06-01"}
TOKEN = {"authorization": "Bearer token-1"}
SIGNATURE = {
    "x-amz-date": r"\d{8}T\d{6}Z",
    "authorization": SIGNED % ("bedrock", "accept;content-type;host;x-amz-date"),
}
MANTLE_SIGNATURE = {
    "x-amz-date": r"\d{8}T\d{6}Z",
    "authorization": r"AWS4-HMAC-SHA256 Credential=AKIA1/\d{8}/us-west-2/[a-z-]+/aws4_request, .*",
}
SENT: dict[str, Fields] = {
    "anthropic": COMMON | VERSION | {"x-api-key": "sk-ant-api03-upstream"},
    "vertex-claude": COMMON | TOKEN,
    "vertex-gemini": COMMON | TOKEN,
    "gemini": COMMON | {"x-goog-api-key": "gemini-key"},
    "bedrock": COMMON | SIGNATURE,
    "mantle": COMMON | VERSION | MANTLE_SIGNATURE,
}
"""Each header that leaves, beside host, and what its whole value is like: no other does."""
PATHS = {
    "anthropic": r"/v1/messages/count_tokens",
    "vertex-claude": r"/v1/projects/p-1/locations/us-east5/publishers/anthropic/models"
    r"/count-tokens:rawPredict",
    "vertex-gemini": r"/v1/projects/p-1/locations/us-east5/publishers/google/models"
    r"/[^/?#:]+:countTokens",
    "gemini": r"/v1beta/models/[^/?#:]+:countTokens",
    "bedrock": r"/model/[^/?#]+/count-tokens",
    "mantle": r"/anthropic/v1/messages/count_tokens",
}
MODELS = {
    "anthropic": "anthropic/claude-3-5-sonnet",
    "vertex-claude": "vertex_ai/claude-sonnet-4-6",
    "vertex-gemini": "vertex_ai/gemini-2.5-flash",
    "gemini": "gemini/gemini-2.5-flash",
    "bedrock": "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0",
    "mantle": "bedrock/mantle/anthropic.claude-opus-4-7",
}
WILD = {
    "anthropic": "anthropic/*",
    "vertex-claude": "vertex_ai/claude*",
    "vertex-gemini": "vertex_ai/*",
    "gemini": "gemini/*",
    "bedrock": "bedrock/*",
    "mantle": "bedrock/mantle/*",
}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ScriptedProvider]:
    """Where nothing may ever lead."""
    with ScriptedProvider() as running:
        yield running


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    """Every provider, by its name and behind a wildcard."""
    with Login() as login:
        account = msgspec.json.encode(login.service_account()).decode()
        google = {
            "vertex_project": "p-1",
            "vertex_location": "us-east5",
            "vertex_credentials": account,
        }
        amazon = {
            "aws_region_name": "us-west-2",
            "aws_access_key_id": "AKIA1",
            "aws_secret_access_key": "secret",
            "aws_bedrock_runtime_endpoint": provider.url,
            "aws_bedrock_mantle_endpoint": f"{provider.url}/anthropic",
        }
        here = {"api_base": provider.url}
        params: dict[str, dict[str, str]] = {
            "anthropic": anthropic("", provider.url),
            "vertex-claude": google | here,
            "vertex-gemini": google | here,
            "gemini": here | {"api_key": "gemini-key"},
            "bedrock": amazon,
            "mantle": amazon,
        }
        models = {name: given | {"model": MODELS[name]} for name, given in params.items()}
        models |= {WILD[name]: given | {"model": WILD[name]} for name, given in params.items()}
        yield start({"model_list": model_list(**models)})


def counting(provider: SimulatedProvider) -> None:
    """Let it forget, and answer whatever is asked."""
    provider.clear()
    provider.behave(body={"totalTokens": 77, "inputTokens": 77, "input_tokens": 77})


@pytest.fixture(autouse=True)
def _willing(provider: SimulatedProvider) -> None:
    counting(provider)


def odd_headers() -> Iterator[tuple[str, str]]:
    """What clients, gateways and attackers add."""
    chance = random.Random(4)
    evil = "evil.example"
    fixed = {
        "connection": ["x-api-key, anthropic-version", "keep-alive, trailer", "upgrade"],
        "keep-alive": ["timeout=5"],
        "proxy-connection": ["keep-alive"],
        "proxy-authorization": ["Basic Og=="],
        "te": ["trailers"],  # codespell:ignore te
        "trailer": ["x-api-key"],
        "upgrade": ["h2c", "websocket"],
        "http2-settings": ["AAMAAABkAAQAAP__"],
        "cookie": ["session=1", "a=b; c=d"],
        "set-cookie": ["a=b"],
        "forwarded": [f"for=1.2.3.4;host={evil}"],
        "via": ["1.1 evil"],
        "range": ["bytes=0-1"],
        "if-none-match": ["*"],
        "accept": ["text/html", "*/*"],
        "accept-encoding": ["gzip, br, zstd"],
        "accept-language": ["de"],
        "content-language": ["de"],
        "content-encoding": ["identity", "gzip"],
        "content-type": ["application/json; charset=utf-8", "text/plain", "multipart/form-data"],
        "user-agent": ["evil/1.0"],
        "origin": [f"https://{evil}"],
        "referer": [f"https://{evil}/?a"],
        "expect": ["100-continue"],
        "x-http-method-override": ["DELETE"],
        "anthropic_version": ["1"],
        "anthropic-organization-id": ["org-1"],
        "anthropic-dangerous-direct-browser-access": ["true"],
        "x-goog-user-project": ["evil"],
        "x-goog-api-client": ["evil"],
        "x-goog-api_key": ["evil"],
        "x-amz-target": ["evil"],
        "x-amz-content-sha256": ["UNSIGNED-PAYLOAD"],
        "x-amzn-bedrock-guardrailidentifier": ["evil"],
        "transfer_encoding": ["chunked"],
        "content_length": ["0"],
        "host_": [evil],
    }
    for name, values in fixed.items():
        yield from ((name, value) for value in values)
    for stem in ("for", "host", "proto", "port", "prefix", "server", "client-cert"):
        yield f"x-forwarded-{stem}", evil
    targets = ("api-base", "api_base", "base-url", "api-key", "vertex-location", "aws-region-name")
    for prefix in ("x-", "x-litellm-", "llm_provider-", ""):
        for stem in targets:
            if f"{prefix}{stem}" not in {"x-litellm-api-key", "x-api-key"}:
                yield f"{prefix}{stem}", f"http://{evil}"
    for name in ("x-original-url", "x-rewrite-url", "x-host", "x-real-ip", "x-request-id"):
        yield name, evil
    yield "x-a", "a\r\nx-api-key: evil"  # a whole line end: two headers, before it reaches us
    for end in ("\n", "\r", "\0", "\x0b", "%0d%0a", "\\r\\n", "\u0085"):
        for name in ("x-a", "anthropic-version", "anthropic-beta", "anthropic-workspace-id"):
            yield name, f"a{end}x-api-key: evil"
    letters = "abcdefghijklmnopqrstuvwxyz-_!#$%&'*+.^`|~0123456789"
    while True:
        name = "".join(chance.choices(letters, k=chance.randrange(1, 30)))
        yield f"z{name}", "".join(chr(chance.randrange(33, 127)) for _ in range(40))


def ask(
    server: Tallygate, body: dict[str, Any], headers: dict[str, str], target: str = COUNT
) -> int:
    wire = request(msgspec.json.encode(body), headers=JSON | headers, target=target)
    with Connection(server.port) as connection:
        connection.send(wire)
        while (status := connection.read().status_code) < 200:
            pass
        return status


def check(sent: Request, name: str, base: str, more: Fields | None = None) -> None:
    """It has gone to its one address, with exactly these headers."""
    assert re.fullmatch(PATHS[name], sent.target), sent.target
    headers = [(one.decode().lower(), value.decode("latin-1")) for one, value in sent.raw_headers]
    expected = SENT[name] | {"host": re.escape(urlsplit(base).netloc)} | (more or {})
    assert sorted(field for field, _ in headers) == sorted(expected)
    for field, value in headers:
        assert re.fullmatch(expected[field], value), (field, value)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", SENT)
def test_a4_only_listed_headers_leave(
    server: Tallygate, provider: SimulatedProvider, name: str
) -> None:
    odd = odd_headers()
    statuses = []
    for _ in range(ODD_HEADERS):
        field, value = next(odd)
        status = ask(server, question(name), {field: value})
        sent = provider.requests
        assert len(sent) == (status == 200), (field, value, status)
        for one in sent:
            check(one, name, provider.url)
        statuses.append(status)
        counting(provider)
    assert set(statuses) <= {200, 400, 415, 417}
    print(f"a4: {name}: {ODD_HEADERS} odd headers, {statuses.count(200)} requests taken")
    assert statuses.count(200) > ODD_HEADERS / 2


def test_a4_headers_that_decide_the_count_leave_as_they_are(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    headers = {
        "anthropic-version": "2099-01-01",
        "anthropic-beta": "b-2,a-1",
        "anthropic-workspace-id": "w",
        "connection": "anthropic-version, anthropic-beta",
    }
    assert ask(server, question("anthropic"), headers) == 200
    (sent,) = provider.requests
    more = {
        "anthropic-version": "2099-01-01",
        "anthropic-beta": "a-1,b-2,token-counting-2024-11-01",
        "anthropic-workspace-id": "w",
    }
    check(sent, "anthropic", provider.url, more)


TARGETS = (
    "api_base",
    "base_url",
    "api_key",
    "vertex_location",
    "vertex_project",
    "aws_region_name",
    "aws_bedrock_runtime_endpoint",
    "custom_llm_provider",
    "litellm_params",
    "extra_headers",
    "headers",
    "proxy",
)


@pytest.mark.parametrize("name", SENT)
def test_a5_no_field_header_or_query_leads_elsewhere(
    server: Tallygate, provider: SimulatedProvider, elsewhere: ScriptedProvider, name: str
) -> None:
    for target in TARGETS:
        values: list[Any] = [elsewhere.url, {"api_base": elsewhere.url}, f"x.{elsewhere.url}/"]
        for value in values:
            status = ask(server, question(name, **{target: value}), {})
            assert status in (200, 400)
        query = f"{COUNT}?{target}={quote(elsewhere.url, safe='')}"
        assert ask(server, question(name), {target.replace("_", "-"): elsewhere.url}, query) == 200
    for sent in provider.requests:
        check(sent, name, provider.url)
    assert elsewhere.connections == 0


NAMES = (
    "..",
    ".",
    "../..",
    "../../admin",
    "%2e%2e",
    "%2e%2e/x",
    "..%2f..%2fx",
    "a/../../b",
    "a%2fb",
    "a%00b",
    "@evil.example",
    "x@evil.example:80",
    "x@evil.example/",
    "//evil.example/x",
    "http://evil.example/x",
    "\\..\\x",
    "..\\",
    "x?y=z",
    "x#y",
    "x;y",
    "x:generateContent",
    "x:generateContent?",
    "x y",
    "x\ty",
    "x\r\nhost: evil.example",
    "x\ud7ffy",
    "\uff0e\uff0e",
    "\u2025/\u2215",
    "x.evil.example/us-east5",
)


@pytest.mark.parametrize("name", SENT)
def test_a5_no_model_leads_elsewhere(
    server: Tallygate, provider: SimulatedProvider, elsewhere: ScriptedProvider, name: str
) -> None:
    taken = 0
    before = WILD[name].removesuffix("*")
    for model in (*NAMES, f"@127.0.0.1:{elsewhere.port}", f"x@127.0.0.1:{elsewhere.port}/"):
        status = ask(server, question(before + model), {})
        assert status in (200, 400, 404), model
        taken += status == 200
    assert len(provider.requests) == taken
    for sent in provider.requests:
        check(sent, name, provider.url)
        segments = sent.path.lower().replace("%2e", ".").split("/")
        assert not {".", ".."} & set(segments)
    assert elsewhere.connections == 0
    print(f"a5: {name}: {taken} of {len(NAMES) + 2} odd models asked about")


def test_a5_on_the_pass_through(
    server: Tallygate, provider: SimulatedProvider, elsewhere: ScriptedProvider
) -> None:
    for tail in ("?api_base=x", "?beta=true", f"?@127.0.0.1:{elsewhere.port}/", "?/../..", "?\\"):
        status = ask(server, question(), {}, NATIVE + tail)
        assert status in (200, 400), tail
    for sent in provider.requests:
        assert sent.path == "/v1/messages/count_tokens"
        assert sent.headers["host"] == urlsplit(provider.url).netloc
    for target in (f"{NATIVE}/../../x", f"/anthropic/..{COUNT}", f"/anthropic//v1{COUNT}"):
        before = provider.calls
        assert ask(server, question(), {}, target) in (400, 404)
        assert provider.calls == before
    assert elsewhere.connections == 0


def test_a5_the_host_header_decides_nothing(
    server: Tallygate, provider: SimulatedProvider, elsewhere: ScriptedProvider
) -> None:
    there = f"127.0.0.1:{elsewhere.port}"
    body = msgspec.json.encode(question("anthropic"))
    hosts = (there, f"x@{there}", f"{there}/?x", f"{there}#", "evil.example", "localhost:80")
    for host in hosts:
        wire = request(msgspec.json.encode(question("anthropic")))
        with Connection(server.port) as connection:
            connection.send(wire.replace(b"host: 127.0.0.1", f"host: {host}".encode()))
            assert connection.read().status_code in (200, 400)
    absolute = request(body).replace(b"POST ", f"POST http://{there}".encode())
    with Connection(server.port) as connection:
        connection.send(absolute)
        refused(connection.read(), 400, "invalid_request_error")
    for sent in provider.requests:
        check(sent, "anthropic", provider.url)
    assert elsewhere.connections == 0
    assert KEY not in str([sent.raw_headers for sent in provider.requests])
