"""What may be asked of a provider, and by whom: the budget of a deployment, the limits of a key.

The provider notes when it is asked, so that the budget is judged where it matters.
"""

import itertools
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.provider import SimulatedProvider
from tests.e2e.exchange import anthropic, counted, model_list, question, refused, until
from tests.faults.crowd import workers
from tests.faults.flood import Flood, fewest_in_a_minute, most_in_a_minute
from tests.faults.redis_server import RedisServer
from tests.server import Tallygate

MODEL = "limited"
ONE = "sk-one-0123456789"
CALLS = 'tallygate_upstream_calls_total{provider="anthropic"}'
RELOAD_S = 120.0
"""Eight processes start on two busy cores, and old ones finish what waits in them."""
FLOOD_S = float(os.environ.get("FLOOD_S", "65"))
CLUSTER_ERRORS = 'tallygate_cache_total{tier="cluster",result="error"}'
SETTLE_S = 1.0
"""Until enough questions wait."""

Start = Callable[..., Tallygate]


@pytest.fixture(autouse=True)
def _unasked(provider: SimulatedProvider) -> None:
    """Let every test begin with a provider that has not been asked."""
    provider.clear()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start servers that end with their test: what waits in them would still ask the provider."""
    running: list[Tallygate] = []

    def start_one(config: dict[str, Any], **options: Any) -> Tallygate:
        running.append(Tallygate(tmp_path_factory.mktemp("server"), config, **options))
        return running[-1]

    yield start_one
    for server in running:
        server.stop()


def _limited(
    provider: SimulatedProvider, rpm: float, timeout: float = 30, **sections: Any
) -> dict[str, Any]:
    params = anthropic("claude-limited", provider.url, rpm=rpm, timeout=timeout)
    models = model_list(**{MODEL: params})
    return {"model_list": models, "telemetry": {"jsonl": {"path": "/dev/null"}}, **sections}


def _judge(provider: SimulatedProvider, flood: Flood, rpm: int, servers: int = 1) -> None:
    """Hold the provider's own record against the promise, and print it.

    ``servers``: how many of them kept to the budget by themselves.
    """
    times = [one.time for one in provider.requests]
    most = most_in_a_minute(times)
    fewest = fewest_in_a_minute(times, flood.began_s + SETTLE_S, flood.ended_s)
    print(
        f"{flood.asked_per_s():.0f} questions a second for {flood.ended_s - flood.began_s:.0f} s; "
        f"calls in any 60 s: at most {most}, at least {fewest} of {rpm}; "
        f"answers: {dict(flood.statuses())}"
    )
    assert most <= 1.1 * rpm * servers
    assert fewest >= 0.95 * rpm


@pytest.mark.timeout(300)
def test_budget_of_100_a_minute_on_8_workers(start: Start, provider: SimulatedProvider) -> None:
    """Far more questions than calls: the calls keep to the budget, and use it."""
    server = start(_limited(provider, 100), workers=8)
    with Flood([server.port], MODEL, 1000) as flood:
        time.sleep(FLOOD_S)
    _judge(provider, flood, 100)
    assert set(flood.statuses()) <= {200, 429}
    served = Counter(one.process for one in flood.counted())
    share = served.total() / 8
    print(f"calls of each worker: {sorted(served.values())}")
    assert len(served) == 8
    assert min(served.values()) >= share / 2
    waits = [float(one.retry_after) for one in flood.answers if one.status == 429]
    in_vain = [one.took_s for one in flood.answers if one.status == 429 and one.took_s > 2]
    print(f"told to wait: {min(waits):g} to {max(waits):g} s; {len(in_vain)} waited in vain")
    # 30 s, and what eight workers on few processors need.
    assert max(one.took_s for one in flood.answers) < 40


@pytest.mark.timeout(250)
def test_budget_while_workers_die_stop_and_change(
    start: Start, provider: SimulatedProvider
) -> None:
    """A worker that is killed, one that is stopped, and a new configuration: one budget still."""
    rpm = 600
    server = start(_limited(provider, rpm, timeout=5), workers=4)
    with Flood([server.port], MODEL, 60) as flood:
        time.sleep(12)
        os.kill(workers(server.pid)["Sanic-Server-0-0"], signal.SIGKILL)
        time.sleep(10)
        os.kill(workers(server.pid)["Sanic-Server-1-0"], signal.SIGSTOP)
        time.sleep(20)
        path = server.err.parent / "config.yaml"
        changed = yaml.safe_load(path.read_text())
        changed["model_list"].insert(0, {**changed["model_list"][0], "model_name": "other"})
        path.write_text(yaml.safe_dump(changed, sort_keys=False))
        os.kill(server.pid, signal.SIGHUP)
        changed_by_s = time.monotonic() + RELOAD_S
        while "all workers serve the new configuration" not in server.err.read_text():
            assert time.monotonic() < changed_by_s
            time.sleep(0.1)
        time.sleep(20)
    _judge(provider, flood, rpm)
    times = [one.time for one in provider.requests]
    pause_s = max(b - a for a, b in itertools.pairwise(times))
    print(f"the longest time without a call: {pause_s:.1f} s")
    assert pause_s < 3


@pytest.mark.timeout(200)
def test_two_servers_with_one_redis_share_a_budget(
    start: Start, provider: SimulatedProvider, tmp_path: Path
) -> None:
    """Together they keep to it and use it; when Redis goes, each keeps to its share."""
    rpm = 600
    with RedisServer(tmp_path) as redis:
        cache = {"cluster": {"url": redis.url}}
        servers = [start(_limited(provider, rpm, cache=cache), workers=2) for _server in range(2)]
        with Flood([one.port for one in servers], MODEL, 300) as flood:
            time.sleep(FLOOD_S)
        # An answer of Redis later than 50 ms is none: then each server has its own budget.
        late = sum(one.metrics()[CLUSTER_ERRORS] for one in servers)
        print(f"late answers of Redis: {late:.0f}")
        _judge(provider, flood, rpm, servers=2 if late else 1)
        served = Counter(one.process for one in flood.counted())
        print(f"calls of each worker: {sorted(served.values())}")
        by_server = [one.metrics()[CALLS] for one in servers]
        print(f"calls of each server: {by_server}")
        assert min(by_server) >= sum(by_server) / 4
    provider.clear()
    with Flood([one.port for one in servers], MODEL, 300) as flood:
        time.sleep(10)
    print(f"without Redis: {provider.calls} calls in 10 s")
    assert set(flood.statuses()) <= {200, 429}
    assert 0.8 * rpm / 6 <= provider.calls <= 1.5 * (rpm / 6 + rpm / 20)


def test_who_waits_for_a_turn_has_time_to_use_it(start: Start, provider: SimulatedProvider) -> None:
    """A turn that comes with the deadline would be a call in vain: nobody waits for that one."""
    models = model_list(**{MODEL: anthropic("claude-slow", provider.url, rpm=120, timeout=5)})
    server = start({"model_list": models}, workers=2)
    provider.behave(delay_s=0.3)
    with Flood([server.port], MODEL, 40) as flood:
        time.sleep(15)
    print(f"answers: {dict(flood.statuses())}")
    assert set(flood.statuses()) <= {200, 429}
    assert flood.statuses()[200] >= 20


@pytest.mark.processes
def test_what_cannot_be_sent_spends_no_turn(start: Start, provider: SimulatedProvider) -> None:
    """A hundred questions that have no form for this provider, and the one turn is left."""
    here = {"api_base": provider.url, "api_key": "AIza-test", "rpm": 1, "timeout": 5}
    server = start({"model_list": model_list(**{MODEL: {"model": "gemini/gemini-x", **here}})})
    elsewhere = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    for number in range(100):
        asked = [{"type": "text", "text": f"What is this? ({number})"}, elsewhere]
        answer = server.count(question(MODEL, messages=[{"role": "user", "content": asked}]))
        refused(answer, 400, "invalid_request_error")
    assert provider.calls == 0
    provider.behave(body={"totalTokens": 31})
    assert counted(server.count(question(MODEL))) == 31
    refused(server.count(question(MODEL)), 429, "rate_limit_error")


@pytest.mark.processes
def test_rpm_of_a_key_is_exact_over_all_workers(start: Start, provider: SimulatedProvider) -> None:
    """Fifty go, the rest are told when to come back; what is remembered is free, and other keys."""
    keys = [{"name": "one", "key": ONE, "rpm": 50}]
    models = model_list(**{MODEL: anthropic("claude-x", provider.url)})
    server = start({"model_list": models, "keys": keys}, workers=4)
    body = question(MODEL)
    counted(server.count(body))
    with Flood([server.port], MODEL, 60, key=ONE) as flood:
        time.sleep(5)
    assert flood.statuses().keys() == {200, 429}
    assert flood.statuses()[200] == 50
    assert provider.calls == 51
    waits = [int(one.retry_after) for one in flood.answers if one.status == 429]
    assert all(0 < one <= 60 for one in waits)
    assert min(waits) < max(waits)
    for _connection in range(16):  # whichever worker remembers it
        counted(server.count(body, authorization=f"Bearer {ONE}"))
    counted(server.count(question(MODEL)))
    assert server.metrics()['tallygate_limited_total{limit="key_rpm"}'] == flood.statuses()[429]


@pytest.mark.processes
def test_parallel_misses_of_a_worker_that_is_killed_are_over(
    start: Start, provider: SimulatedProvider
) -> None:
    """Whatever a dead worker had in flight holds no place."""
    keys = [{"name": "one", "key": ONE, "max_parallel_misses": 3}]
    models = model_list(**{MODEL: anthropic("claude-x", provider.url)})
    server = start({"model_list": models, "keys": keys}, workers=2)
    provider.behave(hang=True, times=3)
    with Flood([server.port], MODEL, 20, key=ONE, most=3):
        until(lambda: provider.calls == 3)
        refusal = server.count(question(MODEL), authorization=f"Bearer {ONE}")
        assert refusal.status_code == 429
        assert refusal.headers["retry-after"] == "1"
        for pid in workers(server.pid).values():
            os.kill(pid, signal.SIGKILL)
    until(lambda: _is_counted(server))
    assert provider.calls > 3


def _is_counted(server: Tallygate) -> bool:
    try:
        return server.count(question(MODEL), authorization=f"Bearer {ONE}").status_code == 200
    except OSError:
        return False


def test_a9_one_tenant_floods_misses(start: Start, provider: SimulatedProvider) -> None:
    """The misses of others take less than twice as long, whatever one key asks."""
    keys = [{"name": "one", "key": ONE, "max_parallel_misses": 4}]
    server = start(_limited(provider, 6000, keys=keys), workers=2)
    provider.behave(delay_s=0.3)
    with Flood([server.port], MODEL, 15) as alone:
        time.sleep(12)
    with (
        Flood([server.port], MODEL, 200, key=ONE) as flood,
        Flood([server.port], MODEL, 15) as other,
    ):
        time.sleep(15)
    before, during = (_p99_s(one) for one in (alone, other))
    print(
        f"misses of others, p99: {before * 1000:.0f} ms alone, {during * 1000:.0f} ms beside "
        f"{flood.asked_per_s():.0f} misses a second of one key: {dict(flood.statuses())}"
    )
    assert flood.statuses()[429] > flood.statuses()[200] > 0
    assert set(other.statuses()) == {200}
    assert during < 2 * before


def _p99_s(flood: Flood) -> float:
    return statistics.quantiles((one.took_s for one in flood.counted()), n=100)[-1]
