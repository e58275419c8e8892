"""What is counted, and where each series stands in the array that all workers count in.

The label values come from the configuration and from closed lists, so their number is fixed.
"""

from collections.abc import Iterable, MutableSequence, Sequence

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
