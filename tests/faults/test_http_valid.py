"""What real clients send, however it is split on its way: the same answers as ever."""

import asyncio
import http.client
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    BEARER,
    COUNT,
    JSON,
    MODEL,
    Connection,
    anthropic,
    counted,
    model_list,
    question,
    refused,
    request,
)
from tests.faults.http_wire import POST, body, chunked, chunks, head, sized
from tests.server import KEY, ROOT, Tallygate

CAPTURES = {
    path.stem: seen["headers"]
    for path in sorted((ROOT / "tests/fixtures/wire/captures").glob("*.json"))
    if "headers" in (seen := msgspec.json.decode(path.read_bytes()))
}
CREDENTIALS = {"authorization", "x-api-key", "x-goog-api-key", "api-key", "x-amz-security-token"}
MAX_BODY_BYTES = 2 * 2**20


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    running = start(
        {
            "server": {"max_body_bytes": MAX_BODY_BYTES},
            "model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}),
        }
    )
    yield running
    running.stop()
    assert "Traceback" not in running.err.read_text()


def captured(client: str, content: bytes) -> bytes:
    """Write a request with the very headers that a client was seen to send."""
    seen = CAPTURES[client].items()
    fields = {name: value for name, value in seen if name.lower() not in CREDENTIALS}
    fields |= {"host": "localhost:4000", "content-length": str(len(content))}
    fields = {"authorization": f"Bearer {KEY}", **fields}
    lines = [POST.decode(), *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + content


def pieces(wire: bytes, seed: int) -> Iterator[bytes]:
    """Split a wire in places that are random, but the same for each seed."""
    chance = random.Random(seed)
    places = sorted(chance.sample(range(1, len(wire)), min(8, len(wire) - 1)))
    for start, end in zip([0, *places], [*places, len(wire)], strict=True):
        yield wire[start:end]


@pytest.mark.parametrize("client", CAPTURES)
def test_captured_heads(server: Tallygate, client: str) -> None:
    """Whole, and in pieces on a kept connection: one answer."""
    content = body()
    with Connection(server.port) as connection:
        connection.send(captured(client, content))
        first = counted(connection.read())
        for piece in pieces(captured(client, content), seed=len(client)):
            connection.send(piece)
            time.sleep(0.002)
        assert counted(connection.read()) == first


@pytest.mark.parametrize("wire", [sized(), chunked(chunks(body(), 9))], ids=["length", "chunks"])
def test_byte_by_byte(server: Tallygate, wire: bytes) -> None:
    with Connection(server.port) as connection:
        for number in range(len(wire)):
            connection.send(wire[number : number + 1])
            time.sleep(0.001)
        assert counted(connection.read())
        connection.send(sized())
        assert counted(connection.read())


@pytest.mark.parametrize("size", [1, 2, 7, 4096, 70_000, MAX_BODY_BYTES])
def test_large_bodies_in_chunks(server: Tallygate, size: int) -> None:
    """Of any size up to the limit, and in any grain, with the next request right behind."""
    asked = question() | {"system": "a" * (200_000 if size < 10 else MAX_BODY_BYTES - 1000)}
    content = msgspec.json.encode(asked)
    wire = chunked(chunks(content, size)) + request(content)
    with Connection(server.port) as connection, ThreadPoolExecutor(1) as sender:
        sender.submit(connection.send, wire)
        first, second = connection.read(), connection.read()
    assert counted(first) == counted(second)
    assert second.headers["x-tallygate-source"] == "cache"


@pytest.mark.parametrize(
    "coded",
    [
        b"%X\r\n%b\r\n000\r\n\r\n",
        b"000%x\r\n%b\r\n0\r\n\r\n",
        b"%016x\r\n%b\r\n0000000000000000\r\n\r\n",
    ],
)
def test_other_spellings_of_sizes(server: Tallygate, coded: bytes) -> None:
    content = body()
    with Connection(server.port) as connection:
        connection.send(chunked(coded % (len(content), content)))
        assert counted(connection.read())
        connection.send(sized())
        assert counted(connection.read())


def test_clients_that_send_chunks(server: Tallygate) -> None:
    """httpx, aiohttp and the standard library's, each with a body whose length it does not know."""
    asked = body()
    url, headers = f"{server.url}{COUNT}", BEARER | JSON
    parts = [asked[:5], asked[5:40], asked[40:]]
    expected = counted(httpx.post(url, headers=headers, content=asked))
    assert counted(httpx.post(url, headers=headers, content=iter(parts))) == expected

    async def by_aiohttp() -> Any:
        async def produce() -> Any:
            for part in parts:
                yield part

        async with (
            aiohttp.ClientSession() as session,
            session.post(url, headers=headers, data=produce()) as response,
        ):
            return (await response.json())["input_tokens"]

    assert asyncio.run(by_aiohttp()) == expected
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", COUNT, iter(parts), headers, encode_chunked=True)
    assert msgspec.json.decode(connection.getresponse().read())["input_tokens"] == expected
    connection.close()


OLD = POST.replace(b"1.1", b"1.0")
KEPT = {
    "1.0-kept": sized(b"Connection: keep-alive", line=OLD),
    "web-socket": sized(b"Upgrade: websocket"),
    "tabs": sized(b"X-A:\ta\t"),
    "empty-value": sized(b"X-A:"),
    "utf-8": sized("X-A: \N{LATIN SMALL LETTER E WITH ACUTE}".encode()),
    "underscore": sized(b"transfer_encoding: chunked"),
    "slash": sized(line=POST.replace(b" HTTP", b"/ HTTP")),
    "query": sized(line=POST.replace(b" HTTP", b"?beta=true&a=/?:@%20 HTTP")),
    "v6-host": sized(hosts=(b"host:[::1]:4000 ",)),
    "host-without-port": sized(hosts=(b"HOST: a_b.example:",)),
}
CLOSED = {
    "1.0": sized(line=OLD, hosts=()),
    "1.0-expecting": sized(b"Expect: 100-continue", line=OLD),
    "close": sized(b"Connection: close"),
    "keep-alive-and-te": sized(b"Connection: Keep-Alive, TE"),  # codespell:ignore
    "h2c": sized(b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
}


@pytest.mark.parametrize("kind", [*KEPT, *CLOSED])
def test_odd_but_well_formed(server: Tallygate, kind: str) -> None:
    """Answered; the connection is kept when the client wants it, and closed otherwise."""
    with Connection(server.port) as connection:
        connection.send((KEPT | CLOSED)[kind])
        assert counted(connection.read())
        if kind in KEPT:
            connection.send(sized())
            assert counted(connection.read())
        else:
            assert connection.ends()


@pytest.mark.parametrize("padding", [b"5 ", b"\t5", b"0000005"])
def test_lengths_that_are_well_formed(server: Tallygate, padding: bytes) -> None:
    """Five bytes are read, and the next request is the next request."""
    with Connection(server.port) as connection:
        connection.send(head(b"Content-Length: " + padding) + b"hello" + sized())
        refused(connection.read(), 400, "invalid_request_error")
        assert counted(connection.read())


@pytest.mark.parametrize("method", ["get", "head", "KUMQUAT", "GET", "OPTIONS", "P!T"])
def test_k14_other_methods(server: Tallygate, method: str) -> None:
    """Refused with a body, read with theirs; only HEAD has an answer without one."""
    with Connection(server.port) as connection:
        connection.send(request(body(), method=method) + sized())
        refused(connection.read(), 405, "invalid_request_error")
        assert counted(connection.read())


@pytest.mark.parametrize("path", [b"//g", b"/x/../g", b"/%67", b"/%00", b"/%ff", b"/g;a=%0d%0a"])
def test_k14_odd_paths(server: Tallygate, path: bytes) -> None:
    """Nothing is made of a path but to look for it."""
    with Connection(server.port) as connection:
        connection.send(sized(line=b"POST %b HTTP/1.1" % path) + sized())
        refused(connection.read(), 404, "not_found_error")
        assert counted(connection.read())


def test_k12_many_at_once(server: Tallygate) -> None:
    """A thousand requests sent together are answered one by one, in their order."""
    contents = [body() for _number in range(4)]
    wires = [request(contents[number % 4][: None if number % 3 else 9]) for number in range(1000)]
    with Connection(server.port) as connection, ThreadPoolExecutor(1) as sender:
        sender.submit(connection.send, b"".join(wires))
        statuses = [connection.read().status_code for _wire in wires]
    assert statuses == [200 if number % 3 else 400 for number in range(1000)]
