"""One count per question for all workers of a machine, across restarts and outages."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import (
    BEARER,
    COUNT,
    FAILURES_STAND_ALONE,
    Connection,
    anthropic,
    counted,
    model_list,
    question,
    refused,
    request,
    until,
)
from tests.e2e.herd import ask_at_once, children, connected
from tests.server import Tallygate

Start = Callable[..., Tallygate]
FRESH_S = 1.0
PATIENCE_S = 0.4


def config(provider: SimulatedProvider, **cache: Any) -> dict[str, Any]:
    return {
        "model_list": model_list(**{"claude-3-5-sonnet": anthropic("claude-x", provider.url)}),
        "cache": cache,
        "limits": FAILURES_STAND_ALONE,
    }


@pytest.fixture(scope="module")
def forgetful(provider: SimulatedProvider, start: Start) -> Tallygate:
    """A server whose counts are fresh for a second."""
    return start(config(provider, ttl_s=FRESH_S, stale_after_s=PATIENCE_S))


def source(answer: Any) -> str:
    counted(answer)
    found: str = answer.headers["x-tallygate-source"]
    return found


def test_c1_a_thousand_at_once_on_eight_workers_make_one_call(
    provider: SimulatedProvider, start: Start
) -> None:
    server = start(config(provider), workers=8)
    provider.behave(delay_s=4, times=1)
    body = question()
    herd = asyncio.run(ask_at_once([server.port], body, 1_000))
    assert herd.broken == 0
    assert herd.counts == {count_tokens(body): 1_000}
    assert provider.calls == 1
    assert herd.sources["live"] == 1
    assert set(herd.sources) <= {"live", "coalesced", "cache"}
    # More than one worker was asked: the others found it in the file that they share.
    metrics = server.metrics()
    assert metrics['tallygate_cache_total{tier="host",result="hit"}'] >= 1


def test_a_killed_leader_is_replaced_and_no_waiter_fails(
    provider: SimulatedProvider, start: Start
) -> None:
    server = start(config(provider), workers=4)
    port = urlsplit(provider.url).port or 0
    provider.behave(delay_s=8, times=1)
    body = question()

    async def kill_the_leader() -> None:
        while not (  # noqa: ASYNC110 -- the kernel tells nobody
            leading := [pid for pid in children(server.pid) if connected(pid, port)]
        ):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # the others wait by now
        for pid in leading:
            os.kill(pid, signal.SIGKILL)

    async def both() -> Any:
        killing = asyncio.create_task(kill_the_leader())
        herd = await ask_at_once([server.port], body, 100)
        await killing
        return herd

    herd = asyncio.run(both())
    # Whoever was connected to the killed worker has lost its connection; nobody else has.
    assert herd.statuses == {200: 100 - herd.broken}
    assert 0 < herd.broken < 100
    assert herd.counts == {count_tokens(body): 100 - herd.broken}
    assert provider.calls == 2


def test_c2_a_leader_that_hangs_up_harms_no_waiter(
    provider: SimulatedProvider, start: Start
) -> None:
    server = start(config(provider, stale_after_s=PATIENCE_S))
    provider.behave(delay_s=3, times=1)
    body = question()
    with Connection(server.port) as leader, ThreadPoolExecutor(1) as others:
        leader.send(request(msgspec.json.encode(body)))
        until(lambda: provider.calls == 1)
        waiting = others.submit(lambda: asyncio.run(ask_at_once([server.port], body, 50)))
        time.sleep(1)  # all of them wait by now
        leader.close()
        herd = waiting.result()
    assert herd.counts == {count_tokens(body): 50}
    assert herd.sources == {"coalesced": 50}
    assert provider.calls == 1


def test_c9_what_is_asked_once_does_not_drive_out_what_is_asked_again(
    provider: SimulatedProvider, start: Start
) -> None:
    """The worker's own tier keeps no order of merit; the machine's file is behind it."""
    server = start(config(provider, local={"max_entries": 50}, sentinel={"per_minute": 0}))
    often = [question() for _ in range(20)]
    with httpx.Client(base_url=server.url, headers=BEARER) as client:

        def ask(body: dict[str, Any]) -> str:
            return source(client.post(COUNT, json=body))

        assert {ask(one) for one in often} == {"live"}
        assert {ask(question()) for _ in range(500)} == {"live"}
        provider.clear()
        assert {ask(one) for one in often} == {"cache"}
    assert provider.calls == 0


def test_c3_a_failing_leader_is_not_followed_by_others_in_series(
    provider: SimulatedProvider, start: Start
) -> None:
    server = start(config(provider), workers=4)
    provider.behave(status=500, delay_s=1)
    herd = asyncio.run(ask_at_once([server.port], question(), 200))
    assert herd.statuses == {500: 200}
    assert provider.calls == 1
    # A failure is nobody's answer a moment later.
    time.sleep(1)
    provider.clear()
    body = question()
    assert counted(server.count(body)) == count_tokens(body)


def test_answers_survive_a_restart(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    kept = config(provider, host={"path": str(tmp_path / "kept.sqlite3")})
    questions = [question() for _ in range(50)]
    first = start(kept)
    before = [first.count(one) for one in questions]
    assert first.stop() == 0
    provider.clear()
    second = start(kept, workers=2)
    after = [second.count(one) for one in questions]
    assert [one.json() for one in after] == [one.json() for one in before]
    assert {source(one) for one in after} == {"cache"}
    assert [one.headers["x-tallygate-counted-at"] for one in after] == [
        one.headers["x-tallygate-counted-at"] for one in before
    ]
    assert provider.calls == 0


def test_another_secret_finds_nothing(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    host = {"path": str(tmp_path / "shared.sqlite3")}
    body = question()
    for secret in ("one", "two"):
        assert source(start(config(provider, host=host, key_secret=secret)).count(body)) == "live"
    assert provider.calls == 2


OUTAGES = [
    {"status": 429},
    {"status": 500},
    {"status": 503},
    {"status": 529},
    {"body": {"input_tokens": 0}},
    {"raw": "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"},
    {"reset": True},
    {"hang": True},
]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda one: "-".join(map(str, one.items())))
def test_the_last_known_count_stands_in_while_the_provider_fails(
    outage: dict[str, Any], forgetful: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    live = forgetful.count(body)
    time.sleep(FRESH_S + 0.1)
    provider.hang_up()  # what a kept connection ends with is sent again by a new one
    provider.behave(**outage)
    began = time.monotonic()
    stale = forgetful.count(body)
    took_s = time.monotonic() - began
    assert stale.json() == live.json()
    assert source(stale) == "stale"
    assert stale.headers["cache-status"] == "tallygate; fwd=stale"
    assert stale.headers["x-tallygate-counted-at"] == live.headers["x-tallygate-counted-at"]
    assert took_s < PATIENCE_S + 2
    assert provider.calls == 2


def test_the_refresh_goes_on_behind_a_stale_answer(
    forgetful: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    forgetful.count(body)
    time.sleep(FRESH_S + 0.1)
    provider.behave(delay_s=PATIENCE_S + 0.6, times=1)
    assert source(forgetful.count(body)) == "stale"
    time.sleep(0.8)
    assert source(forgetful.count(body)) == "cache"
    assert provider.calls == 2


@pytest.mark.parametrize(
    ("status", "type_"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (413, "request_too_large")],
)
def test_a_refusal_of_the_question_is_never_covered_up(
    status: int, type_: str, forgetful: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    forgetful.count(body)
    time.sleep(FRESH_S + 0.1)
    provider.behave(status=status)
    refused(forgetful.count(body), status, type_)


@pytest.mark.parametrize("status", [400, 404, 405, 418])
def test_nor_is_one_that_we_answer_for(
    status: int, forgetful: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    forgetful.count(body)
    time.sleep(FRESH_S + 0.1)
    provider.behave(status=status, body="<html>")
    answer = forgetful.count(body)
    assert answer.status_code in {status, 502}
    assert "x-tallygate-source" not in answer.headers


@pytest.mark.parametrize("directive", ["no-cache", "max-age=60", "max-age=0", "only-if-cached"])
def test_who_wants_a_fresh_count_gets_no_stale_one(
    directive: str, forgetful: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    forgetful.count(body)
    time.sleep(FRESH_S + 0.1)
    provider.behave(status=529)
    answer = forgetful.count(body, cache_control=directive)
    only = directive == "only-if-cached"
    refused(answer, 504 if only else 529, "timeout_error" if only else "overloaded_error")
    assert provider.calls == (1 if only else 2)


def test_a_known_count_does_not_wait_for_the_next_counter_either(
    provider: SimulatedProvider, start: Start
) -> None:
    models = [
        {"model_name": "claude-3-5-sonnet", "litellm_params": anthropic(name, provider.url)}
        for name in ("claude-first", "claude-hanging")
    ]
    cache = {"ttl_s": FRESH_S, "stale_after_s": PATIENCE_S}
    server = start({"model_list": models, "cache": cache, "limits": FAILURES_STAND_ALONE})
    body = question()
    number = counted(server.count(body))
    time.sleep(FRESH_S + 0.1)
    provider.behave(status=500, model="claude-first")
    provider.behave(hang=True, model="claude-hanging")
    began = time.monotonic()
    answer = server.count(body)
    assert (source(answer), counted(answer)) == ("stale", number)
    # Its share of the deadline would be 30 s.
    assert time.monotonic() - began < 10


def test_a_bad_credential_of_the_operators_is_not_covered_up(
    forgetful: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    forgetful.count(body)
    time.sleep(FRESH_S + 0.1)
    provider.behave(status=401)
    refused(forgetful.count(body), 502, "api_error")


def test_an_unknown_question_fails_with_the_true_reason(
    forgetful: Tallygate, provider: SimulatedProvider
) -> None:
    provider.behave(status=529)
    refused(forgetful.count(question()), 529, "overloaded_error")


def test_a_client_may_say_how_old_a_count_may_be(provider: SimulatedProvider, start: Start) -> None:
    server = start(config(provider))
    body = question()
    server.count(body)
    assert source(server.count(body, cache_control="max-age=60")) == "cache"
    time.sleep(2.1)
    assert source(server.count(body)) == "cache"
    assert source(server.count(body, cache_control="max-age=1")) == "live"
    assert source(server.count(body, cache_control="max-age=1")) == "cache"
    assert provider.calls == 2


def test_names_that_move_are_fresh_for_a_short_time(
    provider: SimulatedProvider, start: Start
) -> None:
    entries = {
        name: anthropic(name, provider.url, **params)
        for name, params in {
            "claude-latest": {},
            "claude-fixed": {},
            "claude-own": {"cache_ttl_s": 1},
        }.items()
    }
    server = start({"model_list": model_list(**entries), "cache": {"alias_ttl_s": 1}})
    bodies = {name: question(name) for name in entries}
    for body in bodies.values():
        server.count(body)
    time.sleep(1.1)
    again = {name: source(server.count(body)) for name, body in bodies.items()}
    assert again == {"claude-latest": "live", "claude-fixed": "cache", "claude-own": "live"}


def test_a_count_that_has_changed_ends_all_that_was_counted_before(
    provider: SimulatedProvider, start: Start
) -> None:
    server = start(config(provider), workers=2)
    first, second = question(), question()
    for _ in range(8):  # both workers know both
        server.count(first)
        server.count(second)
    assert provider.calls == 2
    provider.clear()
    provider.behave(body={"input_tokens": 4711})
    anew = server.count(first, cache_control="no-cache")
    assert counted(anew) == 4711
    time.sleep(2)
    # No worker serves what was counted before, of this question or of another.
    assert {counted(server.count(first)) for _ in range(8)} == {4711}
    assert {counted(server.count(second)) for _ in range(8)} == {4711}
    assert provider.calls == 2
    assert server.metrics()['tallygate_cache_total{tier="local",result="drift"}'] == 1
    assert "drift: claude-x counts 4711" in server.err.read_text()


def test_hits_are_asked_again_now_and_then_and_drift_is_found(
    provider: SimulatedProvider, start: Start
) -> None:
    cache = config(provider, sentinel={"per_minute": 6, "min_age_s": 0})
    server = start(cache, workers=2)
    body = question()
    old = counted(server.count(body))
    provider.clear()
    provider.behave(body={"input_tokens": old + 1})
    until(lambda: counted(server.count(body)) == old + 1)
    assert server.metrics()['tallygate_recounts_total{result="drift"}'] == 1
    # Six a minute for the whole machine: not one more within these seconds.
    assert provider.calls <= 2


def test_a_machine_without_a_usable_file_still_counts(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    server = start(config(provider, host={"path": str(tmp_path / "file" / "counts")}))
    body = question()
    assert source(server.count(body)) == "live"
    assert source(server.count(body)) == "cache"
    assert "cache.host" in server.err.read_text()


def test_a10_no_text_of_a_question_is_kept(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    server = start(config(provider, host={"path": str(tmp_path / "counts")}))
    secret = "a sentence that nobody else must ever read"
    body = question(system=secret, metadata={"user_id": "someone-private"})
    counted(server.count(body, cache_control="max-age=9"))
    assert server.stop() == 0
    kept = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert "counts" in kept
    for name, data in kept.items():
        for text in (secret, body["messages"][0]["content"], "sk-ant-api03"):
            assert text.encode() not in data, name
        # Whom a question was for stands in the ledger alone.
        assert (b"someone-private" in data) <= name.startswith("usage.sqlite3"), name
    assert any(b"someone-private" in data for data in kept.values())
