"""How this server does at this moment: for ``/status``, its stream and the page, and as gauges.

All of it is read from what the workers share, so each of them says the same. Nothing is taken or
written by reading.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import get_args

from adapters.base import Deployment
from adapters.registry import ESTIMATE
from app import __version__
from app.auth import Caller
from app.limits import Happening, Phase
from app.status_reply import (
    DeploymentStatus,
    Fault,
    Latency,
    ModelStatus,
    RecentError,
    Rpm,
    State,
    Status,
    Totals,
)
from app.telemetry.exposition import Gauge
from app.telemetry.layout import BUCKETS_MS, DEPLOYMENT_TOTALS, OTHER, OUTCOMES, Labels
from app.workers import WALL_CLOCK, Worker

SAVED = ("cache", "coalesced")
"""Each of these answers would have been a call of its own."""
RECENT = 50
Sums = Mapping[tuple[str, Labels], float]


def status_of(worker: Worker, caller: Caller, *, sees_all: bool) -> Status:
    """Say how the server does, as far as a caller may know."""
    sums = worker.metrics.sums()
    recent = worker.recent_errors.newest()
    return Status(
        time_s=WALL_CLOCK(),
        started_s=worker.started_s,
        version=__version__,
        workers=worker.workers,
        is_master=sees_all,
        totals=_totals(sums),
        le_ms=list(BUCKETS_MS),
        latency={source: _latency(sums, source) for source in OUTCOMES},
        models=[
            one
            for one in _models(sums)
            if sees_all or (one.name != OTHER and caller.may_count((one.name,)))
        ],
        deployments=[
            _deployment(worker, sums, one)
            for one in worker.settings.models.deployments
            if sees_all or caller.may_count((one.alias,))
        ],
        recent_errors=[
            RecentError(
                one.time_s,
                one.status,
                one.type,
                one.reason,
                one.alias,
                one.deployment,
                one.caller,
                one.request_id,
            )
            for one in recent
            if sees_all or one.caller == caller.name
        ][:RECENT],
    )


def gauges(worker: Worker) -> list[Gauge]:
    """Tell the state of each deployment for ``/metrics``; its labels are the configuration's."""
    given = worker.settings.models.deployments
    standing = [(one, _labels(one), worker.deployments.of(one).phase.state) for one in given]
    left = [(labels, worker.budgets.left(one)) for one, labels, _ in standing]
    limits = [(_labels(one), one.rpm) for one in given if one.rpm is not None]

    def those(*states: str) -> list[tuple[Labels, float]]:
        return [(labels, state in states) for _, labels, state in standing]

    return [
        Gauge("tallygate_build_info", "The version.", [((("version", __version__),), 1)]),
        Gauge("tallygate_workers", "Workers that were started.", [((), worker.workers)]),
        Gauge(
            "tallygate_deployment_open",
            "1 while the deployment's breaker is open.",
            those("open", "probing"),
        ),
        Gauge(
            "tallygate_deployment_cooling",
            "1 while the deployment is left alone after a 429.",
            those("cooling"),
        ),
        Gauge("tallygate_rpm_limit", "Calls a minute that the deployment may be asked.", limits),
        Gauge(
            "tallygate_rpm_left",
            "Calls that may leave at this moment: at most a twentieth of the limit, at least one.",
            [(labels, one.calls) for labels, one in left if one],
        ),
        Gauge(
            "tallygate_rpm_waiting",
            "Calls that wait for their turn.",
            [(labels, one.waiting) for labels, one in left if one],
        ),
    ]


def _labels(one: Deployment) -> Labels:
    return ("deployment", one.name), ("model", one.alias), ("provider", one.provider)


def _family(sums: Sums, name: str) -> Iterator[tuple[Labels, int]]:
    return ((labels, int(value)) for (family, labels), value in sums.items() if family == name)


def _totals(sums: Sums) -> Totals:
    counts: defaultdict[str, int] = defaultdict(int)
    for labels, value in _family(sums, "tallygate_counts_total"):
        counts[labels[1][1]] += value
    return Totals(
        requests=sum(value for _, value in _family(sums, "tallygate_requests_total")),
        counts=dict(counts),
        errors={one[0][1]: value for one, value in _family(sums, "tallygate_errors_total")},
        upstream_calls=sum(v for _, v in _family(sums, "tallygate_upstream_calls_total")),
        saved_calls=sum(counts[source] for source in SAVED),
        lane_hits=int(sums["tallygate_lane_hits_total", ()]),
        limited={one[0][1]: value for one, value in _family(sums, "tallygate_limited_total")},
    )


def _models(sums: Sums) -> list[ModelStatus]:
    models: dict[str, ModelStatus] = {}
    for labels, value in _family(sums, "tallygate_requests_total"):
        name = labels[0][1]
        models.setdefault(name, ModelStatus(name, 0, {})).requests += value
    for labels, value in _family(sums, "tallygate_counts_total"):
        if value:
            models[labels[0][1]].counts[labels[1][1]] = value
    return list(models.values())


def _latency(sums: Sums, source: str) -> Latency:
    bounds = [*(f"{limit / 1000:g}" for limit in BUCKETS_MS), "+Inf"]
    name = "tallygate_request_seconds_bucket"
    buckets = [int(sums[name, (("source", source), ("le", le))]) for le in bounds]
    seconds = sums["tallygate_request_seconds_sum", (("source", source),)]
    quantiles = (_quantile(buckets, share) for share in (0.5, 0.95, 0.99))
    return Latency(sum(buckets), seconds * 1000, buckets, *quantiles)


def _quantile(buckets: Sequence[int], share: float) -> float | None:
    """Read a quantile off a histogram, as if its buckets were filled evenly."""
    total = sum(buckets)
    if not total:
        return None
    rank = share * total
    bucket, up_to = next(one for one in enumerate(accumulate(buckets)) if one[1] >= rank)
    if bucket == len(BUCKETS_MS):
        return BUCKETS_MS[-1]
    low = BUCKETS_MS[bucket - 1] if bucket else 0.0
    part = (rank - (up_to - buckets[bucket])) / buckets[bucket]
    return round(low + (BUCKETS_MS[bucket] - low) * part, 3)


def _deployment(worker: Worker, sums: Sums, one: Deployment) -> DeploymentStatus:
    phase, left = worker.deployments.of(one).phase, worker.budgets.left(one)
    error = worker.last_errors.of(one.name)
    happened = {
        name: int(sums[DEPLOYMENT_TOTALS[name], (("deployment", one.name),)])
        for name in get_args(Happening)
    }
    return DeploymentStatus(
        name=one.name,
        alias=one.alias,
        provider=one.provider,
        upstream_model=one.endpoint.upstream_model,
        state=_state(one, phase),
        left_s=round(phase.left_s, 1),
        rpm=Rpm(one.rpm, left.calls, left.burst, left.waiting) if left and one.rpm else None,
        last_error=Fault(error.time_s, error.status, error.type, error.reason) if error else None,
        **happened,
    )


def _state(one: Deployment, phase: Phase) -> State:
    if one.provider == ESTIMATE:
        return "estimate"
    return "unusable" if one.endpoint.missing else phase.state
