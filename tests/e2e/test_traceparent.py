"""A trace goes on to the provider: what it is sent names the span of that very call."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider
from tests.e2e.collector import Collector, says
from tests.e2e.exchange import (
    BEARER,
    COUNT,
    FAILURES_STAND_ALONE,
    MODEL,
    anthropic,
    model_list,
    question,
)
from tests.e2e.receiver import until
from tests.server import Tallygate

Start = Callable[..., Tallygate]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STATE = "rojo=00f067aa0ba902b7,tenant@congo=t61rcWkgMzE"
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_PARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


def config(provider: SimulatedProvider, **telemetry: Any) -> dict[str, Any]:
    bedrock = {
        "model": f"bedrock/{SONNET}",
        "aws_region_name": "us-east-1",
        "aws_bedrock_runtime_endpoint": provider.url,
        "aws_access_key_id": "AKIDEXAMPLE",
        "aws_secret_access_key": "secret",
    }
    one = anthropic("claude-up", provider.url)
    return {
        "model_list": model_list(**{MODEL: one, "on-bedrock": bedrock}),
        "limits": {**FAILURES_STAND_ALONE, "retries_per_s": 1_000},
        "telemetry": telemetry,
    }


@pytest.fixture(scope="module")
def server(start: Start, provider: SimulatedProvider, collector: Collector) -> Tallygate:
    otlp = {"endpoint": collector.url, "flush_s": 0.1, "signals": ["traces"]}
    return start(config(provider, otlp=otlp))


@pytest.fixture(scope="module")
def plain(start: Start, provider: SimulatedProvider) -> Tallygate:
    """A server that makes no spans."""
    return start(config(provider))


def spans_of(collector: Collector, request_id: str) -> list[dict[str, Any]]:
    """Wait for a request's span; return it, and then those beneath it by their beginning."""

    def above() -> list[dict[str, Any]]:
        return [
            one for one in collector.spans() if says(one).get("tallygate.request_id") == request_id
        ]

    until(lambda: bool(above()))
    (server,) = above()
    beneath = [one for one in collector.spans() if one.get("parentSpanId") == server["spanId"]]
    return [server, *sorted(beneath, key=lambda one: int(one["startTimeUnixNano"]))]


def told(provider: SimulatedProvider) -> list[tuple[str, str]]:
    """What the provider was sent: the trace's parent and its state, call by call."""
    headers = [dict(one.headers) for one in provider.requests]
    return [(one.get("traceparent", ""), one.get("tracestate", "")) for one in headers]


@pytest.mark.parametrize("large", [False, True], ids=["lane", "ordinary way"])
def test_the_provider_is_told_of_the_call_s_own_span(
    large: bool, server: Tallygate, collector: Collector, provider: SimulatedProvider
) -> None:
    body = question(system="x" * 300_000 if large else "x")
    traced = {**BEARER, "traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": STATE}
    with httpx.Client(base_url=server.url) as client:
        client.get("/health/liveliness")  # the lane answers on a connection that it knows
        answer = client.post(COUNT, json=body, headers=traced)
    above, beneath = spans_of(collector, answer.headers["request-id"])
    assert (above["traceId"], above["parentSpanId"]) == (TRACE, PARENT)
    assert told(provider) == [(f"00-{TRACE}-{beneath['spanId']}-01", STATE)]


def test_a_trace_begins_here_where_the_caller_has_none(
    server: Tallygate, collector: Collector, provider: SimulatedProvider
) -> None:
    """Nor a well-formed one; its state says nothing without it."""
    answer = server.count(question(), traceparent="00-0-0-01", tracestate=STATE)
    above, beneath = spans_of(collector, answer.headers["request-id"])
    assert told(provider) == [(f"00-{above['traceId']}-{beneath['spanId']}-01", "")]


def test_a_retry_is_another_span(
    server: Tallygate, collector: Collector, provider: SimulatedProvider
) -> None:
    provider.behave(status=503, times=1)
    answer = server.count(question())
    assert answer.status_code == 200
    _, first, second = spans_of(collector, answer.headers["request-id"])
    parents = [_PARENT(parent) for parent, _ in told(provider)]
    assert [found and found[2] for found in parents] == [first["spanId"], second["spanId"]]
    assert (says(first)["error.type"], first["status"]) == ("503", {"code": "STATUS_CODE_ERROR"})
    assert says(second)["http.request.resend_count"] == "1"
    assert second["status"] == {}


def test_who_does_not_record_is_told_on_as_such(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    server.count(question(), traceparent=f"00-{TRACE}-{PARENT}-00")
    ((parent, _),) = told(provider)
    found = _PARENT(parent)
    assert found is not None
    assert (found[1], found[3]) == (TRACE, "00")
    assert found[2] != PARENT


@pytest.mark.parametrize(
    "state", ["", "no member", "UPPER=1", "a=1," * 40, f"a={'x' * 600}", "a=b=c", "=1"]
)
def test_a_malformed_state_is_not_handed_on(
    state: str, server: Tallygate, provider: SimulatedProvider
) -> None:
    answer = server.count(question(), traceparent=f"00-{TRACE}-{PARENT}-01", tracestate=state)
    assert answer.status_code == 200
    ((parent, found),) = told(provider)
    assert _PARENT(parent)
    assert found == ""


def test_a_trace_is_no_part_of_what_is_asked(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    body = question()
    first = server.count(body, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate=STATE)
    second = server.count(body, traceparent=f"00-{TRACE[::-1]}-{PARENT}-01")
    third = server.count(body)
    sources = [one.headers["x-tallygate-source"] for one in (first, second, third)]
    assert sources == ["live", "cache", "cache"]
    assert provider.calls == 1


def test_a_signature_holds_whoever_writes_into_the_trace(
    server: Tallygate, provider: SimulatedProvider
) -> None:
    assert server.count(question("on-bedrock")).status_code == 200
    (request,) = provider.requests
    headers = dict(request.headers)
    assert _PARENT(headers["traceparent"])
    signed = re.search("SignedHeaders=([^,]*)", headers["authorization"])
    assert signed is not None
    assert "traceparent" not in signed[1].split(";")


def test_without_spans_the_caller_s_trace_goes_on_as_it_came(
    plain: Tallygate, provider: SimulatedProvider
) -> None:
    parent = f"00-{TRACE}-{PARENT}-01"
    plain.count(question(), traceparent=parent, tracestate=STATE)
    plain.count(question(), traceparent="malformed", tracestate=STATE)
    plain.count(question())
    assert told(provider) == [(parent, STATE), ("", ""), ("", "")]


def test_providers_need_not_be_told(start: Start, provider: SimulatedProvider) -> None:
    with Collector() as collector:
        otlp = {"endpoint": collector.url, "flush_s": 0.1, "signals": ["traces"]}
        server = start(config(provider, otlp=otlp, trace_upstream=False))
        answer = server.count(question(), traceparent=f"00-{TRACE}-{PARENT}-01", tracestate=STATE)
        assert len(spans_of(collector, answer.headers["request-id"])) == 2
        assert told(provider) == [("", "")]
