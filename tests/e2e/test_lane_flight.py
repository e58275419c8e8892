"""Questions that the lane asks itself, and whatever comes, ends or breaks before their answer."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import (
    COUNT,
    MODEL,
    NATIVE,
    Connection,
    anthropic,
    counted,
    model_list,
    question,
    refused,
    request,
    until,
)
from tests.server import KEY, Tallygate

Start = Callable[..., Tallygate]
SLOW_S, SHORT_S = 0.3, 0.05
MANY, ROUNDS = 150, 30
LIMITED_KEY = "sk-limited-0123456789"


def config(provider: SimulatedProvider, **server: Any) -> dict[str, Any]:
    return {
        "model_list": model_list(
            **{
                MODEL: anthropic("claude-one", provider.url),
                "keyless": anthropic("claude-two", provider.url, api_key="os.environ/NOT_SET_HERE"),
            }
        ),
        "keys": [{"name": "limited", "key": LIMITED_KEY, "max_parallel_misses": 2}],
        "server": server,
    }


@pytest.fixture(scope="module")
def server(start: Start, provider: SimulatedProvider) -> Tallygate:
    return start(config(provider))


def written(body: dict[str, Any], *more: tuple[str, str]) -> bytes:
    return request(msgspec.json.encode(body), headers=dict(more))


def opened(server: Tallygate) -> Connection:
    """Connect, and be known to the server's loop: the lane is there from then on."""
    one = Connection(server.port)
    one.send(written(question()))
    counted(one.read())
    return one


def told(server: Tallygate, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of requests with the body's length, which is unlike any other's."""
    length = len(msgspec.json.encode(body))
    lines = server.out.read_bytes().split(b"\n")[:-1]
    events = map(msgspec.json.decode, lines)
    return [one for one in events if one.get("body_bytes") == length]


@pytest.mark.parametrize("path", [COUNT, NATIVE])
def test_a_head_is_known_by_all_but_its_length(server: Tallygate, path: str) -> None:
    """Nothing else is taken for the length, however that is written: not a part of the target."""
    content = msgspec.json.encode(question("claude-one" if path == NATIVE else MODEL))
    size = str(len(content))
    fields = f"\r\nhost: a\r\nx-api-key: {KEY}\r\ncontent-length:{size}\r\n\r\n".encode()
    for cut in range(len("POST /"), len(f"POST {path} HTTP/1.1") + 1):
        line = f"POST {path} HTTP/1.1"
        with opened(server) as one:
            one.send(line.encode() + fields + content)
            counted(one.read())
            one.send(f"{line[:cut]}{size}".encode() + fields + content)
            refused(one.read(), 400, "invalid_request_error")
            assert one.ends()


def test_what_comes_behind_a_question_waits_for_its_answer(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """Known and unknown questions, more than is kept, and at last what is no request."""
    known, asked = question(), []
    counted(server.count(known))
    for number in range(MANY):
        asked += [question(system="x" * (5_000 + number)), known]
    with opened(server) as one:
        provider.behave(delay_s=SLOW_S, times=1)
        one.send(b"".join(map(written, asked)) + b"GARBAGE\r\n\r\n")
        answers = [one.read() for _ in asked]
        refused(one.read(), 400, "invalid_request_error")
        assert one.ends()
    assert [counted(answer) for answer in answers] == [count_tokens(body) for body in asked]
    sources = [answer.headers["x-tallygate-source"] for answer in answers]
    assert sources == ["live", "cache"] * MANY


def test_a_client_that_leaves_is_told_of_once_and_its_question_is_answered(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """For another client that waits for the same, and for the next."""
    body = question(system="x" * 1_111)
    with opened(server) as stays, opened(server) as leaves:
        provider.clear()
        provider.behave(delay_s=SLOW_S)
        leaves.send(written(body))
        until(lambda: provider.calls == 1)
        stays.send(written(body))
        time.sleep(SHORT_S)
        leaves.reset()
        answer = stays.read()
    assert counted(answer) == count_tokens(body)
    assert answer.headers["x-tallygate-source"] == "coalesced"
    assert server.count(msgspec.json.encode(body)).headers["x-tallygate-source"] == "cache"
    assert provider.calls == 1
    until(lambda: len(told(server, body)) >= 3)
    assert sorted(one["status"] for one in told(server, body)) == [200, 200, 499]


def test_clients_that_leave_hold_none_of_their_key_s_places(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """Of two; a question is in flight until its provider has answered."""
    key = {"authorization": f"Bearer {LIMITED_KEY}"}

    def ask_two(delay_s: float) -> list[Connection]:
        provider.clear()
        two = [opened(server), opened(server)]
        provider.behave(delay_s=delay_s)
        for one in two:
            one.send(written(question()).replace(KEY.encode(), LIMITED_KEY.encode()))
        until(lambda: provider.calls == len(two) * 2)
        return two

    for _ in range(ROUNDS):
        for one in ask_two(SHORT_S):
            one.reset()
        time.sleep(2 * SHORT_S)
    two = ask_two(SLOW_S)
    refused(server.count(question(), **key), 429, "rate_limit_error")
    for one in two:
        assert counted(one.read())
        one.close()


@pytest.mark.parametrize("behind", [0, 3])
def test_a_client_that_ends_its_side_is_answered_all_that_it_has_asked(
    server: Tallygate, provider: SimulatedProvider, behind: int
) -> None:
    known = question()
    counted(server.count(known))
    with opened(server) as one:
        provider.behave(delay_s=SHORT_S)
        bodies = [question(), *(known if number % 2 else question() for number in range(behind))]
        one.send(b"".join(map(written, bodies)) + b"POST ")
        one.end()
        assert [counted(one.read()) for _ in bodies] == [count_tokens(body) for body in bodies]
        assert one.ends()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_asked_when_the_server_ends_or_reloads_is_answered(
    start: Start, provider: SimulatedProvider, sent: signal.Signals
) -> None:
    """And says that its connection closes, whatever has come behind it.

    At a reload the worker goes on until its successor serves: the provider takes long enough.
    """
    server = start(config(provider))
    delay_s = 3 * SLOW_S if sent is signal.SIGTERM else 10.0
    bodies = [question(system="x" * number) for number in range(20)]
    connections = [opened(server) for _ in bodies]
    provider.clear()
    provider.behave(delay_s=delay_s)
    for number, (one, body) in enumerate(zip(connections, bodies, strict=True)):
        one.send(written(body) + written(question())[: 40 * (number % 2)])
    until(lambda: provider.calls == len(bodies))
    os.kill(server.pid, sent)
    for one, body in zip(connections, bodies, strict=True):
        answer = one.read()
        assert counted(answer) == count_tokens(body)
        assert answer.headers["connection"] == "close"
        one.close()
    if sent is signal.SIGHUP:
        assert server.count(bodies[0]).headers["x-tallygate-source"] == "cache"
    assert server.stop() == 0
    assert "Traceback" not in server.err.read_text()


def test_what_the_operator_must_mend_is_told_to_callers_on_this_machine(server: Tallygate) -> None:
    with opened(server) as one:
        for more, is_told in (((), True), ((("x-forwarded-for", "10.0.0.1"),), False)):
            for _ in range(2):
                one.send(written(question("keyless"), ("x-request-id", "mine"), *more))
                answer = one.read()
                assert ("NOT_SET_HERE" in refused(answer, 502, "api_error")) is is_told
                assert answer.headers["x-request-id"] == "mine"


def test_what_is_known_by_all_its_bytes_ends_with_its_generation(
    start: Start, provider: SimulatedProvider
) -> None:
    """One question is found to be counted otherwise: the model's others are asked anew."""
    server = start(config(provider))
    bodies = [question(), question()]
    with opened(server) as one:
        for body in bodies * 4:
            one.send(written(body))
            assert counted(one.read()) == count_tokens(body)
        provider.behave(body={"input_tokens": 7})
        one.send(written(bodies[0], ("cache-control", "no-cache")))
        assert counted(one.read()) == 7
        for body, source in zip(bodies * 2, ("cache", "live", "cache", "cache"), strict=True):
            one.send(written(body))
            answer = one.read()
            assert counted(answer) == 7
            assert answer.headers["x-tallygate-source"] == source
    assert server.metrics()["tallygate_lane_hits_total"] > len(bodies)
