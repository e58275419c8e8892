"""What the client of providers makes of connections that go wrong: byte by byte, turn by turn."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from uvloop import new_event_loop

from adapters.base import UpstreamRequest
from app.exchange import MAX_HEAD_BYTES, MAX_HEADERS, MAX_REPLY_BYTES
from app.upstream import UnusableReplyError, Upstream, UpstreamReply, UpstreamUnreachableError
from tests.faults.scripted_provider import End, Endless, ScriptedProvider, Step, reply

COUNT = b'{"input_tokens":7}'
WRONG = b'{"input_tokens":9}'
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
HELD_S = 0.05
TURNS = 20
GREETED_AND_ASKED = 2
Ask = Callable[..., Coroutine[Any, Any, UpstreamReply]]


def asked(talk: Callable[[ScriptedProvider, Ask], Coroutine[Any, Any, None]]) -> None:
    """Let one client, on the loop that serves, ask one provider, which has a thread of its own."""

    async def run(provider: ScriptedProvider) -> None:
        upstream = Upstream({})

        async def ask(body: bytes = b"{}", timeout_s: float = 5.0) -> UpstreamReply:
            request = UpstreamRequest("POST", f"{provider.url}/v1", (), body)
            return await upstream.send(request, provider.url, timeout_s)

        try:
            await talk(provider, ask)
        finally:
            await upstream.close()

    with ScriptedProvider() as provider, asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run(provider))


def heard(*steps: Step, timeout_s: float = 5.0) -> UpstreamReply:
    """Ask once a provider that answers so."""
    replies = []

    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.always(*steps)
        replies.append(await ask(timeout_s=timeout_s))

    asked(talk)
    return replies[0]


def connections_of_two(*first: Step) -> int:
    """Ask twice; the first answer is this, the second an honest one."""
    seen = []

    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.always(*first)
        await ask()
        provider.always(reply(COUNT))
        assert (await ask()).body == COUNT
        seen.append(provider.connections)

    asked(talk)
    return seen[0]


def test_what_a_provider_says_unasked_while_the_loop_is_busy_is_no_answer() -> None:
    """A second answer to one question has come, but is not yet read when the next one is sent."""

    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.always(reply(COUNT), HELD_S, reply(WRONG))
        await ask()
        while provider.followed < GREETED_AND_ASKED:
            time.sleep(0.001)  # noqa: ASYNC251 -- the loop is busy
        provider.always(reply(COUNT))
        assert (await ask()).body == COUNT

    asked(talk)


@pytest.mark.parametrize("said", [reply(WRONG), b"\r\n", b"H"])
def test_a_connection_on_which_something_is_said_unasked_is_not_used_again(said: bytes) -> None:
    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.always(reply(COUNT), HELD_S, said)
        await ask()
        while provider.followed < GREETED_AND_ASKED:  # noqa: ASYNC110 -- another thread's
            await asyncio.sleep(0.001)
        provider.always(reply(COUNT))
        assert (await ask()).body == COUNT
        assert provider.connections == 2

    asked(talk)


def test_an_answer_that_comes_after_its_caller_has_left_is_nobodys() -> None:
    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        for turn in range(TURNS):
            provider.always(reply(WRONG))
            left = asyncio.create_task(ask())
            await asyncio.sleep(turn * 0.0001)
            left.cancel()
            await asyncio.wait([left])
            provider.always(reply(COUNT))
            assert (await ask()).body == COUNT

    asked(talk)


def test_an_answer_that_comes_after_its_deadline_is_nobodys() -> None:
    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.always(10 * HELD_S, reply(WRONG))
        with pytest.raises(UpstreamUnreachableError) as caught:
            await ask(timeout_s=HELD_S)
        assert caught.value.timed_out
        provider.always(12 * HELD_S, reply(COUNT))
        assert (await ask()).body == COUNT

    asked(talk)


BEYOND = {
    "another answer": reply(COUNT) + reply(WRONG),
    "the start of one": reply(COUNT) + b"H",
    "an interim one": reply(COUNT) + INTERIM,
    "what is no HTTP": reply(COUNT) + b"\0",
    "a body behind 204": b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nhi",
    "what the chunks do not hold": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("answer", BEYOND.values(), ids=BEYOND)
def test_a_connection_with_more_than_the_answer_is_not_used_again(answer: bytes) -> None:
    assert connections_of_two(answer) == 2


ENDS = {
    "close": reply(COUNT, b"connection: close"),
    "1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
}
STAYS = {
    "1.1": reply(COUNT),
    "1.0": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}",
    "chunks": CHUNKED + b"1;a=b\r\n{\r\n1\r\n}\r\n0\r\nx: y\r\n\r\n",
    "interim": INTERIM * 3 + reply(COUNT),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
}


@pytest.mark.parametrize("answer", ENDS.values(), ids=ENDS)
def test_a_connection_that_ends_is_not_used_again(answer: bytes) -> None:
    assert connections_of_two(answer) == 2


@pytest.mark.parametrize("answer", STAYS.values(), ids=STAYS)
def test_a_connection_that_stays_is_used_again(answer: bytes) -> None:
    assert connections_of_two(answer) == 1


@pytest.mark.parametrize("answer", STAYS.values(), ids=STAYS)
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes) -> None:
    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.always(answer)
        whole = await ask()
        for at in range(1, len(answer)):
            provider.always(answer[:at], 0.0005, answer[at:])
            assert await ask() == whole

    asked(talk)


def test_an_answer_that_is_cut_short_is_none() -> None:
    """At each byte, by an end and by a reset."""

    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        for answer in (reply(COUNT), CHUNKED + b"12\r\n" + COUNT + b"\r\n0\r\n\r\n"):
            for at in range(len(answer)):
                provider.always(answer[:at], End.RESET if at % 2 else End.FIN)
                with pytest.raises(UpstreamUnreachableError):
                    await ask()

    asked(talk)


NO_ANSWERS = {
    "length and chunks": CHUNKED[:-2] + b"content-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two lengths": reply(b"{}", b"content-length: 2"),
    "two lengths in one": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\n{}",
    "a length below nothing": reply(b"{}", length=-2),
    "a length with a sign": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\n{}",
    "no length at all": b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n{}",
    "a length beyond 64 bits": reply(b"{}", length=2**64 + 2),
    "chunks that are none": CHUNKED + b"x\r\n{}\r\n0\r\n\r\n",
    "no HTTP": b"{}",
    "another protocol": reply(b"", status="101 Switching Protocols") + reply(COUNT),
    "a body of an interim answer": b"HTTP/1.1 103 A\r\ncontent-length: 2\r\n\r\n{}" + reply(COUNT),
    "a status of 000": reply(b'{"input_tokens":1', status="000 A") + reply(b"2}"),
    "lines without CR": reply(COUNT).replace(b"\r", b""),
    "folded lines": reply(COUNT, b"a: b", b" content-length: 3"),
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\na: " + b"b" * MAX_HEAD_BYTES,
    "more than a count": reply(b" " * MAX_REPLY_BYTES),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_refused_at_once(answer: bytes) -> None:
    with pytest.raises(UnusableReplyError):
        heard(answer, End.SILENCE)


@pytest.mark.parametrize(
    "steps",
    [
        (Endless(INTERIM),),
        (b"HTTP/1.1 200 OK\r\n", Endless(b"a: b\r\n")),
        (b"HTTP/1.1 200 OK\r\na: ", Endless(b"b")),
        (b"HTTP/1.1 200 OK\r\n\r\n", Endless(b" " * 1000)),
        (CHUNKED, Endless(b"1\r\n \r\n" * 100)),
        (CHUNKED + b"0\r\n", Endless(b"a: b\r\n" * 100)),
    ],
    ids=["interim", "headers", "header", "body", "chunks", "trailers"],
)
def test_an_answer_without_end_is_refused(steps: tuple[Step, ...]) -> None:
    with pytest.raises(UnusableReplyError):
        heard(*steps)


def test_what_stands_behind_chunks_is_no_header() -> None:
    chunked = CHUNKED.replace(b"200 OK", b"429 Too Many Requests")
    answer = heard(chunked + b"2\r\n{}\r\n0\r\nretry-after: 60\r\n\r\n")
    assert (answer.status, answer.body) == (429, b"{}")
    assert "retry-after" not in answer.headers


def test_an_answer_that_comes_before_the_question_is_sent_whole_is_one() -> None:
    """The connection is not used again: what is left of the question would go before the next."""
    body = b" " * 8_000_000

    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.greeting = 2 * HELD_S, reply(COUNT, status="413 Too Large"), HELD_S
        assert (await ask(body)).status == 413
        provider.greeting = ()
        provider.always(reply(COUNT))
        assert (await ask()).body == COUNT
        assert provider.connections == 2

    asked(talk)


def test_a_count_that_comes_before_the_question_is_sent_whole_is_another_ones() -> None:
    body = b" " * 8_000_000

    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.greeting = 2 * HELD_S, reply(COUNT), HELD_S
        with pytest.raises(UnusableReplyError):
            await ask(body)
        provider.greeting = ()
        provider.always(reply(COUNT))
        assert (await ask(body)).body == COUNT
        assert provider.connections == 2

    asked(talk)


def test_a_connection_that_is_idle_keeps_no_answer() -> None:
    """Errors may be a megabyte long, and hundreds of connections idle."""
    long = reply(b" " * (MAX_REPLY_BYTES - 1000), status="400 Bad Request")

    async def talk(provider: ScriptedProvider, ask: Ask) -> None:
        provider.always(long)
        tracemalloc.start()
        try:
            await asyncio.gather(*(ask() for _ in range(8)))
            await asyncio.sleep(HELD_S)  # the loop forgets what it has delivered
            gc.collect()
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held_bytes < MAX_REPLY_BYTES

    asked(talk)
