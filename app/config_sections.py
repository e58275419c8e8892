"""The sections of config.yaml that are our own, each with its bounds and its defaults."""

import base64
import binascii
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from adapters.base import Secret

SIGNING, SIGNING_BYTES = "whsec_", range(24, 65)
MAX_TTL_S = 315_360_000


class Server(Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how the server listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65_535)] = 4000
    max_body_bytes: Annotated[int, Meta(ge=1)] = 33_554_432
    max_connections: Annotated[int, Meta(ge=1)] = 10_000
    """Of clients, for each worker; fewer where the descriptors do not suffice."""
    max_held_bytes: Annotated[int, Meta(ge=1)] = 536_870_912
    """Of bodies that a worker has received and not answered; a single one is taken in any case."""
    drain_s: Annotated[float, Meta(ge=0, le=3_600)] = 15
    """How long answers in flight may take after the listener has closed."""
    drain_notice_s: Annotated[float, Meta(ge=0, le=3_600)] = 1
    """How long a server that ends still listens, while readiness says so."""
    reuse_port: bool = True
    """A listening socket per worker, not one that all share."""
    hit_lane: bool = True
    """Answer repeats before the framework wakes; off, they take its way, to the same answers."""
    allow_weak_key: bool = False


class Local(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of each worker's own tier."""

    max_entries: Annotated[int, Meta(ge=1)] = 100_000
    max_bytes: Annotated[int, Meta(ge=1)] = 67_108_864


Seconds = Annotated[float, Meta(ge=0, le=MAX_TTL_S)]


class Host(Struct, frozen=True, forbid_unknown_fields=True):
    """The file that all workers of this machine share."""

    enabled: bool = True
    path: str | None = None
    """Default: ``tallygate/counts.sqlite3`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``."""
    max_bytes: Annotated[int, Meta(ge=1_048_576)] = 1_073_741_824


class Cluster(Struct, frozen=True, forbid_unknown_fields=True):
    """The Redis or Valkey that all machines share; without a URL there is none."""

    url: Secret | None = None
    namespace: str = "tallygate"


class Sentinel(Struct, frozen=True, forbid_unknown_fields=True):
    """How often a count that is served from memory is asked for again, to find drift."""

    per_minute: Annotated[float, Meta(ge=0, le=6)] = 6
    """For the whole machine; at most 1 % of a deployment's ``rpm`` besides."""
    min_age_s: Seconds = 300


class Cache(Struct, frozen=True, forbid_unknown_fields=True):
    """How long, and for whom, counts are remembered."""

    ttl_s: Seconds = 2_592_000
    alias_ttl_s: Seconds = 3_600
    stale_if_error_s: Seconds = 604_800
    alias_stale_if_error_s: Annotated[float, Meta(ge=0, le=86_400)] = 86_400
    stale_after_s: Seconds = 2
    negative_ttl_s: Annotated[float, Meta(ge=0, le=3_600)] = 60
    scope: Literal["shared", "caller"] = "shared"
    key_secret: Secret | None = None
    local: Local = Local()
    host: Host = Host()
    cluster: Cluster = Cluster()
    sentinel: Sentinel = Sentinel()


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """When a deployment is asked again, and when it is left alone."""

    retry_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Retries of a deployment, as a share of what it was asked in the last ten seconds."""
    retries_per_s: Annotated[int, Meta(ge=0, le=1_000)] = 3
    """So many a second are allowed in any case."""
    breaker_failures: Annotated[int, Meta(ge=1)] = 5
    """Failures in a row after which a deployment is left alone."""
    breaker_probe_s: Annotated[float, Meta(gt=0, le=3_600)] = 5
    """How often one question is let through to find out whether it answers again."""
    cooldown_max_s: Annotated[float, Meta(ge=0, le=3_600)] = 60
    """The longest pause after a 429, whatever its retry-after says."""


class Jsonl(Struct, frozen=True, forbid_unknown_fields=True):
    """One JSON line per count."""

    enabled: bool = True
    path: str = "-"
    """A file to append to; ``-`` is standard output."""
    max_bytes: Annotated[int, Meta(ge=65_536)] | None = None
    """From this size on it is put aside, as ``path.1``; None: it grows."""
    keep: Annotated[int, Meta(ge=1, le=1_000)] = 5
    """How many of those are kept."""


class Webhook(Struct, frozen=True, forbid_unknown_fields=True):
    """Batches of events, posted to ``url``; without one there are none."""

    url: Secret | None = None
    """A secret, since many receivers are known by a token in it."""
    secret: Secret | None = None
    """``whsec_`` and base64, to sign with."""
    headers: dict[str, Secret] = {}
    """What the receiver wants to be sent besides."""
    batch_events: Annotated[int, Meta(ge=1, le=10_000)] = 500
    flush_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 5.0

    def signing_key(self) -> bytes | None:
        """Read the secret as Standard Webhooks writes it. Raises ValueError."""
        if self.secret is None:
            return None
        written = self.secret.reveal()
        try:
            key = base64.b64decode(written.removeprefix(SIGNING), validate=True)
        except binascii.Error:
            key = b""
        if not written.startswith(SIGNING) or len(key) not in SIGNING_BYTES:
            raise ValueError("must be whsec_ and 24 to 64 bytes in base64")
        return key


class Otlp(Struct, frozen=True, forbid_unknown_fields=True):
    """What an OpenTelemetry collector is sent; without an endpoint nothing is."""

    endpoint: Secret | None = None
    """Of OTLP over HTTP: ``/v1/traces`` is appended. A secret, as the webhook's address."""
    headers: dict[str, Secret] = {}
    """What the collector wants to be sent: its key, as a rule."""
    signals: tuple[Literal["traces", "metrics", "logs"], ...] = ("traces", "metrics")
    service_name: str = "tallygate"
    compression: Literal["none", "gzip"] = "none"
    metrics_every_s: Annotated[float, Meta(ge=0.1, le=3_600)] = 15.0
    batch_events: Annotated[int, Meta(ge=1, le=2_000)] = 500
    """Of 2,000 the body is some 4 MB; collectors take 20."""
    flush_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0

    @property
    def has_spans(self) -> bool:
        """Say whether spans are made."""
        return self.endpoint is not None and "traces" in self.signals


class Usage(Struct, frozen=True, forbid_unknown_fields=True):
    """The ledger: who asked how much, minute by minute."""

    enabled: bool = True
    path: str | None = None
    """Default: ``usage.sqlite3`` beside the file of ``cache.host``."""
    retention_days: Annotated[float, Meta(ge=0.05, le=3_660)] = 31
    max_end_users: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    """Of one key in one minute, in each worker; the others are one: ``other``."""
    max_rows: Annotated[int, Meta(ge=1_000, le=100_000_000)] = 1_000_000
    """Beyond it the oldest hours lose their end users."""


class Telemetry(Struct, frozen=True, forbid_unknown_fields=True):
    """What is told about counts, and to whom."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    hash_end_users: bool = False
    hit_records_per_s: Annotated[int, Meta(ge=0)] = 1000
    jsonl: Jsonl = Jsonl()
    webhook: Webhook = Webhook()
    otlp: Otlp = Otlp()
    callbacks: tuple[str, ...] = ()
    """Import paths of objects, or of classes, with the methods of LiteLLM's ``CustomLogger``."""
    trace_upstream: bool = True
    """Tell providers which trace a call belongs to: ``traceparent``, and the caller's state."""
    usage: Usage = Usage()


class PassThrough(Struct, frozen=True, forbid_unknown_fields=True):
    """``/anthropic/v1/messages/count_tokens``."""

    caller_key: bool = False
    """Ask with the caller's own Anthropic key instead of the server's when it sends one."""


class KeyEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of ``keys``: who may ask, and about which models (None: all)."""

    name: str
    key: Secret | None = None
    key_sha256: str | None = None
    models: tuple[str, ...] | None = None
    rpm: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Questions a minute that are not remembered."""
    max_parallel_misses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    metadata: dict[str, Any] = {}


class CallerKey(Struct, frozen=True):
    """A key as it is kept: its SHA-256, never itself."""

    name: str
    sha256: bytes
    models: tuple[str, ...] | None = None
    is_master: bool = False
    rpm: int | None = None
    max_parallel_misses: int | None = None

    @property
    def is_limited(self) -> bool:
        """Say whether there is anything to watch."""
        return self.rpm is not None or self.max_parallel_misses is not None
