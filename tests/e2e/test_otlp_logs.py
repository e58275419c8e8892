"""OpenTelemetry: a log record for each event, beside its span; what a collector does not take."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.provider import SimulatedProvider
from tests.e2e.collector import Collector, says
from tests.e2e.exchange import MODEL, anthropic, model_list, question
from tests.e2e.receiver import until
from tests.server import Tallygate

Start = Callable[..., Tallygate]
ID = "tallygate.request_id"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


def config(
    provider: SimulatedProvider, collector: Collector, *signals: str, **more: Any
) -> dict[str, Any]:
    otlp = {"endpoint": collector.url, "flush_s": 0.1, "signals": list(signals), **more}
    return {
        "model_list": model_list(**{MODEL: anthropic("claude-up", provider.url)}),
        "telemetry": {"otlp": otlp, "hit_records_per_s": 1_000_000},
    }


def by_request(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    named = [(says(one).get(ID), one) for one in items]
    found = {name: one for name, one in named if name is not None}
    assert len(found) == len([name for name, _ in named if name is not None])
    return found


def records(server: Tallygate, sink: str, result: str) -> float:
    return server.metrics()[f'tallygate_records_total{{sink="{sink}",result="{result}"}}']


def test_each_event_is_a_record_that_names_its_span(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    server = start(config(provider, collector, "traces", "logs"), workers=2)
    body = question(user="somebody")
    answers = [server.count(body) for _ in range(4)]
    answers += [server.count(body, traceparent=f"00-{TRACE}-{PARENT}-01")]
    answers += [server.count(question(model="nobody"))]
    provider.behave(status=500)
    answers += [server.count(question())]
    until(lambda: len(collector.logs()) == len(answers))
    until(lambda: len(by_request(collector.spans())) == len(answers))
    logs, spans = by_request(collector.logs()), by_request(collector.spans())
    for answer in answers:
        log, span = (told[answer.headers["request-id"]] for told in (logs, spans))
        assert (log["traceId"], log["spanId"]) == (span["traceId"], span["spanId"])
        assert says(log) == says(span)
        assert log["timeUnixNano"] == span["endTimeUnixNano"]
        assert log["eventName"] == "tallygate.count"
        assert log["severityText"] == {200: "INFO", 404: "WARN"}.get(answer.status_code, "ERROR")
        assert str(answer.status_code) in log["body"]["stringValue"]
    assert logs[answers[4].headers["request-id"]]["traceId"] == TRACE
    until(lambda: records(server, "otlp_logs", "sent") == len(answers))
    assert says(logs[answers[0].headers["request-id"]])["user.id"] == "somebody"


def test_without_spans_a_record_names_the_caller_s(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    server = start(config(provider, collector, "logs"))
    traced = server.count(question(), traceparent=f"00-{TRACE}-{PARENT}-01")
    alone = server.count(question())
    until(lambda: len(collector.logs()) == 2)
    logs = by_request(collector.logs())
    log = logs[traced.headers["request-id"]]
    assert (log["traceId"], log["spanId"]) == (TRACE, PARENT)
    assert not logs[alone.headers["request-id"]].keys() & {"traceId", "spanId"}
    assert set(collector.paths) == {"/v1/logs"}


def test_a_record_of_a_hit_says_for_how_many_it_stands(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    one = config(provider, collector, "traces", "logs")
    one["telemetry"]["hit_records_per_s"] = 1
    server = start(one)
    body = question()
    asked = 200
    for _ in range(asked):
        server.count(body)
    until(lambda: len(collector.logs()) == len(by_request(collector.spans())) > 1)
    stands = [int(says(one).get("tallygate.one_of", 1)) for one in collector.logs()]
    assert max(stands) > 1
    assert asked / 2 <= sum(stands) <= asked


def test_what_a_collector_takes_in_part_is_counted_as_dropped(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    """It is not sent again, and what the answer says besides is told to nobody."""
    partial = b'{"partialSuccess":{"rejected%s":"2","errorMessage":"not-for-logs"}}'
    collector.says = partial % b"LogRecords"
    server = start(config(provider, collector, "logs", flush_s=1))
    for _ in range(3):
        server.count(question())
    until(lambda: records(server, "otlp_logs", "dropped") > 0)
    until(
        lambda: records(server, "otlp_logs", "sent") + records(server, "otlp_logs", "dropped") == 3
    )
    told = server.err.read_text()
    assert "were rejected" in told
    assert "not-for-logs" not in told + server.out.read_text()
    assert len(collector.logs()) == 3


def test_what_a_caller_does_not_record_counts_neither_as_sent_nor_as_dropped(
    start: Start, provider: SimulatedProvider, collector: Collector
) -> None:
    server = start(config(provider, collector, "traces"))
    server.count(question(), traceparent=f"00-{TRACE}-{PARENT}-00")
    server.count(question())
    until(lambda: records(server, "otlp", "sent") == 1)
    assert records(server, "otlp", "dropped") == 0
    assert len(by_request(collector.spans())) == 1


def test_a_signal_has_a_known_name(launch: Callable[..., Any]) -> None:
    otlp = {"endpoint": "http://127.0.0.1:9", "signals": ["traces", "profiles"]}
    entries = model_list(**{MODEL: anthropic("claude-up", "http://127.0.0.1:9")})
    line = launch({"model_list": entries, "telemetry": {"otlp": otlp}}).refusal()
    assert "telemetry.otlp.signals[1]: " in line
