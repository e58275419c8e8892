"""``GET /status`` as types: what is written, and what is documented."""

from typing import Literal

from msgspec import Struct


class Fault(Struct):
    """What went wrong last with a deployment; ``reason`` is our own wording."""

    time_s: float
    status: int
    type: str
    reason: str


class Rpm(Struct):
    """A deployment's budget, for all workers of this server.

    ``left`` of ``burst`` calls may leave at this moment, one more each ``60 / limit`` seconds.
    """

    limit: float
    left: int
    burst: int
    waiting: int


State = Literal["closed", "cooling", "open", "probing", "unusable", "estimate"]


class DeploymentStatus(Struct):
    """One entry of ``model_list``; the totals are since the start, of all workers.

    ``left_s`` says for how long a state lasts, if nothing else happens. ``probing``: the next
    question finds out whether the provider answers again. ``unusable``: its credential is missing.
    ``estimate``: nobody is asked.
    """

    name: str
    alias: str
    provider: str
    upstream_model: str
    state: State
    left_s: float
    rpm: Rpm | None
    calls: int
    failures: int
    limited: int
    openings: int
    retries: int
    last_error: Fault | None


class ModelStatus(Struct):
    """What was asked by one name of the configuration, and by source what was answered."""

    name: str
    requests: int
    counts: dict[str, int]


class Latency(Struct):
    """Times to answer of one source: ``buckets`` holds one number for each of ``le_ms``, and one.

    The quantiles are the upper limits of their buckets' parts, since the start; null without any.
    """

    count: int
    sum_ms: float
    buckets: list[int]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Totals(Struct):
    """Since the start, of all workers and callers; `saved_calls` are those nobody had to make."""

    requests: int
    counts: dict[str, int]
    errors: dict[str, int]
    upstream_calls: int
    saved_calls: int
    lane_hits: int
    limited: dict[str, int]


class RecentError(Struct):
    """A refusal, kept for a while. ``reason`` is our own wording, never a provider's text."""

    time_s: float
    status: int
    type: str
    reason: str
    model: str
    deployment: str
    caller: str
    request_id: str


class Status(Struct):
    """How this server does, as every worker tells it alike.

    A caller without the master key sees the models that its key may use, and its own errors.
    """

    time_s: float
    started_s: float
    version: str
    workers: int
    is_master: bool
    totals: Totals
    le_ms: list[float]
    latency: dict[str, Latency]
    models: list[ModelStatus]
    deployments: list[DeploymentStatus]
    recent_errors: list[RecentError]
