"""What is not one request by the grammar of HTTP: refused, and nothing behind it runs."""

import sys
from collections.abc import Callable, Iterator

import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import MODEL, Connection, anthropic, counted, model_list, refused
from tests.faults import http_wire as wires
from tests.faults.http_wire import HOST, MAX_BODY_BYTES, POST, behind, head, sized
from tests.server import Tallygate


@pytest.fixture(scope="module")
def config(provider: SimulatedProvider) -> dict[str, object]:
    return {
        "server": {"max_body_bytes": MAX_BODY_BYTES},
        "model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}),
    }


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], config: dict[str, object]) -> Iterator[Tallygate]:
    running = start(config)
    yield running
    running.stop()
    assert "Traceback" not in running.err.read_text()


@pytest.fixture
def refuse(server: Tallygate, provider: SimulatedProvider) -> Callable[..., None]:
    """Send what must be refused and a request behind it; see one refusal, and then the end."""

    def check(wire: bytes, status: int = 400, type_: str = "invalid_request_error") -> None:
        with Connection(server.port) as connection:
            connection.send(wire + behind())
            response = connection.read()
            refused(response, status, type_)
            assert response.headers["connection"] == "close", wire
            assert connection.ends(), wire
        assert provider.calls == 0, wire

    provider.clear()
    return check


@pytest.mark.parametrize("kind", MEASURED := wires.measured())
def test_k10_measured_cases(refuse: Callable[..., None], kind: str) -> None:
    refuse(MEASURED[kind])


@pytest.mark.parametrize(
    "table",
    [
        wires.codings,
        wires.lengths,
        wires.names,
        wires.values,
        wires.targets,
        wires.methods,
        wires.line_ends,
        wires.codes,
    ],
    ids=lambda table: table.__name__,
)
def test_k10_generated_cases(
    refuse: Callable[..., None], table: Callable[[], Iterator[bytes]]
) -> None:
    for wire in table():
        refuse(wire)


@pytest.mark.parametrize(
    "fields",
    [
        [b"Content-Length: %d" % (MAX_BODY_BYTES + 1)],
        [b"Content-Length: %d" % (MAX_BODY_BYTES + 1), b"Expect: 100-continue"],
        [b"Content-Length: 1" + b"0" * 30],
        [b"Content-Length: " + b"9" * 5000],
    ],
    ids=["body", "body-on-invitation", "10-to-the-30", "5000-digits"],
)
def test_k2_too_large_a_body(refuse: Callable[..., None], fields: list[bytes]) -> None:
    refuse(head(*fields), 413, "request_too_large")


@pytest.mark.parametrize(
    "fields",
    [
        [b"X-A: " + b"a" * 9000],
        [b"X-%d: %b" % (number, b"a" * 90) for number in range(100)],
    ],
    ids=["header", "headers"],
)
def test_k11_too_large_a_head(refuse: Callable[..., None], fields: list[bytes]) -> None:
    refuse(head(*fields), 413, "request_too_large")


def test_k2_too_large_a_chunk(refuse: Callable[..., None]) -> None:
    refuse(wires.chunked(b"%x\r\nhello" % (MAX_BODY_BYTES + 1)), 413, "request_too_large")
    refuse(wires.chunked(b"f" * 16 + b"\r\nhello"), 413, "request_too_large")


@pytest.mark.parametrize(
    "fields",
    [
        (b"Expect: 200-ok",),
        (b"Expect:",),
        (b"Expect: 100-continue, 100-continue",),
        (b"Expect: 100-continue", b"Expect: 100-continue"),
    ],
)
def test_k13_other_expectations(refuse: Callable[..., None], fields: tuple[bytes, ...]) -> None:
    refuse(sized(*fields), 417)


def test_k10_refused_after_a_good_one(server: Tallygate, provider: SimulatedProvider) -> None:
    """What came before on the connection is answered; nothing after."""
    provider.clear()
    with Connection(server.port) as connection:
        connection.send(sized() + head(b"Content-Length : 5") + behind())
        assert counted(connection.read())
        refused(connection.read(), 400, "invalid_request_error")
        assert connection.ends()
    assert provider.calls == 1


def test_k10_unread_chunks_that_go_wrong(server: Tallygate, provider: SimulatedProvider) -> None:
    """A body that nobody wants is judged too: what follows it is no request."""
    provider.clear()
    with Connection(server.port) as connection:
        line = POST.replace(b"/v1", b"/kumquat")
        connection.send(head(wires.CHUNKED, line=line) + b"5\r\nhelloX" + behind())
        refused(connection.read(), 404, "not_found_error")
        assert connection.ends()
    assert provider.calls == 0


def test_k2_refusal_reaches_a_client_that_goes_on_sending(server: Tallygate) -> None:
    """The answer is not lost in a reset, however much is under way."""
    with Connection(server.port) as connection:
        connection.send(head(b"Content-Length: %d" % 10**7))
        for _part in range(20):
            connection.send(b"x" * 100_000)
        refused(connection.read(), 413, "request_too_large")
        assert connection.ends()


def test_k11_number_of_headers(
    server: Tallygate, provider: SimulatedProvider, refuse: Callable[..., None]
) -> None:
    """A hundred are taken, one more is not; nor are nine hundred that are small."""
    fields = [b"X-%d: 1" % number for number in range(96)]
    with Connection(server.port) as connection:
        connection.send(sized(*fields))  # and host, authorization, content-type, content-length
        assert counted(connection.read())
    provider.clear()
    refuse(sized(*fields, b"X-One: 1"))
    refuse(sized(*(b"%x:" % number for number in range(900))))


@pytest.mark.parametrize(
    ("command", "workers", "arguments"),
    [
        ((sys.executable, "-m", "sanic", "app.main"), 2, ()),
        ((sys.executable, "-m", "sanic", "app.main"), 1, ("--single-process",)),
        ((sys.executable, "-m", "app", "serve"), 2, ()),
    ],
    ids=["sanic", "single-process", "serve"],
)
def test_every_way_to_serve(
    start: Callable[..., Tallygate],
    config: dict[str, object],
    command: tuple[str, ...],
    workers: int,
    arguments: tuple[str, ...],
) -> None:
    running = start(config, command=command, workers=workers, arguments=arguments)
    for _worker in range(2 * workers):
        with Connection(running.port) as connection:
            connection.send(sized(hosts=(HOST, HOST)))
            refused(connection.read(), 400, "invalid_request_error")
            assert connection.ends()
