"""Requests that are wrong before their body is looked at, and what else shares their connection."""

import gzip
import zlib
from collections.abc import Callable, Iterator

import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    COUNT,
    JSON,
    MODEL,
    NATIVE,
    Connection,
    anthropic,
    counted,
    model_list,
    question,
    refused,
    request,
)
from tests.e2e.offence import CANARY, Offender
from tests.server import Tallygate

MAX_BODY_BYTES = 100_000
VALID = msgspec.json.encode(
    {"model": MODEL, "messages": [{"role": "user", "content": CANARY}], "new": CANARY}
)
CHUNKED = {"content-type": "application/json", "transfer-encoding": "chunked"}


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    """A talkative server that, when all is over, has said nothing of what it was sent."""
    running = start(
        {
            "server": {"max_body_bytes": MAX_BODY_BYTES},
            "model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}),
            "telemetry": {"log_level": "debug"},
        }
    )
    yield running
    running.stop()
    assert CANARY not in running.out.read_text() + running.err.read_text()


@pytest.mark.parametrize("length", [MAX_BODY_BYTES + 1, 10**9, 10**15])
def test_k2_too_long_by_announcement(offender: Offender, length: int) -> None:
    """Refused as soon as the length is known: not a byte of the body is waited for."""
    offender.refused(request(length=length), 413, "request_too_large")


def test_k2_too_long_is_not_invited(server: Tallygate) -> None:
    """A client that asks first is told 413, not 100."""
    headers = JSON | {"expect": "100-continue"}
    with Connection(server.port) as connection:
        connection.send(request(headers=headers, length=MAX_BODY_BYTES + 1))
        refused(connection.read(), 413, "request_too_large")
        assert connection.ends()


def test_k13_body_on_invitation(server: Tallygate) -> None:
    """A client that asks first, with a body that fits, is invited and answered."""
    body = msgspec.json.encode(question())
    with Connection(server.port) as connection:
        connection.send(request(headers=JSON | {"expect": "100-continue"}, length=len(body)))
        assert connection.read().status_code == 100
        connection.send(body)
        assert counted(connection.read())


def test_k13_other_expectation(offender: Offender) -> None:
    wire = request(VALID, headers=JSON | {"expect": f"200-{CANARY}"})
    offender.refused(wire, 417)


def _chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def test_chunked_body(server: Tallygate) -> None:
    """A body in chunks counts as any other."""
    body = msgspec.json.encode(question())
    with Connection(server.port) as connection:
        connection.send(request(headers=CHUNKED) + _chunks(body, 7) + b"0\r\n\r\n")
        first = connection.read()
        connection.send(request(body))
        second = connection.read()
    assert counted(first) == counted(second)
    assert second.headers["x-tallygate-source"] == "cache"


def test_k2_too_long_in_chunks(server: Tallygate, provider: SimulatedProvider) -> None:
    """A body in chunks is refused where it passes the limit."""
    chunk = _chunks(CANARY.encode() * 1000, 7000)
    with Connection(server.port) as connection:
        connection.send(request(headers=CHUNKED))
        for _chunk in range(MAX_BODY_BYTES // 7000 + 1):
            connection.send(chunk)
        refused(connection.read(), 413, "request_too_large")
        assert connection.ends()
    assert provider.calls == 0


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/plain; charset=utf-8",
        "multipart/form-data; boundary=kumquat",
        "application/x-www-form-urlencoded",
        "application/xml",
        "application/jsonp",
        "kumquat",
    ],
)
def test_k8_other_content_type(offender: Offender, kind: str) -> None:
    offender.refused(request(VALID, headers={"content-type": kind}), 415)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "Application/JSON"},
        {"content-type": "application/vnd.example+json"},
        {"content-type": "application/json", "content-encoding": "identity"},
    ],
    ids=["missing", "empty", "charset", "upper", "suffix", "identity"],
)
def test_k8_content_types_that_are_json(server: Tallygate, headers: dict[str, str]) -> None:
    with Connection(server.port) as connection:
        connection.send(request(msgspec.json.encode(question()), headers=headers))
        assert counted(connection.read())


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(VALID)),
        ("gzip", gzip.compress(b"0" * 10**7)),
        ("GZIP", VALID),
        ("gzip, gzip", gzip.compress(gzip.compress(VALID))),
        ("deflate", zlib.compress(VALID)),
        ("br", VALID),
        ("kumquat", VALID),
    ],
    ids=["gzip", "bomb", "only-said", "twice", "deflate", "br", "unknown"],
)
def test_k9_compressed_body(offender: Offender, encoding: str, body: bytes) -> None:
    """Nothing is unpacked."""
    offender.refused(request(body, headers=JSON | {"content-encoding": encoding}), 415)


def test_k9_compressed_body_that_does_not_say_so(offender: Offender) -> None:
    offender.refused(request(gzip.compress(VALID)), 400)


@pytest.mark.parametrize(
    "path",
    [
        "/kumquat",
        "/v1/messages/count_tokens/kumquat",
        "//v1/messages/count_tokens",
        "/v1//messages/count_tokens",
        "/v1/messages/../messages/count_tokens",
        "/v1/messages/count%5Ftokens/x",
        "/V1/messages/count_tokens",
        "/anthropic/v1/messages",
    ],
)
def test_k14_unknown_path(offender: Offender, path: str) -> None:
    offender.refused(request(VALID, target=path), 404, "not_found_error")


@pytest.mark.parametrize("path", [COUNT, NATIVE])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_k14_other_method(server: Tallygate, offender: Offender, method: str, path: str) -> None:
    offender.refused(request(VALID, method=method, target=path), 405)
    with Connection(server.port) as connection:
        connection.send(request(method=method, target=path))
        assert connection.read().headers["allow"] == "POST"


@pytest.mark.parametrize("path", [COUNT, NATIVE, "/kumquat"])
def test_k14_head(server: Tallygate, path: str) -> None:
    """The refusal of a HEAD has no body, so that the next answer is read as what it is."""
    with Connection(server.port) as connection:
        connection.send(request(method="HEAD", target=path))
        response = connection.read(to_head=True)
        assert response.status_code == (404 if path == "/kumquat" else 405)
        assert response.headers["request-id"].startswith("req_")
        if response.headers["connection"] == "close":
            assert connection.ends()
        else:
            connection.send(request(msgspec.json.encode(question())))
            assert counted(connection.read())


@pytest.mark.parametrize("path", [COUNT, NATIVE])
def test_k14_trailing_slash(server: Tallygate, path: str) -> None:
    """Served, or unknown; a POST is never redirected."""
    model = MODEL if path == COUNT else "claude-x"
    with Connection(server.port) as connection:
        connection.send(request(msgspec.json.encode(question(model)), target=f"{path}/"))
        response = connection.read()
    if response.status_code != 200:
        refused(response, 404, "not_found_error")


@pytest.mark.parametrize("count", [1, 100])
def test_k11_head_too_large(server: Tallygate, provider: SimulatedProvider, count: int) -> None:
    """9,000 bytes and more of headers, in one or in many: refused, and the connection closed."""
    headers = JSON | {f"x-{number}": CANARY * (9100 // count // 7) for number in range(count)}
    with Connection(server.port) as connection:
        connection.send(request(VALID, headers=headers))
        response = connection.read()
        assert response.status_code in {413, 431}
        refused(response, response.status_code, "request_too_large")
        assert CANARY not in response.text
        assert connection.ends()
    assert provider.calls == 0


@pytest.mark.parametrize(
    "version", ["2023 06 01", "2023-06-01\x7f", "é", "v" * 257, "2023-06-01, 2026-10-21"]
)
def test_bad_version(offender: Offender, version: str) -> None:
    wire = request(VALID, headers=JSON | {"anthropic-version": version})
    assert "anthropic-version" in offender.refused(wire, 400)


@pytest.mark.parametrize(
    "betas",
    [
        "a b",
        "a;b",
        "a-1,b\tc",
        "é",
        '"a-1"',
        "a-1,{}",
        "b" * 129,
        ",".join(f"b-{number}" for number in range(65)),
    ],
)
def test_bad_betas(offender: Offender, betas: str) -> None:
    wire = request(VALID, headers=JSON | {"anthropic-beta": betas})
    assert "anthropic-beta" in offender.refused(wire, 400)


@pytest.mark.parametrize("name", ["anthropic-user-profile-id", "anthropic-workspace-id"])
@pytest.mark.parametrize("value", ["a b", "é", "i" * 257])
def test_bad_identity(offender: Offender, name: str, value: str) -> None:
    assert name in offender.refused(request(VALID, headers=JSON | {name: value}), 400)


@pytest.mark.parametrize("query", ["é", "a=" + "b" * 1024])
def test_bad_query_of_the_pass_through(offender: Offender, query: str) -> None:
    """Only the pass-through sends a query on, so only there it can be wrong."""
    body = VALID.replace(MODEL.encode(), b"claude-x")
    offender.refused(request(body, target=f"{NATIVE}?{query}"), 400)


@pytest.mark.parametrize(
    "value", ["", "\xff", "sk-test-0123456789abcde\xef", "Bearer", "Bearer \x00", "k" * 7000]
)
def test_a1_odd_credential(server: Tallygate, provider: SimulatedProvider, value: str) -> None:
    """Whatever stands in a credential's header, it is a wrong key or a bad request."""
    with Connection(server.port) as connection:
        connection.send(request(VALID, headers=JSON | {"x-litellm-api-key": value}))
        response = connection.read()
    kinds = {400: "invalid_request_error", 401: "authentication_error"}
    refused(response, response.status_code, kinds[response.status_code])
    assert provider.calls == 0


def test_k12_bad_then_good_at_once(server: Tallygate, provider: SimulatedProvider) -> None:
    """Requests that were sent together are answered in their order, each for itself."""
    bodies = [b"{", msgspec.json.encode(question()), b"[]", msgspec.json.encode(question())]
    with Connection(server.port) as connection:
        connection.send(b"".join(request(body) for body in bodies))
        statuses = [connection.read().status_code for _body in bodies]
    assert statuses == [400, 200, 400, 200]
    assert provider.calls == 2


def test_k14_unknown_path_then_good_at_once(server: Tallygate) -> None:
    """A body that nobody read is not taken for the next request."""
    good = request(msgspec.json.encode(question()))
    with Connection(server.port) as connection:
        connection.send(request(VALID, target="/kumquat") + good)
        refused(connection.read(), 404, "not_found_error")
        assert counted(connection.read())


@pytest.mark.parametrize(
    "wire",
    [
        b"kumquat\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /v1/messages/count_tokens HTTP/9.9\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        request(VALID, length=-5),
        request(VALID, headers=JSON | {"content-length": "7"}),
        request(VALID, headers=CHUNKED | {"content-length": "7"}) + b"0\r\n\r\n",
        request(VALID, headers=JSON | {"transfer-encoding": "gzip, chunked"}),
        request(headers=CHUNKED) + b"kumquat\r\n",
        request(headers=CHUNKED) + b"-5\r\nkumquat\r\n0\r\n\r\n",
    ],
    ids=[
        "no-request",
        "http-0.9",
        "http-9.9",
        "http-2",
        "nothing",
        "negative-length",
        "two-lengths",
        "length-and-chunks",
        "other-coding",
        "no-chunk",
        "negative-chunk",
    ],
)
def test_k10_malformed_http(server: Tallygate, provider: SimulatedProvider, wire: bytes) -> None:
    """What cannot be read as one request: 400 in Anthropic's shape, and the connection closed."""
    with Connection(server.port) as connection:
        connection.send(wire)
        response = connection.read()
        refused(response, 400, "invalid_request_error")
        assert CANARY not in response.text
        assert connection.ends()
    assert provider.calls == 0
