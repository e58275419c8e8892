"""Clients that ask much at once, hang up, or hold on: rows K11, K12, K15, A6 and A7."""

import contextlib
import json
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import (
    JSON,
    MODEL,
    Connection,
    anthropic,
    counted,
    model_list,
    question,
    request,
    until,
)
from tests.faults.crowd import workers
from tests.server import Tallygate

DEEP = 1_000
LEAVING = 300
RESET = struct.pack("ii", 1, 0)
"""With which the close of a socket is an RST instead of a FIN (SO_LINGER)."""
IDLE = 5_000
MOST_BYTES_EACH = 32 * 1024
"""Of memory for a connection that is kept; what is printed is the claim."""
ENDLESS = 100
PIECE = b"a" * 2**16
PIECES = 16


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Iterator[Tallygate]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    running = start({"model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)})})
    yield running
    running.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "Traceback" not in running.err.read_text()


def _worker(server: Tallygate) -> Path:
    (pid,) = workers(server.pid).values()
    return Path(f"/proc/{pid}")


def _resident_bytes(server: Tallygate) -> int:
    return int((_worker(server) / "statm").read_text().split()[1]) * resource.getpagesize()


def _descriptors(server: Tallygate) -> int:
    return sum(1 for _ in (_worker(server) / "fd").iterdir())


def test_k12_pipelined(server: Tallygate) -> None:
    """A thousand questions sent before the first answer is read: each its own, in their order."""
    bodies = [question(extra="x" * number) for number in range(DEEP)]
    with Connection(server.port) as connection:
        connection.send(b"".join(request(msgspec.json.encode(body)) for body in bodies))
        for body in bodies:
            assert counted(connection.read()) == count_tokens(body)


WIRE = request(b'{"model":"' + MODEL.encode() + b'","messages":[{"role":"user","content":"a"}]}')
LEAVES = {
    "within-a-head": WIRE[:40],
    "within-a-body": WIRE[:-10],
    "before-the-answer": WIRE,
    "between-two": WIRE + WIRE[:60],
}


@pytest.mark.parametrize("abruptly", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("when", LEAVES)
def test_k12_clients_that_leave(
    server: Tallygate, provider: SimulatedProvider, when: str, abruptly: bool
) -> None:
    """Hundreds of them, some with a question out: nothing is left of them, the others go on."""
    provider.clear()
    provider.behave(delay_s=0.2)
    before, process = _descriptors(server), _worker(server)
    left = []
    for _ in range(LEAVING):
        one = socket.create_connection(("127.0.0.1", server.port))
        one.sendall(LEAVES[when])
        left.append(one)
    for one in left:
        if abruptly:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.close()
    provider.clear()
    body = question()
    assert counted(server.count(body)) == count_tokens(body)
    # What is pooled for the provider may be more by now.
    until(lambda: _descriptors(server) < before + 20)
    assert _worker(server) == process


def test_k12_half_closed(server: Tallygate) -> None:
    """A client that says it sends no more after its question is answered, and none waits."""
    before, answered = _descriptors(server), 0
    for _ in range(50):
        answered += _half_closed(server, WIRE) == 1
    print(f"{answered} of 50 answered")
    assert answered == 50
    until(lambda: _descriptors(server) < before + 20)


def test_k12_half_closed_behind_many(server: Tallygate) -> None:
    """All that it has asked whole is answered; what it has only begun is not."""
    assert _half_closed(server, WIRE * 100) == 100
    assert _half_closed(server, WIRE * 3 + WIRE[:-10]) == 3
    assert _half_closed(server, WIRE[:40]) == 0


def test_k12_half_closed_before_the_provider_has_answered(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """A miss is waited for, but not long: a client that has left says the same."""
    for delay_s, answers in ((0.1, 1), (3.0, 0)):
        provider.clear()
        provider.behave(delay_s=delay_s)
        wire = request(msgspec.json.encode(question()))
        began = time.monotonic()
        assert _half_closed(server, wire) == answers
        assert time.monotonic() - began < 2.5
    provider.clear()


def test_k12_half_closed_and_reads_nothing(server: Tallygate) -> None:
    """One that has ended its side and takes no answer is cut off: its place is free again."""
    before = _descriptors(server)
    wire = request(method="GET", target="/openapi.json") * 300
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(wire)
        deaf.shutdown(socket.SHUT_WR)
        until(lambda: _descriptors(server) > before)
        until(lambda: _descriptors(server) <= before)


def _half_closed(server: Tallygate, wire: bytes) -> int:
    """Send, end this side, and read to the end; return how many counts have come."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as one:
        one.sendall(wire)
        one.shutdown(socket.SHUT_WR)
        heard = b""
        while piece := one.recv(65_536):
            heard += piece
    return heard.count(b"HTTP/1.1 200 ")


def test_k11_heads_without_an_end(server: Tallygate) -> None:
    """A hundred that stay connected take little memory, and nothing from the others."""
    body = question()
    assert counted(server.count(body)) == count_tokens(body)
    before = _resident_bytes(server)
    with contextlib.ExitStack() as held:
        for _ in range(ENDLESS):
            one = held.enter_context(Connection(server.port))
            one.send(b"POST / HTTP/1.1\r\nx: ")
            with contextlib.suppress(OSError):  # closed by the server when it had enough
                for _ in range(PIECES):
                    one.send(PIECE)
        body = question()
        assert counted(server.count(body)) == count_tokens(body)
        grown = _resident_bytes(server) - before
    # The server reads on for a moment after a refusal, and its allocator keeps what it takes.
    print(f"{ENDLESS} heads that go on for a MiB each: {grown / 2**20:+.1f} MiB")
    assert grown < ENDLESS * PIECES * len(PIECE) / 2


def test_k12_large_questions_of_clients_who_have_left(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    """What a provider is still asked is held, and counts, though nobody waits for it."""
    models = model_list(**{MODEL: anthropic("claude-x", provider.url, timeout=3)})
    with start({"model_list": models, "server": {"max_held_bytes": 1_000_000}}) as server:
        provider.clear()
        provider.behave(hang=True, times=1)
        large = "x" * 700_000
        assert server.count(question(extra=large), x_litellm_timeout="0.1").status_code == 504
        crowded = server.count(question(extra=large))
        assert crowded.status_code == 529
        assert int(crowded.headers["retry-after"]) >= 1
        assert counted(server.count(question()))
        until(lambda: server.count(question(extra=large)).status_code == 200)


def test_k15_idle_connections(server: Tallygate) -> None:
    """Thousands that are kept, each after one question: a little memory each, and room for more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(IDLE, hard // 2 - 200)
    held = [Connection(server.port) for _ in range(8)]
    for one in held:
        one.send(WIRE)
        counted(one.read())
    before = _resident_bytes(server)
    for _ in range(number):
        one = Connection(server.port)
        held.append(one)
        one.send(WIRE)
        counted(one.read())
    each = (_resident_bytes(server) - before) / number
    print(f"{number} connections that are kept: {each / 1024:.1f} KiB each")
    body = question()
    assert counted(server.count(body)) == count_tokens(body)
    for one in held:
        one.close()
    assert each < MOST_BYTES_EACH


def test_a6_series_stay_as_many(server: Tallygate) -> None:
    """Whatever names clients make up, of models, of end users, of paths: no series more."""
    names = set(server.metrics())
    with Connection(server.port) as connection:
        for number in range(2_000):
            body = question(user=f"user-{number}")
            if number % 2:
                body["model"] = f"model-{number}"
            headers = {**JSON, "x-tallygate-end-user": f"end-user-{number}"}
            connection.send(request(msgspec.json.encode(body), headers=headers))
            assert connection.read().status_code in {200, 404}
            connection.send(request(method="GET", target=f"/path-{number}"))
            assert connection.read().status_code == 404
    assert set(server.metrics()) == names


def test_a7_lines_are_one_event_each(server: Tallygate) -> None:
    """Line ends and control sequences in what clients name stay within their line, and short."""
    odd = ("a\nb", '{"event":"count"}\n', "\x1b[2J", "\u2028", "\r\nx: y", '"}', "x" * 1_000_000)
    for text in odd:
        server.count(question(user=text))
        server.count(question(model=text[:200]))
    ids = {"x-request-id": "i" * 5000, "user-agent": "u" * 5000, "x-tallygate-end-user": "\x85é"}
    with Connection(server.port) as connection:
        connection.send(request(msgspec.json.encode(question()), headers={**JSON, **ids}))
        assert connection.read().status_code in {200, 400, 413}
    with Connection(server.port) as connection:
        connection.send(request(msgspec.json.encode(question("last"))))
        last = connection.read().headers["request-id"].encode()
    until(lambda: last in server.out.read_bytes())
    written = server.out.read_bytes()
    records = [json.loads(line) for line in written.split(b"\n")[:-1]]
    assert len({one["request_id"] for one in records if one["event"] == "count"}) == sum(
        one["event"] == "count" for one in records
    )
    assert not set(range(32)) - {10} & set(written)
    assert max(len(line) for line in written.split(b"\n")) < 4_000
