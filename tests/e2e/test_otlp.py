"""OpenTelemetry: a span for each count, with one beneath it where a provider was asked."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.exchange import COUNT, MODEL, anthropic, model_list, question
from tests.e2e.receiver import Receiver, until
from tests.server import Tallygate

Span = dict[str, Any]
SERVER, CLIENT, ERROR = 2, 3, 2
COLLECTORS_KEY = "the-collectors-own-key"
SLOW_S = 0.2
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


@pytest.fixture(scope="module")
def server(
    start: Callable[..., Tallygate], provider: SimulatedProvider, collector: Receiver
) -> Tallygate:
    return start(config(provider, collector))


def config(provider: SimulatedProvider, collector: Receiver) -> dict[str, Any]:
    otlp = {"endpoint": f"{collector.url}/otlp/", "flush_s": 0.1, "signals": ["traces"]}
    return {
        "model_list": model_list(**{MODEL: anthropic("claude-up", provider.url)}),
        "telemetry": {"otlp": {**otlp, "headers": {"x-key": COLLECTORS_KEY}}},
    }


def spans(collector: Receiver) -> list[Span]:
    return [
        span
        for _, body in tuple(collector.posts)
        for resource in json.loads(body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def says(span: Span) -> dict[str, Any]:
    """The span's attributes; integers are strings on the wire."""
    found = {one["key"]: one["value"] for one in span["attributes"]}
    return {name: next(iter(value.values())) for name, value in found.items()}


def of(collector: Receiver, request_id: str) -> tuple[Span, list[Span]]:
    """Wait for a request's span; return it and those beneath it."""

    def found() -> list[Span]:
        return [one for one in spans(collector) if says(one).get(ID) == request_id]

    until(lambda: bool(found()))
    (server,) = found()
    return server, [one for one in spans(collector) if one["parentSpanId"] == server["spanId"]]


ID = "tallygate.request_id"


def test_a_miss_is_two_spans_and_a_hit_is_one(
    server: Tallygate, collector: Receiver, provider: SimulatedProvider
) -> None:
    body = question(user="somebody")
    provider.behave(delay_s=SLOW_S)
    miss, hit = (server.count(body) for _ in range(2))
    above, (beneath,) = of(collector, miss.headers["request-id"])
    assert above["name"] == f"count_tokens {MODEL}"
    assert (above["kind"], above["parentSpanId"], above["status"]) == (SERVER, "", {})
    told = says(above)
    assert told["token_count.input_tokens"] == str(miss.json()["input_tokens"])
    assert told["token_count.source"] == "live"
    assert told["cache.hit"] is False
    assert told["gen_ai.operation.name"] == "count_tokens"
    assert told["gen_ai.provider.name"] == "anthropic"
    assert told["user.id"] == "somebody"
    assert told["http.response.status_code"] == "200"
    assert not [name for name in told if name.startswith("gen_ai.usage")]
    assert (beneath["name"], beneath["kind"]) == ("count_tokens claude-up", CLIENT)
    assert beneath["traceId"] == above["traceId"]
    times = [
        int(one[name])
        for one, name in (
            (above, "startTimeUnixNano"),
            (beneath, "startTimeUnixNano"),
            (beneath, "endTimeUnixNano"),
            (above, "endTimeUnixNano"),
        )
    ]
    assert times == sorted(times)
    assert times[2] - times[1] >= SLOW_S * 1e9
    alone, below = of(collector, hit.headers["request-id"])
    assert below == []
    assert says(alone)["cache.hit"] is True
    assert len(bytes.fromhex(alone["traceId"])) == 16
    assert alone["traceId"] != above["traceId"]
    assert set(collector.paths) == {"/otlp/v1/traces"}
    assert {headers["x-key"] for headers, _ in collector.posts} == {COLLECTORS_KEY}
    assert COLLECTORS_KEY not in server.out.read_text() + server.err.read_text()


def test_a_caller_s_trace_goes_on(
    server: Tallygate, client: httpx.Client, collector: Receiver
) -> None:
    """Of a hit of the lane too; a malformed one is none; one that is not recorded stays unseen."""
    body = question()

    def count(**headers: str) -> httpx.Response:
        # Kept alive: on a connection that is just made, the ordinary way may come first.
        return client.post(COUNT, json=body, headers=headers)

    for _ in range(3):
        count()
    before = server.metrics()["tallygate_lane_hits_total"]
    traced = count(traceparent=f"00-{TRACE}-{PARENT}-01")
    unseen = count(traceparent=f"00-{TRACE}-{PARENT}-00")
    undecided = count(traceparent=f"00-{TRACE}-{PARENT}-02")
    malformed = count(traceparent=f"00-{TRACE}-{PARENT}")
    assert server.metrics()["tallygate_lane_hits_total"] == before + 4
    span, _ = of(collector, traced.headers["request-id"])
    assert (span["traceId"], span["parentSpanId"]) == (TRACE, PARENT)
    span, _ = of(collector, malformed.headers["request-id"])
    assert (span["traceId"] != TRACE, span["parentSpanId"]) == (True, "")
    seen = {says(one).get(ID) for one in spans(collector)}
    assert not seen & {one.headers["request-id"] for one in (unseen, undecided)}


def test_a_provider_s_failure_is_an_error_and_a_caller_s_is_none(
    server: Tallygate, collector: Receiver, provider: SimulatedProvider
) -> None:
    provider.behave(status=401, body={"type": "error", "error": {"type": "x", "message": "y"}})
    failed = server.count(question())
    provider.clear()
    refused = server.count(question(model="nobody"))
    above, (beneath,) = of(collector, failed.headers["request-id"])
    assert failed.status_code == 502
    assert above["status"] == beneath["status"] == {"code": ERROR}
    assert says(above)["error.type"] == says(beneath)["error.type"] == "api_error"
    above, below = of(collector, refused.headers["request-id"])
    assert (above["status"], below) == ({}, [])
    assert says(above)["error.type"] == "not_found_error"


def test_a_failure_behind_a_remembered_count_is_the_call_s_alone(
    start: Callable[..., Tallygate], collector: Receiver, provider: SimulatedProvider
) -> None:
    server, body = start(config(provider, collector) | {"cache": {"ttl_s": 1}}), question()
    server.count(body)
    time.sleep(1.1)
    provider.behave(status=503)
    stale = server.count(body)
    assert stale.headers["x-tallygate-source"] == "stale"
    above, below = of(collector, stale.headers["request-id"])
    assert above["status"] == {}
    assert [says(one)["error.type"] for one in below] == ["503"] * len(below) != []
    assert all(one["status"] == {"code": ERROR} for one in below)


def test_a_call_that_nobody_waited_for_took_as_long_as_its_caller(
    server: Tallygate, collector: Receiver, provider: SimulatedProvider
) -> None:
    provider.behave(delay_s=2.0)
    late = server.count(question(), x_litellm_timeout="0.3")
    assert late.status_code == 504
    _, (beneath,) = of(collector, late.headers["request-id"])
    took_ns = int(beneath["endTimeUnixNano"]) - int(beneath["startTimeUnixNano"])
    assert took_ns >= 0.2e9
