"""Whoever is told of counts is told the same: to the last request, token and call."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.provider import SimulatedProvider
from tests.e2e import workload
from tests.e2e.exchange import question, until
from tests.e2e.prometheus import Prometheus
from tests.e2e.receiver import Receiver
from tests.e2e.tellers import (
    Teller,
    left_out_of_lines,
    left_out_of_webhook,
    of_ledger,
    of_records,
    of_series,
    of_spans,
    records_of_lines,
    records_of_spans,
    records_of_webhook,
)
from tests.e2e.workload import TOPICS, Facts
from tests.server import Tallygate

REQUESTS, WORKERS = 10_000, 2
EVERY, FEW = 1_000_000_000, 20
"""Records of hits a second and worker: all of them, and some."""
PATIENCE_S, QUIET_S = 30.0, 2.1
"""After so long a silence the next hit is told of by itself."""
PROCESS = len("req_") + 16
"""As much of a request's id says which worker gave it."""
SOURCES = {"cache", "live", "coalesced"}
STATUSES = {"200", "400", "401", "403", "404", "429", "499", "500", "502"}

pytestmark = pytest.mark.timeout(240)


def test_all_tellers_agree_to_the_last_request(
    start: Callable[..., Tallygate], provider: SimulatedProvider, tmp_path: Path
) -> None:
    with Receiver() as collector, Receiver() as webhook:
        server = started(start, provider, telemetry(EVERY, collector, webhook))
        with Prometheus(tmp_path, server.url.removeprefix("http://")) as prometheus:
            seen = workload.play(server.port, REQUESTS)
            seen["calls", "to providers"] = provider.calls
            tellers = (
                Teller("JSON lines", lambda: of_records(records_of_lines(server))),
                Teller("webhook", lambda: of_records(records_of_webhook(webhook))),
                Teller("OTLP", lambda: of_spans(collector)),
                Teller("Prometheus", lambda: of_series(prometheus), TOPICS[:4]),
                Teller("ledger", lambda: of_ledger(server), TOPICS[1:]),
            )
            told = {teller.name: when_complete(teller, seen) for teller in tellers}
    print(table({"clients and provider": seen, **told}))
    assert {what for topic, what in seen if topic == "source"} > SOURCES
    assert {what for topic, what in seen if topic == "status"} >= STATUSES
    assert server.metrics()["tallygate_lane_hits_total"] > REQUESTS / 4
    for teller in tellers:
        assert told[teller.name] == teller.part_of(seen), teller.name


def test_records_of_a_sample_say_how_many_hits_there_were(
    start: Callable[..., Tallygate], provider: SimulatedProvider
) -> None:
    with Receiver() as collector, Receiver() as webhook:
        server = started(start, provider, telemetry(FEW, collector, webhook))
        workload.play(server.port, REQUESTS // 2)
        time.sleep(QUIET_S)
        body = question()
        workers: set[str] = set()
        server.count(body)
        while len(workers) < WORKERS:  # each tells of those that it has passed over
            answer = server.count(body)
            assert answer.headers["x-tallygate-source"] == "cache"
            workers.add(answer.headers["request-id"][:PROCESS])
        hits = sum(
            value
            for series, value in server.metrics().items()
            if series.startswith("tallygate_counts_total") and 'source="cache"' in series
        )

        def stand_for(records: list[Any]) -> int:
            return sum(one.get("one_of", 1) for one in records if one.get("source") == "cache")

        until(lambda: stand_for(records_of_lines(server)) == hits)
        until(lambda: stand_for(records_of_webhook(webhook)) == hits)
        until(lambda: stand_for(records_of_spans(collector)) == hits)
        of_hits = [one for one in records_of_lines(server) if one.get("source") == "cache"]
        print(f"{hits:,.0f} hits, {len(of_hits):,} records of them")
        assert len(of_hits) < hits / 4
        until(lambda: len(of_hits) + left_out_of_lines(server) == hits)
        until(lambda: len(of_hits) + left_out_of_webhook(webhook) == hits)


def telemetry(hit_records_per_s: int, collector: Receiver, webhook: Receiver) -> dict[str, Any]:
    return {
        "hit_records_per_s": hit_records_per_s,
        "otlp": {"endpoint": collector.url, "flush_s": 0.2},
        "webhook": {"url": webhook.url, "flush_s": 0.2},
    }


def started(
    start: Callable[..., Tallygate], provider: SimulatedProvider, told: Mapping[str, Any]
) -> Tallygate:
    provider.clear()
    workload.prepare(provider)
    config = {**workload.configuration(provider), "telemetry": told}
    return start(config, workers=WORKERS)


def when_complete(teller: Teller, seen: Facts) -> Facts:
    """Wait until a teller says what was seen, PATIENCE_S at most, and return what it says."""
    until_s = time.monotonic() + PATIENCE_S
    while (told := teller.tells()) != teller.part_of(seen) and time.monotonic() < until_s:
        time.sleep(0.5)
    return told


def table(columns: Mapping[str, Facts]) -> str:
    """Write what each says; ``-`` where it is not told, and of the end users only how many."""
    shown = {fact for facts in columns.values() for fact in facts if fact[0] != "end user"}
    rows = [
        ["", *columns],
        ["requests", *(f"{of_topic(one, 'source').total():,}" for one in columns.values())],
        *(
            [" ".join(fact), *(cell(one, fact) for one in columns.values())]
            for fact in sorted(shown)
        ),
        ["end users", *(f"{len(of_topic(one, 'end user')) or '-'}" for one in columns.values())],
    ]
    return "\n".join("".join(f"{text:>24}" for text in row) for row in rows)


def of_topic(facts: Facts, topic: str) -> Facts:
    return Facts({fact: number for fact, number in facts.items() if fact[0] == topic and fact[1]})


def cell(facts: Facts, fact: tuple[str, str]) -> str:
    return f"{facts[fact]:,}" if of_topic(facts, fact[0]) else "-"
