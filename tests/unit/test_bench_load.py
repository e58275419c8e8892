"""The load generator believes no server: one wrong answer, and there is no figure."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain, repeat
from typing import cast

import pytest

from bench import slice as slice_module
from bench.answers import WrongAnswerError
from bench.load import Run, generate
from bench.questions import Message
from bench.slice import Address, Load

BODY = b'{"nonce":"0000000000000000"}'
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY)
TOKENS = 14
Answers = Callable[[bytes], Iterator[bytes]]
"""The pieces that a server writes for a request, one after the other; an empty one ends it."""


def answer(tokens: object = TOKENS, *, status: str = "200 OK", more: bytes = b"") -> bytes:
    body = f'{{"input_tokens":{tokens}}}'.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body + more


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + end


class Server(asyncio.Protocol):
    """Writes the pieces of an answer one millisecond apart."""

    def __init__(self, answers: Answers, connected: set[asyncio.Transport]) -> None:
        self._answers = answers
        self._connected = connected
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connected.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._request += data
        if len(self._request) == len(HEAD) + len(BODY):
            self._write(self._answers(self._request))
            self._request = b""

    def connection_lost(self, _error: Exception | None) -> None:
        self._connected.discard(self._transport)

    def _write(self, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, None)
        if piece == b"":
            self._transport.close()
        elif piece is not None:
            self._transport.write(piece)
            asyncio.get_running_loop().call_later(0.001, self._write, pieces)


@contextlib.asynccontextmanager
async def serving(answers: Answers) -> AsyncIterator[Address]:
    connected: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(answers, connected), "127.0.0.1", 0
    )
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for transport in tuple(connected):
            transport.abort()
        await asyncio.sleep(0.01)


def run(
    answers: Answers,
    *,
    tokens: Callable[[bytes], int] = lambda _body: TOKENS,
    unique: bool = False,
    connections: int = 3,
    seconds: float = 0.1,
    rate: float = 0,
    times: int = 1,
) -> Run:
    async def play() -> Run:
        async with serving(answers) as address:
            return await generate(
                Load(
                    address=address,
                    message=Message(HEAD, BODY, BODY.index(b"0") if unique else None),
                    tokens=tokens,
                    connections=connections,
                    seconds=seconds,
                    warm_s=0.02,
                    rate=rate,
                    times=times,
                )
            )

    return asyncio.run(play())


def always(*pieces: bytes) -> Answers:
    return lambda _request: iter(pieces)


def last_after(right: int, wrong: bytes) -> Answers:
    """So many right answers, then a wrong one."""
    pieces = chain(repeat(answer(), right), repeat(wrong))
    return lambda _request: iter((next(pieces),))


def nonce_of(body: bytes) -> int:
    found = re.search(rb'"nonce":"([0-9a-f]{16})"', body)
    assert found
    return int(found[1], 16) % 1000 + 1


def test_right_answers_are_counted_and_timed() -> None:
    asked = 0

    def answers(_request: bytes) -> Iterator[bytes]:
        nonlocal asked
        asked += 1
        yield answer()

    result = run(answers)
    assert result.answers == asked
    assert 0 < len(result.latency) < result.answers
    assert result.seconds >= 0.1
    assert result.latency.percentile_ns(50) > 0


def test_an_answer_may_come_in_pieces() -> None:
    whole = answer()
    assert run(always(whole[:9], whole[9:40], whole[40:])).answers > 3


IN_CHUNKS = chunked(b'{"input_', b'tokens":14}')


@pytest.mark.parametrize("cut", range(1, len(IN_CHUNKS), 3))
def test_an_answer_may_come_in_chunks(cut: int) -> None:
    assert run(always(IN_CHUNKS[:cut], IN_CHUNKS[cut:])).answers > 3


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (answer(status="500 Internal Server Error"), "500 Internal Server Error"),
        (answer(status="404 Not Found"), "404 Not Found"),
        (answer(TOKENS + 1), '"input_tokens":15'),
        (answer('"14"'), '"input_tokens":"14"'),
        (answer("null"), '"input_tokens":null'),
        (b'HTTP/1.1 200 OK\r\n\r\n{"input_tokens":14}', "content-length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "input_tokens"),
        (answer() * 2, "not one answer"),
        (answer(more=b"x"), "not one answer"),
        (chunked(b'{"input_tokens":15}'), '"input_tokens":15'),
        (chunked(b'{"input_tokens":14}', end=b"x\r\n\r\n"), "not the size of a chunk"),
        (chunked(b'{"input_tokens":14}', end=b"1\r\nxyz0\r\n\r\n"), "not one answer"),
        (chunked(b'{"input_tokens":14}') * 2, "not one answer"),
        (b"", "closed a connection"),
    ],
)
@pytest.mark.parametrize("right", [0, 20])
def test_a_wrong_answer_fails_the_run_and_is_shown(right: int, wrong: bytes, shown: str) -> None:
    with pytest.raises(WrongAnswerError, match=re.escape(shown)):
        run(last_after(right, wrong), seconds=5)


def test_a_wrong_answer_fails_at_once_and_not_after_the_slice() -> None:
    async def play() -> None:
        async with asyncio.timeout(20):
            async with serving(always(answer(1))) as address:
                await generate(
                    Load(
                        address=address,
                        message=Message(HEAD, BODY),
                        tokens=lambda _body: TOKENS,
                        connections=1,
                        seconds=3600,
                    )
                )

    with pytest.raises(WrongAnswerError):
        asyncio.run(play())


def test_silence_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_module, "STALL_S", 0.2)
    with pytest.raises(WrongAnswerError, match="3 requests without an answer"):
        run(always())


def test_each_unique_question_has_its_own_right_answer() -> None:
    bodies: list[bytes] = []

    def answers(request: bytes) -> Iterator[bytes]:
        bodies.append(request[len(HEAD) :])
        yield answer(nonce_of(request))

    result = run(answers, unique=True, tokens=nonce_of)
    assert result.answers == len(bodies) == len(set(bodies))


def test_one_wrong_answer_among_unique_questions_fails_the_run() -> None:
    asked = 0

    def answers(request: bytes) -> Iterator[bytes]:
        nonlocal asked
        asked += 1
        yield answer(nonce_of(request) + (asked == 10))

    with pytest.raises(WrongAnswerError, match=r"should be \d+, was \d+"):
        run(answers, unique=True, tokens=nonce_of)


def test_with_no_seconds_each_connection_asks_once() -> None:
    asked = 0

    def answers(_request: bytes) -> Iterator[bytes]:
        nonlocal asked
        asked += 1
        yield answer()

    result = run(answers, connections=50, seconds=0)
    assert asked == result.answers == len(result.latency) == 50


@pytest.mark.parametrize("connections", [2, 400])
def test_an_open_loop_times_each_question_from_when_it_was_due(connections: int) -> None:
    """Whether it had to wait for a connection, or for the generator itself."""
    answered = 0

    def answers(_request: bytes) -> Iterator[bytes]:
        nonlocal answered
        answered += 1
        if answered == 100:
            time.sleep(0.3)
        yield answer()

    result = run(answers, connections=connections, seconds=0.5, rate=1000)
    # A closed loop would have seen the pause in two answers of hundreds.
    assert result.latency.percentile_ns(99) > 200_000_000
    assert result.latency.percentile_ns(70) > 50_000_000
    assert result.answers == answered


def test_an_open_loop_asks_what_it_should_however_slow_the_server_is() -> None:
    result = run(always(answer()), connections=50, seconds=0.5, rate=400)
    assert 300 < result.rate <= 410


def test_an_open_loop_believes_no_server_either() -> None:
    with pytest.raises(WrongAnswerError, match="input_tokens should be 14"):
        run(last_after(20, answer(15)), seconds=5, rate=1000)


def test_with_no_seconds_each_connection_may_ask_several_times() -> None:
    assert run(always(answer()), connections=5, seconds=0, times=7).answers == 35


def test_no_server_is_an_error() -> None:
    async def play() -> None:
        async with serving(always()) as address:
            gone = address
        message = Message(HEAD, BODY)
        await generate(Load(address=gone, message=message, tokens=len, connections=1, seconds=1))

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(play())
