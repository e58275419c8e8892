"""What could make a remembered count wrong: locks, late landings, clocks, foreign writers."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import anthropic, counted, model_list, question
from tests.e2e.herd import ask_at_once
from tests.e2e.test_repeats import Here, header, in_worker, source
from tests.faults.redis_server import BINARIES, RedisServer
from tests.server import KEY, Tallygate

Start = Callable[..., Tallygate]
HEARD_S = 2.5


@pytest.fixture(autouse=True)
def _willing(provider: SimulatedProvider) -> None:
    provider.clear()


def config(provider: SimulatedProvider, **cache: Any) -> dict[str, Any]:
    entries = model_list(**{"claude-3-5-sonnet": anthropic("claude-x", provider.url)})
    return {"model_list": entries, "cache": {"sentinel": {"per_minute": 0}, **cache}}


def test_a_generation_that_could_not_be_written_is_written_later(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "own" / "counts"
    server = start(config(provider, host={"path": str(path)}), workers=2)
    body = question()
    for _ in range(8):
        server.count(body)
    time.sleep(0.3)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    provider.clear()
    provider.behave(body={"input_tokens": 4711})
    assert counted(server.count(body, cache_control="no-cache")) == 4711
    time.sleep(2)  # longer than a writer waits for the lock
    holder.execute("COMMIT")
    holder.close()
    time.sleep(HEARD_S)
    assert {counted(server.count(body)) for _ in range(12)} == {4711}


def test_a_slow_count_of_before_does_not_replace_a_later_one(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    shared = config(provider, host={"path": str(tmp_path / "own" / "counts")})
    first, second = start(shared), start(shared)
    body = question()
    for server in (first, second):
        server.count(body)
    provider.clear()
    provider.behave(delay_s=3, times=1, body={"input_tokens": 99})
    slow: list[int] = []
    asking = threading.Thread(
        target=lambda: slow.append(counted(first.count(body, cache_control="no-cache")))
    )
    asking.start()
    time.sleep(0.7)
    provider.behave(body={"input_tokens": 50})
    assert counted(second.count(body, cache_control="no-cache")) == 50
    asking.join()
    assert slow == [99]
    time.sleep(HEARD_S)
    assert {counted(server.count(body)) for server in (first, second) for _ in range(4)} == {50}


def test_a_flight_from_before_a_purge_brings_nothing_back(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(here: Here) -> None:
        await here.ask()
        provider.behave(delay_s=0.5, times=1, body={"input_tokens": 99})
        slow = asyncio.create_task(here.ask(cache_control="no-cache"))
        await asyncio.sleep(0.2)
        here.worker.tiers.advance("claude-x")
        assert (await slow).body == b'{"input_tokens":99}'
        assert source(await here.ask()) == "live"

    in_worker(tmp_path, provider, check)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Step the wall clock, as an operator or a time server may; the monotonic one goes on."""
    ahead = [0.0]
    true_s, true_ns = time.time, time.time_ns
    monkeypatch.setattr("app.workers.WALL_CLOCK", lambda: true_s() + ahead[0])
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + int(ahead[0] * 1e9))

    def to(seconds: float) -> None:
        ahead[0] = seconds

    return to


def test_c10_after_a_step_back_a_new_count_still_replaces_the_old(
    tmp_path: Path, provider: SimulatedProvider, step: Callable[[float], None]
) -> None:
    async def check(here: Here) -> None:
        await here.ask()
        step(-3600)
        provider.behave(body={"input_tokens": 4711})
        anew = await here.ask(cache_control="no-cache")
        assert header(anew, "cache-status") == "tallygate; fwd=miss; stored"
        again = await here.ask()
        assert (source(again), again.body) == ("cache", b'{"input_tokens":4711}')

    in_worker(tmp_path, provider, check)


def test_c10_a_step_back_makes_no_count_young_again(
    tmp_path: Path, provider: SimulatedProvider, step: Callable[[float], None]
) -> None:
    async def check(here: Here) -> None:
        await here.ask()
        await asyncio.sleep(0.7)
        step(-3600)
        assert source(await here.ask()) == "live"

    in_worker(tmp_path, provider, check, cache="ttl_s: 0.5")


def test_c10_a_count_from_the_future_is_deleted_and_asked_for_once(
    tmp_path: Path, provider: SimulatedProvider, step: Callable[[float], None]
) -> None:
    async def check(here: Here) -> None:
        await here.ask()

    step(3 * 86_400)
    in_worker(tmp_path, provider, check)
    step(0)
    for _ in range(3):
        in_worker(tmp_path, provider, check)
    assert provider.calls == 2


def test_a_callers_own_count_never_becomes_everybodys(
    provider: SimulatedProvider, start: Start
) -> None:
    keyless = anthropic("claude-x", provider.url, api_key="os.environ/NOT_SET_ANYWHERE")
    cache = {"sentinel": {"per_minute": 6, "min_age_s": 0}}
    server = start({"model_list": model_list(keyless=keyless), "cache": cache})
    own = {"x_litellm_api_key": KEY, "x_api_key": "sk-ant-api03-of-the-caller"}
    body = question("keyless")
    for _ in range(4):
        assert counted(server.count(body, **own)) == count_tokens(body)
    time.sleep(1)
    assert server.count(body).status_code == 502
    assert provider.calls == 1


def test_other_reply_fields_are_no_detail(provider: SimulatedProvider, start: Start) -> None:
    server = start(config(provider), workers=2)
    body = question()

    def reply(tokens: int) -> dict[str, Any]:
        return {"input_tokens": 50, "context_management": {"original_input_tokens": tokens}}

    provider.behave(body=reply(100))
    for _ in range(8):
        server.count(body)
    provider.clear()
    provider.behave(body=reply(777))
    server.count(body, cache_control="no-cache")
    time.sleep(HEARD_S)
    assert {server.count(body).text for _ in range(12)} == {server.count(body).text}
    assert server.count(body).json() == reply(777)


def test_nonsense_among_the_clusters_generations_is_not_believed(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, BINARIES[0]) as redis:
        server = start(config(provider, cluster={"url": redis.url}))
        for nonsense in (b"9" * 20, b"%020d" % (2**63 - 1)):
            redis.do("HSET", "tallygate:generations", "claude-x", nonsense)
            time.sleep(1.5)
            body = question()
            assert counted(server.count(body)) == count_tokens(body)


def test_c10_a_generation_from_the_future_blocks_no_purge(
    provider: SimulatedProvider, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "own" / "counts"
    server = start(config(provider, host={"path": str(path)}), workers=2)
    body = question()
    for _ in range(8):
        server.count(body)
    time.sleep(0.3)
    with sqlite3.connect(path) as writer:
        ahead_ms = int((time.time() + 3 * 86_400) * 1000)
        writer.execute("INSERT INTO generations VALUES ('claude-x', ?)", (ahead_ms,))
        writer.execute("INSERT INTO generations VALUES ('other', 'no number')")
    writer.close()
    time.sleep(1.5)
    provider.clear()
    provider.behave(body={"input_tokens": 4711})
    assert counted(server.count(body, cache_control="no-cache")) == 4711
    time.sleep(HEARD_S)
    assert {counted(server.count(body)) for _ in range(12)} == {4711}


@pytest.mark.slow
def test_a_count_that_has_changed_is_asked_for_once_by_all_workers(
    provider: SimulatedProvider, start: Start
) -> None:
    server = start(config(provider, ttl_s=1, stale_after_s=20), workers=4)
    body = question()
    server.count(body)
    time.sleep(1.2)
    provider.clear()
    provider.behave(delay_s=2, body={"input_tokens": 4711})
    herd = asyncio.run(ask_at_once([server.port], body, 200))
    assert herd.counts == {4711: 200}
    # One may come just after the second in which the count is fresh.
    assert provider.calls <= 2
    assert server.metrics()['tallygate_cache_total{tier="local",result="drift"}'] == 1


@pytest.mark.slow
def test_what_is_never_fresh_makes_no_queue(provider: SimulatedProvider, start: Start) -> None:
    server = start(config(provider, ttl_s=0), workers=4)
    provider.behave(delay_s=1)
    began = time.monotonic()
    herd = asyncio.run(ask_at_once([server.port], question(), 100))
    assert herd.statuses == {200: 100}
    assert time.monotonic() - began < 3
    assert provider.calls <= 4


def test_each_who_wants_it_anew_is_answered_by_a_call_of_its_own(
    tmp_path: Path, provider: SimulatedProvider
) -> None:
    async def check(here: Here) -> None:
        provider.behave(delay_s=0.4, times=1, body={"input_tokens": 50})
        first = asyncio.create_task(here.ask(cache_control="no-cache"))
        await asyncio.sleep(0.2)
        provider.behave(body={"input_tokens": 51})
        second = await here.ask(cache_control="no-cache")
        assert (source(second), second.body) == ("live", b'{"input_tokens":51}')
        assert (await first).body == b'{"input_tokens":50}'
        assert (await here.ask()).body == b'{"input_tokens":51}'

    in_worker(tmp_path, provider, check)
