"""What is asked is the same in every run, is what the scenario says, and is asked of every body."""

import math
import re
from collections import Counter
from itertools import islice, pairwise

import msgspec
from msgspec.structs import replace

from bench.provider import count_tokens
from bench.questions import Message, Mix
from bench.scenarios import SCENARIOS
from bench.slice import Address
from bench.traffic import BODIES, CALLERS, callers, message

AT = Address("127.0.0.1", 8080)
KEY = "sk-test-0123456789"


def tokens(body: bytes) -> int:
    return count_tokens(msgspec.json.decode(body))


def mix(name: str) -> Mix:
    found = message(SCENARIOS[name], AT, KEY, "bench-model", tokens)
    assert isinstance(found, Mix)
    return found


def split(request: bytes) -> tuple[bytes, bytes]:
    """Head and body of a request whose content-length is right."""
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)$", head)
    assert length
    assert int(length[1]) == len(body)
    return head, body


def test_a_mix_is_the_same_in_every_run() -> None:
    for name in ("zipf", "claude-code"):
        assert mix(name) == mix(name)


def test_zipf_has_bodies_of_all_lengths_and_callers_with_keys_of_their_own() -> None:
    zipf = mix("zipf")
    lengths = [len(body) for body in zipf.bodies]
    assert len(set(lengths)) == len(lengths) == BODIES == 1000
    assert 200 <= min(lengths) < 300
    assert 2900 < max(lengths) <= 3000
    assert len(set(zipf.heads)) == CALLERS == 50
    assert all(key.encode() in head for key, head in zip(callers(KEY), zipf.heads, strict=True))


def test_zipf_asks_the_first_most_often_by_its_rank() -> None:
    order = mix("zipf").order
    by_body = Counter(body for _, body in order)
    assert 1.7 < by_body[0] / by_body[1] < 2.3
    assert 7 < by_body[0] / by_body[9] < 13
    assert len(by_body) > 990
    by_caller = Counter(caller for caller, _ in order)
    assert 1.7 < by_caller[0] / by_caller[1] < 2.3
    assert len(by_caller) == CALLERS


def test_each_connection_of_a_mix_asks_many_things_and_begins_elsewhere() -> None:
    zipf = mix("zipf")
    firsts = [list(islice(zipf.questions(tokens, one, 32), 100)) for one in range(32)]
    assert len({asked[0][0] for asked in firsts}) > 25
    for asked in firsts:
        assert len({split(request)[0] for request, _, _ in asked}) > 50
        assert all(right == tokens(split(request)[1]) for request, right, _ in asked)


def test_connections_that_share_a_mix_leave_nothing_out() -> None:
    for name, bodies, of in (("zipf", 1000, 20), ("zipf", 50, 50), ("claude-code", 118, 20)):
        whole = mix(name).once()
        once = replace(whole, bodies=whole.bodies[:bodies], order=whole.order[:bodies])
        times = math.ceil(bodies / of)
        asked = [
            split(request)[1]
            for number in range(of)
            for request, _, _ in islice(once.questions(tokens, number, of), times)
        ]
        assert set(asked) == set(once.bodies)
        assert len(asked) < bodies + of


def test_claude_code_asks_pairs_with_and_without_tools_about_growing_conversations() -> None:
    claude = mix("claude-code")
    asked = [(caller, msgspec.json.decode(claude.bodies[body])) for caller, body in claude.order]
    sizes: dict[int, list[int]] = {}
    for (caller, without), (_, with_all) in pairwise(asked):
        if len(without["messages"]) > 1 and "tools" not in without:
            assert with_all["messages"] == without["messages"]
            assert len(with_all["tools"]) == 11
            sizes.setdefault(caller, []).append(len(without["messages"]))
    assert set(map(tuple, sizes.values())) == {(3, 5, 7, 9, 11, 13)}
    assert len(sizes) == 8


def test_claude_code_repeats_the_small_questions_among_colleagues() -> None:
    claude = mix("claude-code")
    by_body: dict[int, set[int]] = {}
    for caller, body in claude.order:
        by_body.setdefault(body, set()).add(caller)
    assert Counter(map(len, by_body.values())) == {8: 22, 1: 8 * 6 * 2}
    assert b"?beta=true " in claude.heads[0]
    assert b"authorization: Bearer " in claude.heads[0]


def test_other_bytes_ask_the_same_each_time() -> None:
    found = message(SCENARIOS["other-bytes"], AT, KEY, "bench-model", tokens)
    assert isinstance(found, Message)
    asked = list(islice(found.questions(tokens, 0, 1), 1000))
    bodies = [split(request)[1] for request, _, _ in asked]
    assert len(set(bodies)) == 1000
    assert {len(body) for body in bodies} == {300}
    first = msgspec.json.decode(bodies[0])
    assert all(msgspec.json.decode(body) == first for body in bodies)
    assert {right for _, right, _ in asked} == {count_tokens(first)}
