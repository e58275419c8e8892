"""Clients that are slow with what they send: nobody holds a connection for long with little."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import MODEL, Connection, anthropic, model_list, refused
from tests.faults.http_wire import CHUNKED, POST, head
from tests.server import Tallygate

PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    running = start({"model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)})})
    yield running
    running.stop()
    assert "Traceback" not in running.err.read_text()


SLOW = {
    "head-that-stops": (POST, 0.0),
    "head-that-trickles": (POST + b"\r\n" + b"x-a: b\r\n" * 60, 0.1),
    "body-that-stops": (head(b"Content-Length: 50") + b"{", 0.0),
    "body-that-trickles": (head(b"Content-Length: 5000") + b"{" + b" " * 900, 0.1),
    "body-that-never-begins": (head(b"Content-Length: 50"), 0.0),
    "body-on-invitation": (head(b"Content-Length: 50", b"Expect: 100-continue"), 0.0),
    "chunk-size-that-stops": (head(CHUNKED) + b"5", 0.0),
    "chunk-that-stops": (head(CHUNKED) + b"5\r\nhel", 0.0),
    "chunks-that-trickle": (head(CHUNKED) + b"1\r\n \r\n" * 300, 0.1),
    "last-chunk-that-stops": (head(CHUNKED) + b"0\r\n", 0.0),
    "body-of-a-web-socket": (head(b"Content-Length: 50", b"Upgrade: websocket"), 0.0),
}


def test_k1_slow_clients(server: Tallygate, provider: SimulatedProvider) -> None:
    """Whatever they are slow with: 408 after ten seconds and a little, and the end."""
    provider.clear()

    def slowly(kind: str) -> tuple[str, float]:
        wire, pause_s = SLOW[kind]
        begun = wire.find(b"\r\n\r\n") + 5 if b"\r\n\r\n" in wire else len(POST)
        started = time.monotonic()
        with Connection(server.port) as connection, ThreadPoolExecutor(1) as sender:

            def trickle() -> None:
                connection.send(wire[:begun])
                for number in range(begun, len(wire)):
                    if time.monotonic() > started + PATIENCE_S + 1:
                        return
                    connection.send(wire[number : number + 1])
                    time.sleep(pause_s)

            sent = sender.submit(trickle)
            response = connection.read()
            if response.status_code == 100:
                response = connection.read()
            took_s = time.monotonic() - started
            refused(response, 408, "timeout_error")
            assert response.headers["connection"] == "close"
            assert connection.ends()
            sent.exception()
        return kind, took_s

    with ThreadPoolExecutor(len(SLOW)) as pool:
        for kind, took_s in pool.map(slowly, SLOW):
            assert PATIENCE_S - 0.5 < took_s < PATIENCE_S + 5, (kind, took_s)
    assert provider.calls == 0
