"""A collector: what is posted to it has to be OTLP by the official messages, field by field."""

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.receiver import Receiver

MESSAGES: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}
IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
"""Hexadecimal in OTLP, where other bytes in JSON are base64; and how long each is."""
Series = tuple[str, frozenset[tuple[str, str]]]


class Collector(Receiver):
    """Reads what it has been sent."""

    def spans(self) -> list[dict[str, Any]]:
        """List all spans."""
        return self._items("/v1/traces", "resourceSpans", "scopeSpans", "spans")

    def logs(self) -> list[dict[str, Any]]:
        """List all log records."""
        return self._items("/v1/logs", "resourceLogs", "scopeLogs", "logRecords")

    def pushes(self) -> list[list[dict[str, Any]]]:
        """List the metrics of each push."""
        found = []
        for message in self._messages("/v1/metrics"):
            inside = [message]
            for name in ("resourceMetrics", "scopeMetrics", "metrics"):
                inside = [inner for one in inside for inner in one.get(name, ())]
            found.append(inside)
        return found

    def resources(self) -> list[dict[str, str]]:
        """List who has told, message by message."""
        return [
            says(one["resource"])
            for path in MESSAGES
            for message in self._messages(path)
            for name in message
            for one in message[name]
        ]

    def _items(self, path: str, *names: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = list(self._messages(path))
        for name in names:
            found = [inner for one in found for inner in one.get(name, ())]
        return found

    def _messages(self, path: str) -> Iterator[dict[str, Any]]:
        for at, (headers, body) in zip(tuple(self.paths), tuple(self.posts), strict=False):
            if at == path:
                yield read(path, headers, body)


def read(path: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Read a message strictly: an unknown field, or one of another type, fails."""
    assert headers["content-type"] == "application/json"
    if headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    written = json.loads(body)
    message = ParseDict(_ids_in_base64(written), MESSAGES[path]())
    again: dict[str, Any] = _ids_in_hex(MessageToDict(message))
    return again


def says(part: dict[str, Any]) -> dict[str, Any]:
    """Read attributes; integers are strings on the wire."""
    found = {one["key"]: one["value"] for one in part.get("attributes", ())}
    assert len(found) == len(part.get("attributes", ()))
    return {name: next(iter(value.values())) for name, value in found.items()}


def numbers(push: list[dict[str, Any]]) -> dict[Series, float]:
    """Read a push as /metrics would say it: by series, histograms with cumulative buckets."""
    found: dict[Series, float] = {}
    for metric in push:
        name = metric["name"]
        if "sum" in metric:
            assert metric["sum"]["isMonotonic"] is True
            assert metric["sum"]["aggregationTemporality"] == "AGGREGATION_TEMPORALITY_CUMULATIVE"
            for point in metric["sum"]["dataPoints"]:
                found[name, labels(point)] = float(point["asInt"])
            continue
        assert metric["histogram"]["aggregationTemporality"].endswith("_CUMULATIVE")
        for point in metric["histogram"]["dataPoints"]:
            bounds = [f"{bound:g}" for bound in point["explicitBounds"]] + ["+Inf"]
            counts = [int(one) for one in point["bucketCounts"]]
            for number, bound in enumerate(bounds, 1):
                series = labels(point) | {("le", bound)}
                found[f"{name}_bucket", series] = sum(counts[:number])
            assert int(point["count"]) == sum(counts)
            found[f"{name}_count", labels(point)] = sum(counts)
            found[f"{name}_sum", labels(point)] = point["sum"]
    return found


def labels(point: dict[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset(says(point).items())


def _ids_in_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_ids_in_base64(one) for one in value]
    if not isinstance(value, dict):
        return value
    inside = {name: _ids_in_base64(one) for name, one in value.items()}
    for name, size in IDS.items():
        if inside.get(name):
            raw = bytes.fromhex(inside[name])
            assert len(raw) == size
            inside[name] = base64.b64encode(raw).decode()
    return inside


def _ids_in_hex(value: Any) -> Any:
    if isinstance(value, list):
        return [_ids_in_hex(one) for one in value]
    if not isinstance(value, dict):
        return value
    inside = {name: _ids_in_hex(one) for name, one in value.items()}
    for name in IDS.keys() & inside.keys():
        inside[name] = base64.b64decode(inside[name]).hex()
    return inside
