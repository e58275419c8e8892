"""What each worker holds, and what the main process tells it."""

import asyncio
import gc
import time
from collections.abc import MutableSequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from adapters.base import Endpoint, UpstreamError
from adapters.credentials import Credentials
from adapters.estimate import Estimator
from app.auth import Authenticator
from app.config import Settings
from app.counter import TokenCounter
from app.dispatch import Dispatcher
from app.keys import Keys
from app.last_errors import LastErrors
from app.leader import Leader
from app.limits import Happening
from app.memory import open_tiers, usage_path
from app.repeats import Repeats
from app.routing import Router
from app.sentinel import Sentinel
from app.shared_limits import SharedLimits, share_limits
from app.shared_metrics import own_metrics
from app.telemetry import Sampling, Telemetry
from app.telemetry.metrics import Metrics
from app.telemetry.open_sinks import open_sinks
from app.telemetry.otlp.pusher import Counting, Pusher
from app.telemetry.recent_errors import RecentErrors, recent_errors_memory
from app.telemetry.trace import Tracing
from app.telemetry.usage import Usage, UsageFile
from app.upstream import MAX_CONNECTIONS, Upstream

COLLECT_AFTER = 10_000, 20, 20
"""So many new objects begin a collection; each so many-th looks at older ones, too."""
WALL_CLOCK = time.time  # noqa: TID251 -- the injected clock itself


class Told(Struct, frozen=True):
    """What the main process tells its workers of the server, for ``/status``."""

    started_s: float
    workers: int
    recent_errors: Any

    @classmethod
    def begin(cls, workers: int, rows: int) -> "Told":
        """Begin to tell."""
        return cls(WALL_CLOCK(), workers, recent_errors_memory(rows))


class Worker:
    """Everything one worker process holds; built when its loop runs, closed when it stops."""

    def __init__(
        self,
        settings: Settings,
        shared: MutableSequence[float] | None,
        row: int | None = None,
        limits: SharedLimits | None = None,
        provider_connections: int = 2 * MAX_CONNECTIONS,
        *,
        shared_told: Told | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = own_metrics(settings, shared, row)
        told = settings.telemetry
        if shared_told is None or row is None:
            shared_told, own_row = Told.begin(workers=1, rows=1), 0
        else:
            own_row = row
        self.started_s, self.workers = shared_told.started_s, shared_told.workers
        self.recent_errors = RecentErrors(shared_told.recent_errors, own_row)
        self.sampling = Sampling(told.hit_records_per_s)
        pseudonym_key = settings.secret("end-user") if told.hash_end_users else None
        sinks = open_sinks(
            told,
            self.sampling,
            self.metrics,
            pseudonym_key=pseudonym_key,
            callbacks=settings.callbacks(),
        )
        self.pusher: Pusher | None = None
        if shared is None:  # else the main process has it
            counting = Counting(told.otlp, *self.metrics.counted)
            if counting.is_pushed:
                self.pusher = Pusher(lambda: counting, time.time_ns)
        self.tracing = Tracing(told.otlp.has_spans, told.trace_upstream)
        self.usage = _usage(settings, pseudonym_key, self.metrics)
        self.telemetry = Telemetry(
            self.metrics, (self.recent_errors, *sinks), self.sampling, self.usage
        )
        self.authenticator = Authenticator(settings.keys)
        self.router = Router(settings.models)
        urls = [one.base_url for one in _endpoints(settings)]
        self.upstream = Upstream(
            connections=provider_connections,
            hosts=len({urlsplit(url).netloc for url in urls}),
            speaks_tls=any(url.startswith("https:") for url in urls),
        )
        self.credentials = Credentials(one.credential for one in _endpoints(settings))
        self.tiers = open_tiers(settings, self.metrics.cache, WALL_CLOCK)
        if limits is None or row is None:  # a process without others
            limits, row = share_limits(settings, rows=1), 0
        limits.live(row)
        self.last_errors = LastErrors(limits.last_errors, row, WALL_CLOCK)
        self.deployments = limits.deployments(settings, self._hear)
        self.budgets = limits.budgets(settings, row, self.tiers, self.metrics.limit)
        self.counter = TokenCounter(
            router=self.router,
            cache=settings.cache,
            keys=Keys(settings.secret("cache-key"), settings.cache, self.tiers.generations),
            tiers=self.tiers,
            key_limits=limits.key_limits(settings, row, self.metrics.limit),
            dispatcher=Dispatcher(
                Leader(self.upstream, self.credentials, WALL_CLOCK),
                self.deployments,
                self.budgets,
            ),
            estimator=Estimator(),
            wall_clock_ns=time.time_ns,
            max_flying_bytes=settings.server.max_held_bytes,
        )
        by_caller = settings.cache.scope == "caller"
        memory = settings.cache.local
        self.repeats = Repeats(
            self.tiers, memory.max_entries, memory.max_bytes // 3, by_caller=by_caller
        )
        self.sentinel = Sentinel(
            settings.cache.sentinel, self.counter, self.tiers, self.metrics.recount, WALL_CLOCK
        )

    def _hear(self, name: str, happening: Happening, error: UpstreamError | None) -> None:
        """Count what happens to a deployment, and keep what went wrong last."""
        self.metrics.deployment(happening, name)
        if error is not None and happening != "openings":
            self.last_errors.note(name, error)

    async def open(self) -> None:
        """Begin to listen to what other workers and machines say."""
        self.tiers.open()
        _leave_alone_what_stays()

    async def close(self) -> None:
        """End flights before the client they fly on, and write what is still to be written."""
        await self.sentinel.close()
        await self.counter.close()
        await self.budgets.close()
        await self.tiers.close()
        await self.credentials.close()
        await self.upstream.close()
        await asyncio.to_thread(self._end_telemetry)

    def _end_telemetry(self) -> None:
        self.telemetry.close()
        if self.pusher is not None:
            self.pusher.end()


def _leave_alone_what_stays() -> None:
    """Keep the collector of cycles from what lives as long as the process, and let it come rarely.

    It stops the loop: with its defaults for some 50 ms, each second that brings a thousand misses.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def _endpoints(settings: Settings) -> list[Endpoint]:
    """List all that may be asked."""
    endpoints = [one.endpoint for one in settings.models.deployments]
    others = [one.alternate.endpoint for one in endpoints if one.alternate is not None]
    return [*endpoints, *others]


def _usage(settings: Settings, pseudonym_key: bytes | None, metrics: Metrics) -> Usage:
    kept = settings.telemetry.usage
    file = UsageFile(usage_path(settings), kept.retention_days, kept.max_rows)
    observe = partial(metrics.records, "ledger")
    users = kept.max_end_users
    return Usage(file if kept.enabled else None, users, pseudonym_key, observe, WALL_CLOCK)
