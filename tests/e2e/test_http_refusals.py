"""What is refused before any handler sees it is counted, by status and by nothing else."""

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.descriptors import Room
from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, MODEL, anthropic, model_list, question, request
from tests.e2e.receiver import until
from tests.server import Tallygate

Start = Callable[..., Tallygate]
NAME = "tallygate_http_refusals_total"
MAX_BODY_BYTES = 2_000
LIMIT = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
os.execv(sys.argv[1], sys.argv[1:])
"""
FEW = (sys.executable, "-c", LIMIT, sys.executable, "-m", "sanic", "app.main")
SPARE = Room.within(256, 1).spare
"""With so few descriptors, clients that are told that there is no room."""


@pytest.fixture(scope="module")
def server(start: Start, provider: SimulatedProvider) -> Tallygate:
    return start(
        {
            "model_list": model_list(**{MODEL: anthropic("claude-up", provider.url)}),
            "server": {"max_body_bytes": MAX_BODY_BYTES},
        }
    )


def refusals(server: Tallygate) -> dict[str, float]:
    """By status, without what is zero."""
    found = {
        name.removeprefix(f'{NAME}{{status="').removesuffix('"}'): value
        for name, value in server.metrics().items()
        if name.startswith(NAME) and value
    }
    assert len(found) < 20
    return found


def send(server: Tallygate, raw: bytes) -> bytes:
    """Send bytes, and return the status line that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(raw)
        return connection.recv(65_536).split(b"\r\n", 1)[0]


CHUNKED = {"transfer-encoding": "chunked", "content-type": "application/json"}
REFUSED = {
    "400": request(b"{}", headers={"bad header": "x"}),
    "400 in a body": request(b"no size\r\n", headers=CHUNKED),
    "404": request(b"{}", target=f"/{'x' * 50}"),
    "405": request(method="GET", target=COUNT),
    "413": request(b"x" * (MAX_BODY_BYTES + 1)),
    "413 in a body": request(b"%x\r\n" % 0xFFFFF, headers=CHUNKED),
    "413 of a head": request(b"{}", headers={"x": "y" * 20_000}),
    "417": request(b"{}", headers={"expect": "200-ok"}),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=list(REFUSED))
def test_each_is_counted_once(
    raw: bytes, request: pytest.FixtureRequest, server: Tallygate
) -> None:
    status = request.node.callspec.id.split(" ")[0]
    before = refusals(server).get(status, 0)
    requests = _requests(server)
    assert send(server, raw).startswith(f"HTTP/1.1 {status} ".encode())
    assert refusals(server)[status] == before + 1
    assert _requests(server) == requests


def _requests(server: Tallygate) -> float:
    shown = server.metrics().items()
    return sum(value for name, value in shown if name.startswith("tallygate_requests_total"))


def test_what_a_handler_refuses_is_no_refusal_of_http(server: Tallygate) -> None:
    before = refusals(server)
    for body in (b"{", b"{}", b'{"model":"nobody","messages":[]}'):
        assert server.count(body).status_code in {400, 404}
    assert server.count(question(), x_api_key="wrong").status_code == 401
    assert refusals(server) == before


def test_clients_beyond_the_room_are_counted(start: Start, provider: SimulatedProvider) -> None:
    """Those who are told, and those whose connection is closed without a word."""
    config: dict[str, Any] = {
        "model_list": model_list(**{MODEL: anthropic("claude-up", provider.url)}),
        "server": {"max_connections": 1},
    }
    server = start(config, command=FEW)
    until(lambda: _is_alone(server))
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        one.sendall(b"POST ")
        time.sleep(0.2)
        asked = send(server, request(b"{}"))
        assert asked.startswith(b"HTTP/1.1 529 ")
    until(lambda: _is_alone(server))
    assert refusals(server)["529"] >= 1
    crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1 + SPARE + 5)]
    for one in crowd[1 + SPARE :]:
        one.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""
    for one in crowd:
        one.close()
    until(lambda: _is_alone(server))
    assert refusals(server)["closed"] >= 5


def _is_alone(server: Tallygate) -> bool:
    """Say whether there is room for one: the connections before have been closed."""
    return send(server, request(method="GET", target="/health/liveliness")).endswith(b"200 OK")
