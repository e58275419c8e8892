"""Sink: counters and histograms for /metrics, summed over the workers of this server.

Each worker writes its own row of one shared array, so that no write needs a lock; any worker
renders the sum of all rows. A row outlives its worker: a replaced worker goes on counting in it.
The label values come from the configuration and from closed lists, so their number is fixed.
"""

from bisect import bisect_left
from collections.abc import Iterable, MutableSequence, Sequence
from typing import NamedTuple

from app.telemetry.event import CountEvent

STATUSES = (200, 400, 401, 403, 404, 408, 413, 415, 429, 499, 500, 502, 503, 504, 529)
SOURCES = ("live", "cache", "coalesced", "stale", "estimate")
ERROR_TYPES = (
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "timeout_error",
    "overloaded_error",
)
BUCKETS_MS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1e3, 2.5e3, 5e3, 1e4, 3e4)
BUCKETS_S = tuple(limit / 1000 for limit in BUCKETS_MS)
TIERS = {
    "local": ("hit", "drift"),
    "host": ("hit", "miss", "expired", "bad", "error", "dropped"),
    "cluster": ("hit", "miss", "expired", "bad", "error", "dropped"),
}
LIMITS = ("rpm", "key_rpm", "key_parallel")
"""A deployment's, and the two of a caller's key."""
SINKS = ("webhook", "otlp", "otlp_logs", "callbacks", "ledger")
"""Those that may lose what they are given; ``otlp`` are the spans."""
HTTP_REFUSALS = (400, 401, 403, 404, 405, 408, 413, 417, 431, 499, 500, 503, 504, 529)
CLOSED = "closed"
"""In place of a status: the connection was closed without a word."""
DEPLOYMENT_TOTALS = {
    "calls": "tallygate_deployment_calls_total",
    "failures": "tallygate_deployment_failures_total",
    "limited": "tallygate_deployment_limited_total",
    "openings": "tallygate_breaker_openings_total",
    "retries": "tallygate_retries_total",
}
OUTCOMES = (*SOURCES, "error")
RECOUNTS = ("same", "drift", "failed")
OTHER = "other"

Row = MutableSequence[float]
Labels = tuple[tuple[str, str], ...]


class Layout:
    """Which slot of a row holds which series; the same in every worker of one configuration."""

    def __init__(
        self, aliases: Iterable[str], providers: Iterable[str], deployments: Iterable[str] = ()
    ) -> None:
        self.aliases = (*dict.fromkeys(aliases), OTHER)
        self.providers = (*dict.fromkeys(providers), OTHER)
        self.slots: dict[tuple[str, Labels], int] = {}
        statuses = (*map(str, STATUSES), OTHER)
        self._add("tallygate_requests_total", model=self.aliases, status=statuses)
        self._add("tallygate_counts_total", model=self.aliases, source=SOURCES)
        self._add("tallygate_input_tokens_total", model=self.aliases, source=SOURCES)
        self._add("tallygate_errors_total", type=(*ERROR_TYPES, OTHER))
        self._add("tallygate_upstream_calls_total", provider=self.providers)
        for tier, results in TIERS.items():
            self._add("tallygate_cache_total", tier=(tier,), result=results)
        self._add("tallygate_lane_hits_total")
        self._add("tallygate_recounts_total", result=RECOUNTS)
        self._add("tallygate_records_total", sink=SINKS, result=("sent", "dropped"))
        self._add("tallygate_limited_total", limit=LIMITS)
        refusals = (*map(str, HTTP_REFUSALS), CLOSED, OTHER)
        self._add("tallygate_http_refusals_total", status=refusals)
        names = tuple(deployments)
        for total in DEPLOYMENT_TOTALS.values():
            self._add(total, deployment=names)
        outcomes = OUTCOMES
        limits = tuple(f"{limit:g}" for limit in BUCKETS_S)
        self._add("tallygate_request_seconds_bucket", source=outcomes, le=(*limits, "+Inf"))
        self._add("tallygate_request_seconds_sum", source=outcomes)
        self.width = len(self.slots)

    def _add(self, name: str, **labels: Sequence[str]) -> None:
        series: list[Labels] = [()]
        for label, values in labels.items():
            series = [(*one, (label, value)) for one in series for value in values]
        for one in series:
            self.slots[name, one] = len(self.slots)

    def slot(self, name: str, **labels: str) -> int:
        """Return the slot of one series. Raises KeyError for an unknown one."""
        return self.slots[name, tuple(labels.items())]


def sums_of(layout: Layout, array: Row) -> list[float]:
    """Add up all rows, slot by slot."""
    return [sum(array[slot :: layout.width]) for slot in range(layout.width)]


def family_of(name: str) -> str:
    """Name the metric that a series belongs to: a histogram has several."""
    return name.removesuffix("_bucket").removesuffix("_sum")


def carry(old: Layout, counted: Row, new: Layout, array: Row) -> None:
    """Start a new array with the totals of an old one, in its last row, which no worker has."""
    last = len(array) - new.width
    for series, slot in old.slots.items():
        if series in new.slots:
            array[last + new.slots[series]] = sum(counted[slot :: old.width])


class Kind(NamedTuple):
    """What decides in which series an event is counted."""

    alias: str
    status: int
    source: str
    tier: str
    error_type: str = ""
    by_lane: bool = False


class Gauge(NamedTuple):
    """What stands at some value just now, read when it is asked for."""

    name: str
    help: str
    samples: Sequence[tuple[Labels, float]]


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
        """Write Prometheus' text format, version 0.0.4, with histogram buckets made cumulative."""
        lines: list[str] = []
        family = ""
        running = 0.0
        for (name, labels), value in self.sums().items():
            if family_of(name) != family:
                family = family_of(name)
                lines += _header(family)
            shown = value
            if name.endswith("_bucket"):
                running = value if labels[-1][1] == "0.0001" else running + value
                shown = running
                if labels[-1][1] == "+Inf":
                    lines.append(_line("tallygate_request_seconds_count", labels[:1], shown))
            lines.append(_line(name, labels, shown))
        for gauge in gauges:
            lines += [f"# HELP {gauge.name} {gauge.help}", f"# TYPE {gauge.name} gauge"]
            lines += [_line(gauge.name, labels, value) for labels, value in gauge.samples]
        return ("\n".join(lines) + "\n").encode()


HELP = {
    "tallygate_requests_total": ("counter", "Requests to count, by model and status."),
    "tallygate_counts_total": ("counter", "Counts answered, by model and where each came from."),
    "tallygate_input_tokens_total": ("counter", "Tokens counted, by model and source."),
    "tallygate_errors_total": ("counter", "Requests refused, by Anthropic's error type."),
    "tallygate_upstream_calls_total": ("counter", "Requests sent to providers."),
    "tallygate_cache_total": ("counter", "Look-ups and writes of each tier, by what came of them."),
    "tallygate_lane_hits_total": ("counter", "Repeats answered before the framework wakes."),
    "tallygate_recounts_total": ("counter", "Remembered counts asked again to find drift."),
    "tallygate_records_total": ("counter", "Events handed on by a sink, or lost by it."),
    "tallygate_limited_total": ("counter", "Calls refused by our own limits, by which."),
    "tallygate_http_refusals_total": ("counter", "Refused before any handler, or beside all."),
    "tallygate_request_seconds": ("histogram", "Time to answer, in seconds."),
    "tallygate_deployment_calls_total": ("counter", "Questions sent to each deployment."),
    "tallygate_deployment_failures_total": ("counter", "Of these, failures: see the breaker."),
    "tallygate_deployment_limited_total": ("counter", "Of these, refused as too many (429)."),
    "tallygate_breaker_openings_total": ("counter", "How often a deployment's breaker opened."),
    "tallygate_retries_total": ("counter", "Questions asked a second time, of each deployment."),
}


def _header(family: str) -> list[str]:
    kind, text = HELP[family]
    return [f"# HELP {family} {text}", f"# TYPE {family} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    if not labels:
        return f"{name} {_number(value)}"
    inner = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
    return f"{name}{{{inner}}} {_number(value)}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
