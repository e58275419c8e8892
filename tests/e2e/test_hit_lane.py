"""The hit lane: repeats are answered where their bytes arrive, however they arrive."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import (
    COUNT,
    MODEL,
    Connection,
    anthropic,
    event,
    model_list,
    question,
)
from tests.server import KEY, Tallygate

Start = Callable[..., Tallygate]
PAUSE_S = 0.01


def config(provider: SimulatedProvider, **server: Any) -> dict[str, Any]:
    return {
        "model_list": model_list(**{MODEL: anthropic("claude-one", provider.url)}),
        "server": server,
    }


@pytest.fixture(scope="module")
def server(start: Start, provider: SimulatedProvider) -> Tallygate:
    return start(config(provider))


def request(body: bytes, *more: str) -> bytes:
    fields = ("host: here", f"x-api-key: {KEY}", f"content-length: {len(body)}", *more)
    lines = "\r\n".join((f"POST {COUNT} HTTP/1.1", *fields, "", ""))
    return lines.encode() + body


def large_question() -> bytes:
    return msgspec.json.encode(question(system="x" * 300_000))


def test_pipelined_repeats_are_answered_in_their_order(server: Tallygate) -> None:
    """Known and unknown questions in one piece: those behind an unknown one wait for it."""
    known = [msgspec.json.encode(question(system="x" * size)) for size in (100, 900)]
    right = [server.count(body).json() for body in known]
    new = msgspec.json.encode(question(system="x" * 2000))
    before = server.metrics()["tallygate_lane_hits_total"]
    with Connection(server.port) as one:
        one.send(b"".join(map(request, (*known, new, known[1], known[0], known[1]))))
        heard = [one.read() for _ in range(6)]
    counts = [answer.json() for answer in heard]
    assert counts == [right[0], right[1], server.count(new).json(), right[1], right[0], right[1]]
    assert [answer.headers["x-tallygate-source"] for answer in heard] == [
        "cache", "cache", "live", "cache", "cache", "cache",
    ]  # fmt: skip
    assert server.metrics()["tallygate_lane_hits_total"] >= before + 2


def test_a_repeat_whose_body_comes_in_pieces_is_one_for_the_lane(server: Tallygate) -> None:
    body = large_question()
    right = server.count(body).json()
    before = server.metrics()["tallygate_lane_hits_total"]
    with Connection(server.port) as one:
        whole = request(body)
        time.sleep(PAUSE_S)  # a large body at the very beginning takes the ordinary way
        for at in range(0, len(whole), 50_000):
            one.send(whole[at : at + 50_000])
            time.sleep(PAUSE_S)
        assert one.read().json() == right
        one.send(whole + whole)  # the end of one and the beginning of the next in one read
        assert [one.read().json(), one.read().json()] == [right, right]
    assert server.metrics()["tallygate_lane_hits_total"] == before + 3


def test_a_body_that_pauses_is_waited_for_by_the_ordinary_way(server: Tallygate) -> None:
    body = large_question()
    right = server.count(body).json()
    before = server.metrics()["tallygate_lane_hits_total"]
    with Connection(server.port) as one:
        whole = request(body)
        one.send(whole[:100_000])
        time.sleep(1)
        one.send(whole[100_000:])
        assert one.read().json() == right
        one.send(whole)  # and the lane is back
        assert one.read().json() == right
    assert server.metrics()["tallygate_lane_hits_total"] == before + 1


def test_how_long_a_body_took_to_come_is_not_told_as_the_time_of_its_answer(
    server: Tallygate,
) -> None:
    pause_s = 0.4
    whole = request(large_question())
    before = server.metrics()["tallygate_lane_hits_total"]
    with Connection(server.port) as one:
        one.send(whole)
        one.read()
        one.send(whole[:-10])
        time.sleep(pause_s)
        one.send(whole[-10:])
        answer = one.read()
    assert server.metrics()["tallygate_lane_hits_total"] == before + 1
    told = event(server, answer.headers["request-id"])
    assert told["duration_ms"] < pause_s * 1000 / 2


def test_a_large_question_in_other_bytes_is_decoded_once(server: Tallygate) -> None:
    """By the ordinary way; from then on these bytes, too, are known."""
    body = large_question()
    right = server.count(body).json()
    before = server.metrics()["tallygate_lane_hits_total"]
    with Connection(server.port) as one:
        for hits in (0, 1):
            one.send(request(body + b" "))
            answer = one.read()
            assert answer.json() == right
            assert answer.headers["x-tallygate-source"] == "cache"
            assert server.metrics()["tallygate_lane_hits_total"] == before + hits


@pytest.mark.parametrize("header", ["X-Request-Id", "Idempotency-Key"])
def test_an_end_user_may_be_named_by_a_header_that_varies(
    start: Start, provider: SimulatedProvider, header: str
) -> None:
    server = start(config(provider) | {"general_settings": {"user_header_name": header}})
    body = msgspec.json.encode(question())
    with Connection(server.port) as one:
        for user in ("anna", "anna", "bert", "carl"):
            one.send(request(body, f"{header.lower()}: {user}"))
            told = event(server, one.read().headers["request-id"])
            assert told["end_user"] == user


def test_clients_that_leave_in_the_middle_hold_nothing(start: Start, provider: Any) -> None:
    """Room for two such bodies at a time: each that leaves gives its place back."""
    server = start(config(provider, max_held_bytes=700_000))
    body = large_question()
    right = server.count(body).json()
    for _ in range(20):
        with Connection(server.port) as one:
            one.send(request(body)[:-10])
            time.sleep(PAUSE_S)
    with Connection(server.port) as one:
        one.send(request(body))
        assert one.read().json() == right


def test_a_large_repeat_is_refused_where_others_hold_all_the_room(
    start: Start, provider: Any
) -> None:
    """Whether it comes in one piece or in many: as by the ordinary way."""
    server = start(config(provider, max_held_bytes=100_000))
    body = msgspec.json.encode(question(system="x" * 66_000))
    right = server.count(body).json()
    new = request(msgspec.json.encode(question(system="x" * 90_000)))
    with Connection(server.port) as holder:
        holder.send(new[:-10])
        time.sleep(PAUSE_S)
        for _ in range(10):
            with Connection(server.port) as one:
                time.sleep(PAUSE_S)
                one.send(request(body))
                assert one.read().status_code == 529
        holder.send(new[-10:])
        assert holder.read().status_code == 200
    assert server.count(body).json() == right


def test_a_waiting_body_is_not_cut_when_the_server_ends(start: Start, provider: Any) -> None:
    server = start(config(provider, drain_notice_s=1))
    body = large_question()
    right = server.count(body).json()
    with Connection(server.port) as one:
        one.send(request(body)[:-10])
        time.sleep(PAUSE_S)
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.2)
        one.send(request(body)[-10:])
        answer = one.read()
        assert answer.json() == right
        assert answer.headers["connection"] == "close"
        assert one.ends()


def test_a_flood_of_heads_leaves_room_for_those_that_come_again(server: Tallygate) -> None:
    """A header that is new each time makes a new head; what such a client repeats is a hit."""
    body = msgspec.json.encode(question())
    right = server.count(body).json()
    before = server.metrics()["tallygate_lane_hits_total"]
    with Connection(server.port) as one:
        for number in range(500):
            one.send(request(body, f"x-new: {number}"))
            assert one.read().json() == right
    assert server.metrics()["tallygate_lane_hits_total"] == before + 500


def test_heads_that_say_much_are_not_kept(server: Tallygate) -> None:
    """Thousands of them would take more memory than all counts."""
    body = msgspec.json.encode(question())
    before = server.metrics()["tallygate_lane_hits_total"]
    with Connection(server.port) as one:
        for length, hits in ((30, 1), (120, 0)):
            betas = ",".join(f"{number:02d}".ljust(length, "x") for number in range(20))
            heard = []
            for _ in range(2):
                one.send(request(body, f"anthropic-beta: {betas}"))
                heard.append(one.read())
            assert [one.headers["x-tallygate-source"] for one in heard] == ["live", "cache"]
            assert heard[0].json() == heard[1].json()
            before += hits
            assert server.metrics()["tallygate_lane_hits_total"] == before


def test_the_switch(start: Start, provider: Any) -> None:
    server = start(config(provider, hit_lane=False))
    body = msgspec.json.encode(question())
    answers = [server.count(body) for _ in range(3)]
    assert [one.headers["x-tallygate-source"] for one in answers] == ["live", "cache", "cache"]
    assert server.metrics()["tallygate_lane_hits_total"] == 0
