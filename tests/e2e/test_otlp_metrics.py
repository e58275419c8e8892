"""OpenTelemetry: the numbers of /metrics, pushed by a server as a whole."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
import yaml

from bench.provider import SimulatedProvider
from tests.e2e.collector import Collector, Series, numbers, says
from tests.e2e.exchange import BEARER, COUNT, MODEL, anthropic, model_list, question
from tests.e2e.launch import Launch
from tests.e2e.receiver import until
from tests.faults.crowd import workers
from tests.server import Tallygate, free_port

Start = Callable[..., Tallygate]
Numbers = dict[Series, float]
NEVER_S = 3600
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


def config(provider: SimulatedProvider, collector: Collector, **more: Any) -> dict[str, Any]:
    otlp = {"endpoint": collector.url, "signals": ["metrics"], "metrics_every_s": 0.2, **more}
    return {
        "model_list": model_list(**{MODEL: anthropic("claude-up", provider.url)}),
        "telemetry": {"otlp": otlp},
    }


def shown(server: Tallygate) -> Numbers:
    """What /metrics says, without what is zero."""
    found = {}
    told = httpx.get(f"{server.url}/metrics").text.splitlines()
    # The state of a deployment is asked of a worker, and is not pushed.
    gauges = {line.split()[2] for line in told if line.startswith("# TYPE") and "gauge" in line}
    for name, value in server.metrics().items():
        if name.partition("{")[0] in gauges:
            continue
        family, _, inside = name.partition("{")
        if value:
            found[family, frozenset(_LABEL.findall(inside))] = value
    return found


def agrees(pushed: Numbers, server: Tallygate) -> bool:
    """Say whether a push and /metrics name the same numbers; a push leaves out what is zero."""
    return {series: value for series, value in pushed.items() if value} == shown(server)


def last(collector: Collector) -> Numbers:
    pushes = collector.pushes()
    return numbers(pushes[-1]) if pushes else {}


def total(pushed: Numbers, name: str) -> float:
    return sum(value for (family, _), value in pushed.items() if family == name)


def work(server: Tallygate, rounds: int) -> int:
    """Ask over many connections, so that every worker has some; return how often."""
    asked = 0
    for _ in range(rounds):
        body = question()
        for sent in (body, body, question(model="nobody")):
            httpx.post(f"{server.url}{COUNT}", json=sent, headers=BEARER, timeout=30)
            asked += 1
    return asked


def starts(collector: Collector) -> set[str]:
    """When what is counted began, by each point of all pushes."""
    return {
        point["startTimeUnixNano"]
        for push in collector.pushes()
        for metric in push
        for kind in ("sum", "histogram")
        for point in metric.get(kind, {}).get("dataPoints", ())
    }


def test_what_two_workers_count_is_pushed_as_metrics_shows_it(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    server = start(config(provider, collector), workers=2)
    asked = work(server, 20)
    httpx.get(f"{server.url}/nowhere")
    until(lambda: total(last(collector), "tallygate_requests_total") == asked)
    until(lambda: agrees(last(collector), server))
    assert total(last(collector), "tallygate_http_refusals_total") == 1
    assert set(collector.paths) == {"/v1/metrics"}
    (source,) = {tuple(sorted(one.items())) for one in collector.resources()}
    assert dict(source)["service.name"] == "tallygate"
    assert dict(source)["service.instance.id"].endswith(f"-{server.pid}")


def test_a_killed_worker_neither_doubles_nor_loses(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    """What it has counted stays; the sums never fall, and go on from the same beginning."""
    server = start(config(provider, collector), workers=2)
    asked = work(server, 10)
    before = workers(server.pid)
    os.kill(next(iter(before.values())), signal.SIGKILL)
    until(lambda: len(workers(server.pid)) == 2 and workers(server.pid) != before)
    until(lambda: httpx.get(f"{server.url}/health/readiness").status_code == 200)
    asked += work(server, 10)
    until(lambda: total(last(collector), "tallygate_requests_total") == asked)
    until(lambda: agrees(last(collector), server))
    assert len(starts(collector)) == 1
    pushed = [numbers(push) for push in collector.pushes()]
    for earlier, later in pairwise(pushed):
        assert all(later[series] >= value for series, value in earlier.items())


def test_the_last_numbers_are_pushed_when_the_server_ends(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    """After the workers, whose own last records are among them; squeezed, if that is wanted."""
    signals = ["metrics", "traces"]
    more = {"metrics_every_s": NEVER_S, "flush_s": 60, "signals": signals, "compression": "gzip"}
    server = start(config(provider, collector, **more), workers=2)
    asked = work(server, 5)
    assert collector.posts == []
    assert server.stop() == 0
    (push,) = collector.pushes()
    pushed = numbers(push)
    assert total(pushed, "tallygate_requests_total") == asked
    sent = frozenset({("sink", "otlp"), ("result", "sent")})
    assert pushed["tallygate_records_total", sent] == asked
    assert {headers["content-encoding"] for headers, _ in collector.posts} == {"gzip"}
    told = [says(one)["tallygate.request_id"] for one in collector.spans() if _is_server(one)]
    assert len(set(told)) == len(told) == asked
    assert len({one["service.instance.id"] for one in collector.resources()}) == 1


def _is_server(span: dict[str, Any]) -> bool:
    return bool(span["kind"] == "SPAN_KIND_SERVER")


def test_a_server_without_a_main_process_pushes_too(
    launch: Callable[..., Launch], provider: SimulatedProvider, collector: Collector
) -> None:
    port = free_port()
    launched = launch(config(provider, collector), "--single-process", "--port", str(port))
    launched.answers(port)
    httpx.post(f"http://127.0.0.1:{port}{COUNT}", json=question())
    until(lambda: total(last(collector), "tallygate_requests_total") == 1)
    httpx.post(f"http://127.0.0.1:{port}{COUNT}", json=question())
    assert launched.terminate() == 0
    assert total(last(collector), "tallygate_requests_total") == 2


def reload(server: Tallygate, changes: dict[str, Any]) -> None:
    file = server.err.parent / "config.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))
    os.kill(server.pid, signal.SIGHUP)


def test_a_reload_changes_where_the_numbers_go_and_not_the_numbers(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    """Another model is another layout of what is counted; what was counted before is kept."""
    one = config(provider, collector)
    server = start(one, workers=2)
    asked = work(server, 5)
    until(lambda: total(last(collector), "tallygate_requests_total") == asked)
    with Collector() as other:
        entries = model_list(another=anthropic("claude-two", provider.url))
        new = config(provider, other)
        reload(server, {**new, "model_list": [*entries, *new["model_list"]]})
        until(lambda: "all workers serve the new configuration" in server.err.read_text())
        asked += work(server, 5)
        until(lambda: total(last(other), "tallygate_requests_total") == asked)
        until(lambda: agrees(last(other), server))
        assert starts(other) == starts(collector)


@pytest.mark.parametrize("how", ["hangs", "refuses", "is gone"])
def test_a_bad_collector_costs_no_count_and_no_long_end(
    how: str, start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    one = config(provider, collector, signals=["traces", "metrics", "logs"], flush_s=0.1)
    if how == "hangs":
        collector.delay_s = 30
    elif how == "refuses":
        collector.statuses = [500] * 100_000
    else:
        one["telemetry"]["otlp"]["endpoint"] = f"http://127.0.0.1:{free_port()}"
    server = start(one, workers=2)
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=5) as client:
        body = question()
        for _ in range(300):
            assert client.post(COUNT, json=body).status_code == 200
    assert server.stop() == 0
