"""How the server behaves while much happens at once, and beside it: rows 83 to 95."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.e2e.exchange import (
    COUNT,
    JSON,
    MODEL,
    PATIENCE_S,
    Connection,
    anthropic,
    asked,
    counted,
    event,
    model_list,
    question,
    refused,
    request,
    until,
)
from tests.server import KEY, Tallygate

MAX_RSS_KB = 550 * 1024


@pytest.fixture(scope="module")
def server(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Tallygate:
    """One worker; a deployment of its own for every test that hurts one."""
    base = provider.url
    pools = [
        {"model_name": pool, "litellm_params": anthropic(f"claude-{pool}-{number}", base)}
        for pool in ("pool-500", "pool-529", "pool-429", "pool-400", "pool-down")
        for number in (1, 2)
    ]
    return start(
        {
            "model_list": [
                *model_list(
                    **{
                        MODEL: anthropic("claude-3-5-sonnet-20241022", base),
                        "slow": anthropic("claude-slow", base, timeout=30),
                        "hasty": anthropic("claude-hasty", base, timeout=0.5),
                        "anthropic/*": anthropic("*", base),
                    }
                ),
                *pools,
            ],
            "general_settings": {"master_key": KEY},
            "router_settings": {"model_group_alias": {"my-alias": MODEL}},
        }
    )


@pytest.fixture(scope="module")
def two_workers(start: Callable[..., Tallygate], provider: SimulatedProvider) -> Tallygate:
    """A server of two processes."""
    models = model_list(**{MODEL: anthropic("claude-3-5-sonnet-20241022", provider.url)})
    return start({"model_list": models}, workers=2)


def _both_workers(server: Tallygate) -> tuple[Connection, Connection]:
    """Open connections until one leads to each worker: ids tell processes apart."""
    found: dict[str, Connection] = {}
    deadline = time.monotonic() + PATIENCE_S
    spare: list[Connection] = []
    while len(found) < 2:
        assert time.monotonic() < deadline
        # Held open while more are opened, so that an idle worker takes its turn.
        connection = Connection(server.port)
        spare.append(connection)
        connection.send(request(method="GET", target="/health/liveliness"))
        process = connection.read().headers["request-id"][: len("req_") + 16]
        found.setdefault(process, connection)
    for connection in spare:
        if connection not in found.values():
            connection.close()
    first, second = found.values()
    return first, second


def test_row_83_a_hundred_at_once(server: Tallygate, provider: SimulatedProvider) -> None:
    """A hundred identical requests at once make one call, and a hundred equal answers."""
    provider.behave(delay_s=1)
    body = question()
    wire = request(msgspec.json.encode(body))
    connections = [Connection(server.port) for _caller in range(100)]
    for connection in connections:
        connection.send(wire)
    answers = [connection.read() for connection in connections]
    for connection in connections:
        connection.close()
    assert {counted(answer) for answer in answers} == {count_tokens(body)}
    sources = [answer.headers["x-tallygate-source"] for answer in answers]
    assert sorted(sources) == ["coalesced"] * 99 + ["live"]
    assert provider.calls == 1


def test_row_83_at_once_in_two_workers(two_workers: Tallygate, provider: SimulatedProvider) -> None:
    """Two workers that are asked the same at once make one call."""
    provider.behave(delay_s=1)
    body = question()
    first, second = _both_workers(two_workers)
    with first, second:
        first.send(request(msgspec.json.encode(body)))
        second.send(request(msgspec.json.encode(body)))
        assert counted(first.read()) == counted(second.read()) == count_tokens(body)
    assert provider.calls == 1


def test_row_84_asked_again(
    client: httpx.Client, stranger: httpx.Client, provider: SimulatedProvider
) -> None:
    """The same question later is answered from memory, to those who may ask."""
    body = question()
    live = client.post(COUNT, json=body)
    again = client.post(COUNT, json=body)
    assert again.content == live.content
    assert again.headers["x-tallygate-source"] == "cache"
    refused(stranger.post(COUNT, json=body), 401, "authentication_error")
    wrong = {"authorization": "Bearer sk-wrong"}
    refused(stranger.post(COUNT, json=body, headers=wrong), 401, "authentication_error")
    assert provider.calls == 1


def test_row_84_same_question_in_other_words(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """White space and the order of top-level fields make no other question."""
    body = question(system="s")
    spaced = msgspec.json.format(msgspec.json.encode(dict(reversed(body.items()))), indent=4)
    counted(client.post(COUNT, json=body))
    again = client.post(COUNT, content=b"\n\t" + spaced + b" ", headers=JSON)
    assert again.headers["x-tallygate-source"] == "cache"
    assert provider.calls == 1


def test_row_84_asked_again_of_another_worker(
    two_workers: Tallygate, provider: SimulatedProvider
) -> None:
    """What one worker has counted, the other remembers."""
    wire = request(msgspec.json.encode(question()))
    first, second = _both_workers(two_workers)
    with first, second:
        first.send(wire)
        live = first.read()
        second.send(wire)
        again = second.read()
    assert again.content == live.content
    assert again.headers["x-tallygate-source"] == "cache"
    assert provider.calls == 1


@pytest.mark.parametrize(
    ("directive", "source", "calls"), [("no-cache", "live", 2), ("only-if-cached", "cache", 1)]
)
def test_row_84_cache_control(
    client: httpx.Client, provider: SimulatedProvider, directive: str, source: str, calls: int
) -> None:
    """A caller may insist on a fresh count, or on a remembered one."""
    body = question()
    counted(client.post(COUNT, json=body))
    again = client.post(COUNT, json=body, headers={"cache-control": directive})
    assert again.headers["x-tallygate-source"] == source
    assert provider.calls == calls


def test_row_84_no_store(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A caller may ask that its count is not remembered; ``only-if-cached`` then finds nothing."""
    body = question()
    counted(client.post(COUNT, json=body, headers={"cache-control": "no-store"}))
    only = client.post(COUNT, json=body, headers={"cache-control": "only-if-cached"})
    refused(only, 504, "timeout_error")
    assert provider.calls == 1


def test_row_85_slow_upstream(
    server: Tallygate, client: httpx.Client, provider: SimulatedProvider
) -> None:
    """Fifty counts that hang hold up nobody else: not other models, not the health checks."""
    body = question()
    counted(client.post(COUNT, json=body))
    provider.behave(hang=True, model="claude-slow")
    hanging = [Connection(server.port) for _caller in range(50)]
    for connection in hanging:
        connection.send(request(msgspec.json.encode(question("slow"))))
    until(lambda: provider.calls == 51)
    assert counted(client.post(COUNT, json=body))
    assert counted(client.post(COUNT, json=question()))
    assert client.get("/health/liveliness").status_code == 200
    assert client.get("/health/readiness").status_code == 200
    for connection in hanging:
        connection.close()


def test_row_86_client_leaves_a_shared_count(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    """The one who asked first hangs up: the others still get the answer, from the one call."""
    provider.behave(delay_s=1)
    body = question()
    wire = request(msgspec.json.encode(body))
    with Connection(server.port) as waiter:
        with Connection(server.port) as leader:
            leader.send(wire)
            until(lambda: provider.calls == 1)
            waiter.send(wire)
        answer = waiter.read()
    assert counted(answer) == count_tokens(body)
    assert answer.headers["x-tallygate-source"] == "coalesced"
    assert provider.calls == 1


@pytest.mark.parametrize("status", [429, 500, 529])
def test_row_87_next_deployment(
    client: httpx.Client, provider: SimulatedProvider, status: int
) -> None:
    """Where the first deployment of a name fails, the next one answers, and is named."""
    name = f"pool-{status}"
    provider.behave(status=status, model=f"claude-{name}-1")
    body = question(name)
    response = client.post(COUNT, json=body)
    assert counted(response) == count_tokens(body)
    assert response.headers["x-tallygate-model"] == f"claude-{name}-2"
    tries = [msgspec.json.decode(one.body)["model"] for one in provider.requests]
    assert tries[-1] == f"claude-{name}-2"
    assert 1 <= tries.count(f"claude-{name}-1") <= 2


def test_row_87_all_deployments_fail(client: httpx.Client, provider: SimulatedProvider) -> None:
    """Where all fail, the first error is the answer, after a bounded number of tries."""
    provider.behave(status=500, model="claude-pool-down-1")
    provider.behave(status=529, model="claude-pool-down-2")
    response = client.post(COUNT, json=question("pool-down"))
    refused(response, 500, "api_error")
    assert 2 <= provider.calls <= 4


def test_row_87_callers_fault_is_final(client: httpx.Client, provider: SimulatedProvider) -> None:
    """A request that one deployment refuses as wrong is not tried on the next."""
    provider.behave(status=400)
    refused(client.post(COUNT, json=question("pool-400")), 400, "invalid_request_error")
    assert provider.calls == 1


@pytest.mark.parametrize(
    ("name", "upstream_model"),
    [
        ("my-alias", "claude-3-5-sonnet-20241022"),
        ("anthropic/claude-x", "claude-x"),
        ("claude-opus-4-1-20250805", "claude-opus-4-1-20250805"),
    ],
    ids=["group-alias", "wildcard", "bare-id"],
)
def test_row_88_names(
    client: httpx.Client, provider: SimulatedProvider, name: str, upstream_model: str
) -> None:
    """Group aliases, wildcards and bare ids under a wildcard lead to their deployments."""
    body = question(name)
    response = client.post(COUNT, json=body)
    assert counted(response) == count_tokens(body)
    assert asked(provider)["model"] == upstream_model
    assert response.headers["x-tallygate-model"] == upstream_model


def test_row_89_timeout_of_a_deployment(client: httpx.Client, provider: SimulatedProvider) -> None:
    """``timeout`` is in seconds, for each deployment its own."""
    provider.behave(delay_s=1.5)
    with ThreadPoolExecutor() as pool:
        hasty = pool.submit(client.post, COUNT, json=question("hasty"))
        slow = pool.submit(client.post, COUNT, json=question("slow"))
        refused(hasty.result(), 504, "timeout_error")
        assert counted(slow.result())


def test_row_89_timeout_is_for_the_whole_count(
    client: httpx.Client, provider: SimulatedProvider
) -> None:
    """A provider that never stops sending is cut off too: the deadline is total, not per byte."""
    provider.behave(drip_s=0.1)
    response = client.post(COUNT, json=question("hasty"), timeout=10)
    refused(response, 504, "timeout_error")


def test_row_89_request_timeout(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    """``request_timeout`` stands where an entry has no ``timeout``."""
    server = start(
        {
            "model_list": model_list(**{MODEL: anthropic("claude-x", provider.url)}),
            "litellm_settings": {"request_timeout": 0.5},
        }
    )
    provider.behave(delay_s=1.5)
    refused(server.count(question()), 504, "timeout_error")


def test_row_90_event_logging(stranger: httpx.Client) -> None:
    """Claude Code's telemetry is taken, without a key."""
    response = stranger.post("/api/event_logging/batch", json={"events": [{"a": 1}]})
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/utils/token_counter?call_endpoint=true", question(), "total_tokens"),
        ("/v1/responses/input_tokens", {"model": MODEL, "input": "Hello"}, "input_tokens"),
        (f"/v1beta/models/{MODEL}:countTokens", {"contents": []}, "totalTokens"),
        ("/bedrock/model/anthropic.claude-x/count-tokens", {"input": {}}, "inputTokens"),
    ],
)
def test_row_91_other_counting_routes(
    client: httpx.Client, path: str, body: dict[str, Any], count: str
) -> None:
    """Other counting routes are served with the provider's number, or unknown as any other."""
    response = client.post(path, json=body)
    if response.status_code == 200:
        assert response.json()[count] > 0
    else:
        refused(response, 404, "not_found_error")


def test_row_92_health_under_load(server: Tallygate, client: httpx.Client) -> None:
    """Liveness and readiness answer while as many counts come as the server can take."""
    wires = [request(msgspec.json.encode(question(system="x" * 20_000))) for _body in range(400)]
    connections = [Connection(server.port) for _caller in range(40)]
    for number, connection in enumerate(connections):
        connection.send(b"".join(wires[number::40]))
    statuses = [
        client.get(path, timeout=5).status_code
        for _time in range(20)
        for path in ("/health/liveliness", "/health/liveness", "/health/readiness")
    ]
    assert set(statuses) == {200}
    for connection in connections:
        for _answer in range(10):
            counted(connection.read())
        connection.close()


def test_row_93_a_hit_is_cheap(server: Tallygate) -> None:
    """A repeat costs little more than the least that this server can answer.

    The comparison with another proxy is the benchmark's: it needs that proxy beside this one.
    """
    hit = request(msgspec.json.encode(question()))
    least = request(method="GET", target="/health/liveliness")
    spent: dict[bytes, list[float]] = {hit: [], least: []}
    with Connection(server.port) as connection:
        for _time in range(300):
            for wire, times in spent.items():
                started = time.perf_counter()
                connection.send(wire)
                connection.read()
                times.append(time.perf_counter() - started)
    assert statistics.median(spent[hit]) < 3 * statistics.median(spent[least])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_row_94_memory_after_load(server: Tallygate, client: httpx.Client) -> None:
    """After large bodies and many small ones, no worker has ever held 550 MB."""
    for _body in range(8):
        counted(client.post(COUNT, json=question(system="x" * 8_000_000)))
    wires = [request(msgspec.json.encode(question(system="x" * 5_000))) for _body in range(2000)]
    with Connection(server.port) as connection:
        for wire in wires:
            connection.send(wire)
            counted(connection.read())
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    assert children
    for pid in children:
        status = Path(f"/proc/{pid}/status").read_text()
        (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        assert int(peak) < MAX_RSS_KB


FORGED = 'x\n{"event":"count","status":200,"caller":"forged"}\r\n\x1b[2Jx'


@pytest.mark.parametrize(
    ("model", "fields"),
    [(FORGED, {}), ("{0.__class__}%s%(a)s", {}), (MODEL, {"user": FORGED})],
    ids=["newline-in-model", "braces-in-model", "newline-in-user"],
)
def test_row_95_log_injection(
    server: Tallygate, client: httpx.Client, model: str, fields: dict[str, Any]
) -> None:
    """What a caller makes up cannot forge a line, nor break one."""
    response = client.post(COUNT, json=question(model, **fields))
    assert response.status_code == (200 if model == MODEL else 404)
    event(server, response.headers["request-id"])
    for line in server.out.read_bytes().splitlines():
        record = msgspec.json.decode(line, type=dict[str, Any])
        assert record.get("caller") != "forged"
    log = server.err.read_text()
    assert "forged" not in log
    assert "\x1b" not in log
