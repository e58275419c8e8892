"""Whatever providers say, and whenever callers leave: a reply is its own question's, or none."""

import asyncio
from collections.abc import Iterator
from itertools import cycle

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from adapters.base import UpstreamRequest
from app.upstream import (
    CrowdedUpstreamError,
    UnusableReplyError,
    Upstream,
    UpstreamReply,
    UpstreamUnreachableError,
)
from tests.faults.listener import Listener, reset

REFUSALS = UpstreamUnreachableError, UnusableReplyError, CrowdedUpstreamError
TIMEOUT_S = 0.25
CONNECTIONS = 4
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
WRONG = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nWRONG"


class Turn(Struct, frozen=True):
    """How one request is answered on a connection."""

    framing: str = "length"
    interims: int = 0
    behind: bytes = b""
    size: int = 1 << 20
    """Bytes that are written at a time."""
    cut: int | None = None
    """Bytes of the answer after which the connection ends."""
    end: str = ""
    is_early: bool = False
    """The answer is sent before the request's body has been read."""

    @property
    def is_last(self) -> bool:
        return bool(self.end) or self.cut is not None or self.framing == "end"


framings = st.sampled_from(["length", "chunks", "trailers", "end", "1.0", "both", "two lengths"])
sizes = st.sampled_from([1 << 20, 40, 7, 1])
behinds = st.sampled_from([WRONG, WRONG[:30], INTERIM, b"H", b"\r\n"])
faults = st.one_of(
    st.builds(Turn, behind=behinds, size=sizes),
    st.builds(Turn, cut=st.integers(0, 120), end=st.sampled_from(["", "reset"]), size=sizes),
    st.builds(Turn, framing=framings, end=st.sampled_from(["", "fin", "reset"]), size=sizes),
    st.builds(Turn, framing=framings, interims=st.integers(1, 2), behind=behinds),
)
turns = st.one_of(st.builds(Turn, is_early=st.booleans()), faults)
scripts = st.lists(st.lists(turns, min_size=1, max_size=5), min_size=1, max_size=6)


def answer_to(question: bytes) -> bytes:
    return b'{"input_tokens":7,"to":"%b"}' % question[:8]


def written(turn: Turn, body: bytes) -> bytes:
    half = len(body) // 2
    pieces = b"%x\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\n" % (
        half,
        body[:half],
        len(body) - half,
        body[half:],
    )
    length = b"content-length: %d\r\n" % len(body)
    chunked = b"transfer-encoding: chunked\r\n"
    head, said = {
        "length": (b"1.1 200 OK\r\n" + length, body),
        "chunks": (b"1.1 200 OK\r\n" + chunked, pieces + b"\r\n"),
        "trailers": (b"1.1 200 OK\r\n" + chunked, pieces + b"content-length: 1\r\n\r\n"),
        "end": (b"1.1 200 OK\r\n", body),
        "1.0": (b"1.0 200 OK\r\n" + length, body),
        "both": (b"1.1 200 OK\r\n" + length + chunked, pieces + b"\r\n"),
        "two lengths": (b"1.1 200 OK\r\n" + length + length, body),
    }[turn.framing]
    return INTERIM * turn.interims + b"HTTP/" + head + b"\r\n" + said


def pieces_of(turn: Turn, body: bytes) -> Iterator[bytes]:
    """Cut an answer; what comes behind it comes with its last piece.

    HTTP/1.1 has no numbers: what comes later, when the next request has gone, is the next reply.
    """
    answer = written(turn, body)
    if turn.framing != "end":  # there all that comes is the body
        answer = answer[: turn.cut]
    for at in range(0, len(answer), turn.size):
        is_last = at + turn.size >= len(answer)
        yield answer[at : at + turn.size] + (turn.behind if is_last and not turn.is_last else b"")


class Provider(Listener):
    """Each connection follows the next script, over and over."""

    def __init__(self, scripts: Iterator[list[Turn]]) -> None:
        super().__init__()
        self._scripts = scripts

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for turn in next(self._scripts):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"content-length: ")[2])
            start = await reader.readexactly(8)
            if not turn.is_early:
                await reader.readexactly(length - 8)
            for piece in pieces_of(turn, answer_to(start)):
                if writer.is_closing():
                    return
                writer.write(piece)
                await asyncio.sleep(0)
            if turn.is_early:
                await reader.readexactly(length - 8)
            if turn.end == "reset":
                reset(writer)
            if turn.is_last:
                return


class Question(Struct, frozen=True):
    size: int
    """Bytes of its body."""
    starts: int
    leaves: int | None
    """Turns of the loop after which it is asked, and its caller leaves."""


questions = st.lists(
    st.builds(
        Question,
        size=st.sampled_from([8, 100, 70_000, 1_000_000]),
        starts=st.integers(0, 20),
        leaves=st.none() | st.integers(0, 20),
    ),
    min_size=4,
    max_size=16,
)


async def conversed(scripts: list[list[Turn]], asked: list[Question]) -> None:
    async with Provider(cycle(scripts)) as provider:
        url = f"http://127.0.0.1:{provider.port}"
        upstream = Upstream({}, connections=CONNECTIONS)

        async def ask(number: int, question: Question) -> None:
            body = b"%08d" % number + b"x" * (question.size - 8)
            for _ in range(question.starts):
                await asyncio.sleep(0)
            request = UpstreamRequest("POST", f"{url}/v1", (), body)
            task = asyncio.create_task(upstream.send(request, url, TIMEOUT_S))
            if question.leaves is not None:
                for _ in range(question.leaves):
                    await asyncio.sleep(0)
                task.cancel()
            (heard,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(heard, UpstreamReply):
                assert (heard.status, heard.body) == (200, answer_to(body))
            else:
                assert isinstance(heard, (*REFUSALS, asyncio.CancelledError)), repr(heard)
            if isinstance(heard, asyncio.CancelledError):
                assert question.leaves is not None

        async with asyncio.TaskGroup() as group:
            for number, question in enumerate(asked):
                group.create_task(ask(number, question))
        # Every place is free again, and of its connections none is left.
        for _ in range(CONNECTIONS * 3 // 4):
            assert upstream._rooms.take(url)
        await upstream.close()
        async with asyncio.timeout(5):
            while provider.open_connections:  # noqa: ASYNC110 -- the sockets' own time
                await asyncio.sleep(0.001)
        assert len(asyncio.all_tasks()) == 1


@settings(max_examples=150, deadline=None)
@given(scripts=scripts, asked=questions)
def test_a_reply_is_its_own_questions_or_none(
    scripts: list[list[Turn]], asked: list[Question]
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(conversed(scripts, asked))
