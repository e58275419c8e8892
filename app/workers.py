"""Where the server listens, what each worker holds, and what all workers share."""

import asyncio
import contextlib
import gc
import ipaddress
import multiprocessing
import os
import resource
import socket
import sys
import time
from collections.abc import MutableSequence
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from msgspec import Struct
from sanic import Sanic

from adapters.base import Endpoint, UpstreamError
from adapters.credentials import Credentials
from adapters.estimate import Estimator
from adapters.registry import ESTIMATE
from app.auth import Authenticator
from app.config import ConfigError, Settings
from app.counter import TokenCounter
from app.dial import ca_bundle, way_to
from app.dispatch import Dispatcher
from app.keys import Keys
from app.last_errors import LastErrors
from app.leader import Leader
from app.limits import Happening
from app.log import logger
from app.memory import open_tiers, usage_path
from app.process_life.board import ROWS_PER_WORKER
from app.process_life.listening import LoopPolicy, Sockets, listen
from app.repeats import Repeats
from app.routing import Router
from app.sentinel import Sentinel
from app.shared_limits import SharedLimits, share_limits
from app.telemetry import Sampling, Telemetry
from app.telemetry.metrics import Layout, Metrics
from app.telemetry.open_sinks import open_sinks
from app.telemetry.otlp.pusher import Counting, Pusher
from app.telemetry.recent_errors import RecentErrors, recent_errors_memory
from app.telemetry.trace import Tracing
from app.telemetry.usage import Usage, UsageFile
from app.upstream import MAX_CONNECTIONS, Upstream

MAX_UNIX_PATH_BYTES = 63
"""The system takes 107, and Sanic binds to a name that is 44 longer first (25.12.1)."""
OTHER_FILES = 64
"""Files, pipes, the cluster, and what credentials are asked of."""
COLLECT_AFTER = 10_000, 20, 20
"""So many new objects begin a collection; each so many-th looks at older ones, too."""
WALL_CLOCK = time.time  # noqa: TID251 -- the injected clock itself


class Server(Sanic[Any, Any]):
    """Sanic with the configured address, and without an open door for a key everybody knows."""

    def prepare(self, host: str | None = None, port: int | None = None, **options: Any) -> None:
        """Fill in the configured address, and refuse one that a weak key must not stand on.

        Runs once, in the main process, before anything listens. Raises SystemExit(1).
        """
        settings: Settings = self.ctx.settings
        host, port = host or settings.server.host, port or settings.server.port
        sock: socket.socket | None = options.get("sock")
        unix = options.get("unix")
        if unix and len(os.fsencode(unix)) > MAX_UNIX_PATH_BYTES:
            sys.exit(f"--unix: the path may be {MAX_UNIX_PATH_BYTES} bytes long at most: {unix}")
        bound = str(sock.getsockname()[0]) if sock else host
        if not unix and not is_loopback(bound):
            _refuse_weak_key(settings, bound)
        _check_surroundings()
        _check_callbacks(settings)
        self.ctx.bound = None if unix else bound
        if not unix and not sock:
            self.ctx.listening = _listen(host, port, options, share=settings.server.reuse_port)
            options["sock"] = self.ctx.listening[0]
        tell(settings)
        logger.info("Tallygate on %s\n%s", unix or f"http://{bound}:{port}", start_table(settings))
        options["motd"] = False
        options["protocol"] = self.ctx.protocol
        super().prepare(host, port, **options)

    def admit(self, settings: Settings) -> None:
        """Refuse what a running server must not change to. Raises SystemExit with one line."""
        if self.ctx.bound is not None and not is_loopback(self.ctx.bound):
            _refuse_weak_key(settings, self.ctx.bound)
        _check_surroundings()
        _check_callbacks(settings)

    def setup_loop(self) -> None:
        """Let workers run on a loop that knows its listener."""
        super().setup_loop()
        asyncio.set_event_loop_policy(LoopPolicy())


def _listen(host: str, port: int, options: dict[str, Any], *, share: bool) -> Sockets:
    """Open what the workers listen on. Raises SystemExit(1) with one line."""
    workers = len(os.sched_getaffinity(0)) if options.get("fast") else options.get("workers", 1)
    try:
        return listen(host, port, workers if share else 1)
    except OSError as error:
        sys.exit(f"{host}:{port}: {error.strerror}; choose another with server.host and .port")


def tell(settings: Settings) -> None:
    """Log what the operator should know about a configuration, at the start and at a reload."""
    for notice in settings.notices:
        logger.warning("%s: %s", settings.source, notice)
    if settings.weak_key is not None:
        logger.warning("%s", settings.weak_key)


def _refuse_weak_key(settings: Settings, bound: str) -> None:
    if settings.weak_key is not None and not settings.server.allow_weak_key:
        sys.exit(
            f"{settings.source}: {settings.weak_key}, so {bound} is refused: only loopback may be "
            "served. Set general_settings.master_key, or server.allow_weak_key: true"
        )


def _check_surroundings() -> None:
    """End the start here rather than in every worker, where Sanic would kill the whole group."""
    try:
        for scheme in ("http", "https"):
            way_to(f"{scheme}://counter.invalid", os.environ)
    except ValueError as error:
        sys.exit(f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY: {error}")
    try:
        if ca_bundle(os.environ) is not None:
            Upstream()
    except OSError as error:
        sys.exit(f"SSL_CERT_FILE or REQUESTS_CA_BUNDLE: {error.filename}: {error.strerror}")
    except ValueError:
        sys.exit("SSL_CERT_FILE or REQUESTS_CA_BUNDLE: holds a certificate that cannot be read")


def _check_callbacks(settings: Settings) -> None:
    """Import what workers are to call, and call nothing: what fails ends the start here."""
    try:
        settings.callbacks()
    except ConfigError as error:
        sys.exit(str(error))


def is_loopback(host: str) -> bool:
    """Say whether an address or a name to listen on is reached from this machine only."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


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
        self.metrics = _metrics(settings, shared, row)
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


class Room(Struct, frozen=True):
    """For how many connections a worker has descriptors."""

    clients: int
    spare: int
    """For clients who are told that there is no room."""
    providers: int

    @classmethod
    def within(cls, descriptors: int, wanted: int) -> "Room":
        """Share out descriptors, of which ``wanted`` at most are for clients."""
        files = min(OTHER_FILES, descriptors // 4)
        quarter = (descriptors - files) // 4
        spare, providers = min(MAX_CONNECTIONS, quarter), min(2 * MAX_CONNECTIONS, quarter)
        left = descriptors - files - spare - providers
        return cls(max(min(wanted, left), 1), spare, providers)


def room_for_connections(wanted: int) -> Room:
    """Take all descriptors that the system gives, and share them out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    descriptors = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    return Room.within(descriptors, wanted)


def _endpoints(settings: Settings) -> list[Endpoint]:
    """List all that may be asked."""
    endpoints = [one.endpoint for one in settings.models.deployments]
    others = [one.alternate.endpoint for one in endpoints if one.alternate is not None]
    return [*endpoints, *others]


def metrics_layout(settings: Settings) -> Layout:
    """Fix the series of one configuration: the same in the main process and in every worker."""
    deployments = settings.models.deployments
    names = dict.fromkeys((*(d.alias for d in deployments), *settings.models.aliases))
    providers = dict.fromkeys(d.provider for d in deployments)
    return Layout(names, providers, (d.name for d in deployments))


def shared_metrics(settings: Settings, workers: int) -> MutableSequence[float]:
    """Make the array that all workers of this server count in; the last row is for totals."""
    slots = metrics_layout(settings).width * (workers * ROWS_PER_WORKER + 1)
    return cast("MutableSequence[float]", multiprocessing.RawArray("d", slots))


def _metrics(settings: Settings, shared: MutableSequence[float] | None, row: int | None) -> Metrics:
    """Take this worker's row; a process without one counts for itself."""
    layout = metrics_layout(settings)
    if shared is None or row is None or len(shared) % layout.width:
        shared, row = multiprocessing.RawArray("d", layout.width), 0
    # Of two views of the same memory the one that is the faster.
    array = cast("MutableSequence[float]", memoryview(cast("Any", shared)).cast("B").cast("d"))
    return Metrics(layout, array, rows=len(array) // layout.width, row=row)


def _usage(settings: Settings, pseudonym_key: bytes | None, metrics: Metrics) -> Usage:
    kept = settings.telemetry.usage
    file = UsageFile(usage_path(settings), kept.retention_days, kept.max_rows)
    observe = partial(metrics.records, "ledger")
    users = kept.max_end_users
    return Usage(file if kept.enabled else None, users, pseudonym_key, observe, WALL_CLOCK)


def start_table(settings: Settings) -> str:
    """List every deployment: alias, provider, upstream model, and whether it can be asked."""
    rows = [("alias", "provider", "upstream model", "credential")]
    for one in settings.models.deployments:
        missing = ", ".join(one.endpoint.missing)
        state = f"missing: {missing}" if missing else "found"
        if one.provider == ESTIMATE:
            state = "none needed; answers are estimates"
        rows.append((one.alias, one.provider, one.endpoint.upstream_model, state))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]))
        for row in rows
    )
