"""What each receiver of telemetry says of all counts, in the words of `tests.e2e.workload`."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from tests.e2e.ledger import ledger
from tests.e2e.prometheus import Prometheus
from tests.e2e.receiver import Receiver
from tests.e2e.workload import NO_NUMBER, TOPICS, Facts, note
from tests.server import Tallygate

Record = Mapping[str, Any]


class Teller(Struct, frozen=True):
    """One receiver, and of which topics it is told at all."""

    name: str
    tells: Callable[[], Facts]
    topics: tuple[str, ...] = TOPICS

    def part_of(self, facts: Facts) -> Facts:
        """Leave out what it is not told."""
        return Facts({fact: number for fact, number in facts.items() if fact[0] in self.topics})


def records_of_lines(server: Tallygate) -> list[Record]:
    """Read the JSON lines of standard output."""
    return [one for one in _lines(server) if one["event"] == "count"]


def left_out_of_lines(server: Tallygate) -> int:
    """Add up the hits of which the lines say that no record tells by itself."""
    return sum(one["hits"] for one in _lines(server) if one["event"] == "records_left_out")


def records_of_webhook(webhook: Receiver) -> list[Record]:
    """Take the batches apart; one that was sent again counts once."""
    return [event for batch in _batches(webhook) for event in batch["events"]]


def left_out_of_webhook(webhook: Receiver) -> int:
    """Add up what the batches say of that."""
    return sum(batch["left_out"] for batch in _batches(webhook))


def records_of_spans(collector: Receiver) -> list[Record]:
    """Say of the spans of counts what stands in records, as far as that is asked for."""
    spans = [one for one in _spans(collector) if "tallygate.route" in one]
    return [
        {"source": one.get("token_count.source"), "one_of": int(one.get("tallygate.one_of", 1))}
        for one in spans
    ]


def of_records(records: Iterable[Record]) -> Facts:
    """Add up records of single counts."""
    facts = Facts()
    for one in records:
        note(
            facts,
            str(one["status"]),
            one.get("source", ""),
            key=one.get("caller", ""),
            end_user=one.get("end_user", ""),
            tokens=one.get("input_tokens", 0),
            calls=one.get("upstream_calls", 0),
        )
    return +facts


def of_spans(collector: Receiver) -> Facts:
    """Add up a collector's spans of counts; those of calls stand beneath them."""
    facts = Facts()
    for says in _spans(collector):
        if "tallygate.route" in says:  # a count's own, and none of a call's beneath it
            note(
                facts,
                says["http.response.status_code"],
                says.get("token_count.source", ""),
                key=says.get("tallygate.caller", ""),
                end_user=says.get("user.id", ""),
                tokens=int(says.get("token_count.input_tokens", 0)),
                calls=int(says.get("tallygate.upstream_calls", 0)),
            )
    return +facts


def of_series(prometheus: Prometheus) -> Facts:
    """Read the totals of a Prometheus, which is told neither keys nor end users."""
    facts = Facts()
    for labels, value in prometheus.query("sum by (status) (tallygate_requests_total)"):
        facts["status", labels["status"]] = int(value)
    for labels, value in prometheus.query("sum by (source) (tallygate_counts_total)"):
        facts["source", labels["source"]] = int(value)
    facts["source", NO_NUMBER] = int(prometheus.value("sum(tallygate_errors_total)"))
    facts["tokens", "counted"] = int(prometheus.value("sum(tallygate_input_tokens_total)"))
    facts["calls", "to providers"] = int(prometheus.value("sum(tallygate_upstream_calls_total)"))
    return +facts


def of_ledger(server: Tallygate) -> Facts:
    """Read the ledger of a server, which knows statuses by no more than that they are errors."""
    facts = Facts()
    for row in ledger(server, group_by="source")["data"]:
        source = row["source"] if row["source"] != "error" else NO_NUMBER
        facts["source", source] = row["requests"]
        facts["tokens", "counted"] += row["input_tokens"]
        facts["calls", "to providers"] += row["upstream_calls"]
    for topic, group in (("key", "key"), ("end user", "end_user")):
        for row in ledger(server, group_by=group)["data"]:
            facts[topic, row[group]] = row["requests"]
    return +facts


def _lines(server: Tallygate) -> Iterator[Record]:
    """Read those that are whole."""
    text = server.out.read_text()
    yield from map(json.loads, text[: text.rfind("\n") + 1].splitlines())


def _batches(webhook: Receiver) -> Iterable[Record]:
    taken = {sent["webhook-id"]: json.loads(body) for sent, body in tuple(webhook.posts)}
    return [batch["data"] for batch in taken.values()]


def _spans(collector: Receiver) -> Iterator[Record]:
    """Give the attributes of each span; integers are strings on the wire."""
    for _, body in tuple(collector.posts):
        for resource in json.loads(body).get("resourceSpans", ()):
            for span in (one for scope in resource["scopeSpans"] for one in scope["spans"]):
                said = {one["key"]: one["value"] for one in span["attributes"]}
                yield {name: next(iter(value.values())) for name, value in said.items()}
