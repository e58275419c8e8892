"""Sink: counters and histograms for /metrics, summed over the workers of this server.

Each worker writes its own row of one shared array (`app.telemetry.layout`), so that no write needs
a lock; any worker renders the sum of all rows. A row outlives its worker: a replaced worker goes on
counting in it.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from app.telemetry.event import CountEvent
from app.telemetry.exposition import Gauge, render
from app.telemetry.layout import (
    BUCKETS_S,
    CLOSED,
    DEPLOYMENT_TOTALS,
    ERROR_TYPES,
    HTTP_REFUSALS,
    OTHER,
    SOURCES,
    STATUSES,
    TIERS,
    Labels,
    Layout,
    Row,
    sums_of,
)


class Kind(NamedTuple):
    """What decides in which series an event is counted."""

    alias: str
    status: int
    source: str
    tier: str
    error_type: str = ""
    by_lane: bool = False


class Series(NamedTuple):
    """Where the events of one kind are counted, in the whole array."""

    counters: tuple[int, ...]
    tokens: int
    """Of what is no number: some slot, to which 0 is added."""
    first_bucket: int
    seconds: int


class Metrics:
    """Counts events into this worker's row of ``array``, which holds ``rows`` rows."""

    def __init__(self, layout: Layout, array: Row, rows: int, row: int) -> None:
        self._layout = layout
        self._array = array
        self._rows = rows
        self._base = layout.width * row
        self._memo: dict[Kind, Series] = {}
        self._happenings: dict[tuple[str, str], int] = {}
        slot, base = layout.slot, self._base
        self._tiers = {
            (tier, result): base + slot("tallygate_cache_total", tier=tier, result=result)
            for tier, results in TIERS.items()
            for result in results
        }
        self._calls = {
            one: base + slot("tallygate_upstream_calls_total", provider=one)
            for one in layout.providers
        }

    @property
    def counted(self) -> tuple[Layout, Row]:
        """What all workers have counted, row by row."""
        return self._layout, self._array

    def emit(self, event: CountEvent) -> None:
        """Add one event."""
        kind = Kind(event.alias, event.status, event.source, event.tier, event.error_type)
        self.add(self.series(kind), event.duration_ms / 1000, event.input_tokens)
        if event.upstream_calls:
            calls = self._calls.get(event.provider, self._calls[OTHER])
            self._array[calls] += event.upstream_calls

    def series(self, kind: Kind) -> Series:
        """Find where events of one kind are counted."""
        series = self._memo.get(kind)
        if series is None:
            series = self._memo[kind] = self._series(kind)
        return series

    def add(self, series: Series, seconds: float, tokens: int) -> None:
        """Add one of a kind, which took ``seconds``, and asked no provider."""
        array = self._array
        for slot in series.counters:
            array[slot] += 1
        array[series.tokens] += tokens
        array[series.first_bucket + bisect_left(BUCKETS_S, seconds)] += 1
        array[series.seconds] += seconds

    def cache(self, tier: str, result: str) -> None:
        """Add what became of one look-up or write; a pair that is not in TIERS is not told."""
        slot = self._tiers.get((tier, result))
        if slot is not None:
            self._array[slot] += 1

    def recount(self, result: str) -> None:
        """Add one of RECOUNTS."""
        slot = self._layout.slot("tallygate_recounts_total", result=result)
        self._array[self._base + slot] += 1

    def records(self, sink: str, result: str, events: int) -> None:
        """Add events that a sink has ``sent`` or ``dropped``."""
        slot = self._layout.slot("tallygate_records_total", sink=sink, result=result)
        self._array[self._base + slot] += events

    def limit(self, limit: str) -> None:
        """Add a refusal by one of LIMITS."""
        self._array[self._base + self._layout.slot("tallygate_limited_total", limit=limit)] += 1

    def http_refusal(self, status: int | str) -> None:
        """Add a request that was refused before any handler saw it, or beside all of them."""
        told = str(status) if status in (*HTTP_REFUSALS, CLOSED) else OTHER
        slot = self._layout.slot("tallygate_http_refusals_total", status=told)
        self._array[self._base + slot] += 1

    def deployment(self, happening: str, name: str) -> None:
        """Add one of DEPLOYMENT_TOTALS to a deployment."""
        slot = self._happenings.get((happening, name))
        if slot is None:
            found = self._layout.slot(DEPLOYMENT_TOTALS[happening], deployment=name)
            slot = self._happenings[happening, name] = self._base + found
        self._array[slot] += 1

    def sums(self) -> dict[tuple[str, Labels], float]:
        """Sum every series over all workers; the buckets are not cumulative."""
        sums = sums_of(self._layout, self._array)
        return {series: sums[slot] for series, slot in self._layout.slots.items()}

    def cache_totals(self) -> dict[str, dict[str, int]]:
        """Say what became of look-ups and writes, by tier and result, all workers summed."""
        return {
            tier: {result: self._total(tier, result) for result in results}
            for tier, results in TIERS.items()
        }

    def _total(self, tier: str, result: str) -> int:
        slot = self._layout.slot("tallygate_cache_total", tier=tier, result=result)
        return int(sum(self._array[slot :: self._layout.width][: self._rows]))

    def _series(self, kind: Kind) -> Series:
        alias, status, source, tier, error_type, by_lane = kind
        layout, base = self._layout, self._base
        model = alias if alias in layout.aliases else OTHER
        code = str(status) if status in STATUSES else OTHER
        slots = [layout.slot("tallygate_requests_total", model=model, status=code)]
        counted = source or SOURCES[0]
        tokens = layout.slot("tallygate_input_tokens_total", model=model, source=counted)
        if source:
            slots.append(layout.slot("tallygate_counts_total", model=model, source=source))
        if tier == "local" and source == "cache":
            slots.append(layout.slot("tallygate_cache_total", tier="local", result="hit"))
        if by_lane:
            slots.append(layout.slot("tallygate_lane_hits_total"))
        if error_type:
            type_ = error_type if error_type in ERROR_TYPES else OTHER
            slots.append(layout.slot("tallygate_errors_total", type=type_))
        outcome = source or "error"
        first = layout.slot("tallygate_request_seconds_bucket", source=outcome, le="0.0001")
        seconds = layout.slot("tallygate_request_seconds_sum", source=outcome)
        return Series(
            tuple(base + slot for slot in slots), base + tokens, base + first, base + seconds
        )

    def render(self, gauges: Iterable[Gauge] = ()) -> bytes:
        """Write what a scrape of ``/metrics`` is told."""
        return render(self.sums(), gauges)
