"""``GET /status`` and its stream: what every worker tells alike, and to whom."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from app.status_reply import Status
from app.status_stream import MAX_STREAMS
from bench.provider import SimulatedProvider
from tests.e2e.exchange import BEARER, anthropic, counted, model_list, question, refused, until
from tests.server import Tallygate

Start = Callable[..., Tallygate]
TEAM = {"x-api-key": "sk-team-a-and-nobody-else"}
OTHER = {"x-api-key": "sk-team-b-and-nobody-else"}
WORKERS = 2


def config(provider: SimulatedProvider) -> dict[str, Any]:
    """Describe deployments that answer, are limited, fail, and ask nobody."""
    names = {
        "good": anthropic("claude-good", provider.url, rpm=120),
        "busy": anthropic("claude-busy", provider.url),
        "broken": anthropic("claude-broken", provider.url),
        "keyless": {"model": "anthropic/claude-k", "api_key": "os.environ/NOT_SET_ANYWHERE"},
        "own": {"model": "estimate/claude"},
    }
    keys = [
        {"name": "team-a", "key": TEAM["x-api-key"], "models": ["good", "own"]},
        {"name": "team-b", "key": OTHER["x-api-key"]},
    ]
    return {
        "model_list": model_list(**names),
        "keys": keys,
        "cache": {"host": {"enabled": False}},
        "limits": {"breaker_probe_s": 600},
    }


@pytest.fixture
def server(provider: SimulatedProvider, start: Start) -> Iterator[Tallygate]:
    running = start(config(provider), workers=WORKERS)
    yield running
    running.stop()
    assert "Traceback" not in running.err.read_text()


def read(server: Tallygate, **headers: str) -> Status:
    """Ask over a connection of its own, so that any worker may answer."""
    answer = httpx.get(f"{server.url}/status", headers=headers or BEARER)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["request-id"].startswith("req_")
    return msgspec.json.decode(answer.content, type=Status)


def by_name(status: Status) -> dict[str, Any]:
    return {one.alias: one for one in status.deployments}


def test_the_totals_are_those_of_metrics(server: Tallygate) -> None:
    body = question("good")
    for _ in range(20):
        counted(server.count(body))
    for _ in range(5):
        counted(server.count(question("own")))
    refused(server.count(question("unheard-of")), 404, "not_found_error")
    status, metrics = read(server), Counter(server.metrics())
    totals = status.totals
    assert totals.requests == 26
    assert totals.counts["cache"] + totals.counts["live"] == 20
    assert totals.counts["cache"] == totals.saved_calls >= 18  # each worker asks at most once
    assert totals.counts["estimate"] == 5
    assert totals.errors["not_found_error"] == 1
    assert totals.upstream_calls == totals.counts["live"]
    for name, found in {
        "requests_total{": totals.requests,
        "upstream_calls_total{": totals.upstream_calls,
        "lane_hits_total": totals.lane_hits,
        "request_seconds_count{": sum(one.count for one in status.latency.values()),
    }.items():
        shown = sum(value for key, value in metrics.items() if key.startswith(f"tallygate_{name}"))
        assert shown == found, name
    models = {one.name: one for one in status.models}
    assert models["good"].requests == 20
    assert models["other"].requests == 1
    hits = status.latency["cache"]
    assert len(hits.buckets) == len(status.le_ms) + 1
    assert sum(hits.buckets) == hits.count
    assert hits.p50_ms is not None
    assert hits.p99_ms is not None
    assert 0 < hits.p50_ms <= hits.p99_ms < 1000
    assert (status.workers, status.version) == (WORKERS, "0.1.0")
    assert status.started_s < status.time_s


def test_every_worker_tells_the_same_of_each_deployment(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """Breaker, cooldown, budget and last error: whichever worker has seen it."""
    secret = "a text of the provider's that may quote a prompt"
    for name, code in (("busy", 429), ("broken", 500)):
        provider.behave(
            status=code,
            model=f"claude-{name}",
            headers={"retry-after": "50"},
            body={"type": "error", "error": {"type": secret, "message": secret}},
        )
    for _ in range(12):
        server.count(question("broken"))
    server.count(question("busy"))
    for _ in range(3):
        counted(server.count(question("good")))
    for _ in range(8):
        status = read(server)
        found = by_name(status)
        assert found["own"].state == "estimate"
        assert found["keyless"].state == "unusable"
        assert found["busy"].state == "cooling"
        assert 40 < found["busy"].left_s <= 50
        assert (found["busy"].limited, found["busy"].last_error.status) == (1, 429)
        assert found["broken"].state == "open"
        assert 590 < found["broken"].left_s <= 600
        assert found["broken"].openings == 1
        assert found["broken"].failures == found["broken"].calls >= 5
        assert found["broken"].last_error.type in {"api_error", "other"}
        assert abs(found["broken"].last_error.time_s - time.time()) < 60
        good = found["good"]
        assert (good.state, good.last_error) == ("closed", None)
        assert (good.rpm.limit, good.rpm.burst) == (120, 6)
        assert good.rpm.left <= 5
        assert secret not in str(status)
    metrics = server.metrics()
    labels = 'deployment="broken[2]",model="broken",provider="anthropic"'
    assert metrics[f"tallygate_deployment_open{{{labels}}}"] == 1
    assert metrics[f"tallygate_deployment_cooling{{{labels}}}"] == 0
    assert metrics['tallygate_breaker_openings_total{deployment="broken[2]"}'] == 1
    labels = 'deployment="busy[1]",model="busy",provider="anthropic"'
    assert metrics[f"tallygate_deployment_cooling{{{labels}}}"] == 1
    labels = 'deployment="good[0]",model="good",provider="anthropic"'
    assert metrics[f"tallygate_rpm_limit{{{labels}}}"] == 120
    assert 0 <= metrics[f"tallygate_rpm_left{{{labels}}}"] <= 6
    assert metrics[f"tallygate_deployment_open{{{labels}}}"] == 0
    # What is left comes back by itself, and looking has not taken it.
    until(lambda: by_name(read(server))["good"].rpm.left == 6)


def test_each_family_of_metrics_is_told_once(server: Tallygate) -> None:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    told = Counter(line.split()[2] for line in lines if line.startswith("# TYPE"))
    assert set(told.values()) == {1}
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    ends = ("_bucket", "_count", "_sum")
    families = {
        next((n.removesuffix(e) for e in ends if n.removesuffix(e) in told), n) for n in names
    }
    assert families <= set(told)
    series = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))


def test_recent_errors_are_of_all_workers_and_survive_a_reload(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    refused(server.count(question("nobody-knows")), 404, "not_found_error")
    provider.behave(status=500, model="claude-broken")
    refused(server.count(question("broken")), 500, "api_error")
    first = httpx.post(f"{server.url}/v1/messages/count_tokens", json=question("good"))
    refused(first, 401, "authentication_error")
    before, file = read(server), server.err.parent / "config.yaml"
    changed = yaml.safe_load(file.read_text())
    changed["model_list"] += model_list(added={"model": "estimate/claude"})
    for reload, text in enumerate((yaml.safe_dump(changed), yaml.safe_dump(changed)), 1):
        file.write_text(text)
        os.kill(server.pid, signal.SIGHUP)
        until(lambda: server.err.read_text().count("all workers serve") == reload)  # noqa: B023
        for _ in range(4):
            after = read(server)
            assert [one.status for one in after.recent_errors] == [401, 500, 404]
            assert after.recent_errors[0].request_id == first.headers["request-id"]
            assert after.recent_errors[1].deployment == "broken[2]"
            assert after.recent_errors[1].caller == "master"
            assert by_name(after)["broken"].last_error == by_name(before)["broken"].last_error
            assert by_name(after)["broken"].calls == by_name(before)["broken"].calls
            assert "added" in by_name(after)
            assert after.started_s == before.started_s


@pytest.mark.parametrize("path", ["/status", "/status/stream"])
def test_nobody_sees_it_without_a_valid_key(server: Tallygate, path: str) -> None:
    refused(httpx.get(f"{server.url}{path}"), 401, "authentication_error")
    wrong = {"authorization": "Bearer sk-wrong"}
    refused(httpx.get(f"{server.url}{path}", headers=wrong), 401, "authentication_error")
    in_url = httpx.get(f"{server.url}{path}", params={"key": BEARER["authorization"][7:]})
    refused(in_url, 401, "authentication_error")


def test_another_key_sees_its_models_and_its_own_errors(server: Tallygate) -> None:
    counted(server.count(question("good"), **OTHER))
    refused(server.count(question("broken"), **TEAM), 403, "permission_error")
    refused(server.count(question("unheard-of"), **OTHER), 404, "not_found_error")
    seen = read(server, **TEAM)
    assert not seen.is_master
    assert {one.alias for one in seen.deployments} == {"good", "own"}
    assert {one.name for one in seen.models} == {"good", "own"}
    assert [one.status for one in seen.recent_errors] == [403]
    assert "team-b" not in str(seen)
    everything = read(server)
    assert everything.is_master
    assert [one.caller for one in everything.recent_errors] == ["team-b", "team-a"]


def test_without_a_key_this_machine_sees_it_and_no_other(start: Start) -> None:
    plain = {"model_list": model_list(own={"model": "estimate/claude"})}
    server = start(plain | {"general_settings": {"master_key": None}})
    answer = httpx.get(f"{server.url}/status")
    assert msgspec.json.decode(answer.content, type=Status).is_master
    for path in ("/status", "/status/stream"):
        away = httpx.get(f"{server.url}{path}", headers={"x-forwarded-for": "203.0.113.9"})
        refused(away, 403, "permission_error")


def test_the_stream_tells_one_status_a_second(server: Tallygate) -> None:
    with httpx.stream("GET", f"{server.url}/status/stream", headers=BEARER) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["request-id"].startswith("req_")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.iter_lines()
        one, began = msgspec.json.decode(next(lines), type=Status), time.monotonic()
        counted(server.count(question("own")))
        two, three = (msgspec.json.decode(next(lines), type=Status) for _ in range(2))
        assert 1.5 < time.monotonic() - began < 6
    assert (one.totals.requests, three.totals.requests) == (0, 1)
    assert one.time_s < two.time_s < three.time_s


def _open_streams(server: Tallygate, wanted: int) -> list[tuple[httpx.Client, httpx.Response]]:
    found = []
    for _ in range(wanted):
        client = httpx.Client()
        asked = client.build_request("GET", f"{server.url}/status/stream", headers=BEARER)
        found.append((client, client.send(asked, stream=True)))
    return found


def test_no_more_streams_than_there_is_room_for(provider: SimulatedProvider, start: Start) -> None:
    """One beyond is told to come back; a reader that leaves makes room."""
    server = start(config(provider))
    streams = _open_streams(server, MAX_STREAMS)
    assert {answer.status_code for _, answer in streams} == {200}
    beyond = httpx.get(f"{server.url}/status/stream", headers=BEARER)
    refused(beyond, 529, "overloaded_error")
    assert int(beyond.headers["retry-after"]) > 0
    streams.pop()[0].close()

    def has_room() -> bool:
        with httpx.stream("GET", f"{server.url}/status/stream", headers=BEARER) as answer:
            return answer.status_code == 200

    until(has_room)
    for client, _ in streams:
        client.close()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP], ids=["end", "reload"])
def test_a_drain_does_not_wait_for_streams(
    provider: SimulatedProvider, start: Start, sent: signal.Signals
) -> None:
    """A stream ends whole when its worker leaves, long before the drain's time is over."""
    server = start(config(provider) | {"server": {"drain_s": 60}})
    ended = threading.Event()
    heard: list[str] = []

    def listen() -> None:
        with httpx.stream("GET", f"{server.url}/status/stream", headers=BEARER) as answer:
            heard.extend(answer.iter_lines())
        ended.set()

    reader = threading.Thread(target=listen)
    reader.start()
    until(lambda: server.err.read_text() != "")
    time.sleep(1.5)
    began = time.monotonic()
    os.kill(server.pid, sent)
    assert ended.wait(20)
    reader.join()
    assert heard
    assert all(msgspec.json.decode(line, type=Status) for line in heard)
    assert server.stop() == 0
    assert time.monotonic() - began < 20
