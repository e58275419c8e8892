"""What the configuration says about memory → the tiers that a worker opens."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from app.config import Settings
from app.log import logger
from cache.cluster import ClusterCache
from cache.generations import Generations
from cache.host import HostCache, HostFileError
from cache.leases import HostLeases
from cache.local import LocalTier
from cache.record import Codec
from cache.tiers import Tiers

REQUEST_S = 0.05
"""How long a count may wait for the cluster."""


def host_path(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """Say where the host's file is: never inside the checkout unless the operator put it there."""
    if settings.cache.host.path is not None:
        return Path(settings.cache.host.path).expanduser()
    base = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tallygate" / "counts.sqlite3"


def usage_path(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """Say where the ledger's file is: beside the host's, unless the operator put it elsewhere."""
    path = settings.telemetry.usage.path
    if path is not None:
        return Path(path).expanduser()
    return host_path(settings, environ).with_name("usage.sqlite3")


def codec(settings: Settings) -> Codec:
    """Make what writes and believes this installation's records."""
    return Codec(settings.secret("cache-record"))


def open_tiers(
    settings: Settings, observe: Callable[[str, str], None], wall_clock: Callable[[], float]
) -> Tiers:
    """Open what there is. A shared tier that cannot be used costs a log line, never a count."""
    cache = settings.cache
    host, leases = _open_host(settings)
    return Tiers(
        # The memo of exact bytes has the rest.
        local=LocalTier(cache.local.max_entries, cache.local.max_bytes * 2 // 3),
        codec=codec(settings),
        generations=Generations(wall_clock),
        host=host,
        leases=leases,
        cluster=open_cluster(settings),
        keep_s=keep_s(settings),
        wall_clock=wall_clock,
        observe=observe,
    )


def keep_s(settings: Settings) -> float:
    """Say how long a shared tier keeps a record: fresh, and then for an outage."""
    cache = settings.cache
    own = [one.cache_ttl_s for one in settings.models.deployments if one.cache_ttl_s]
    stale_s = max(cache.stale_if_error_s, cache.alias_stale_if_error_s)
    return max(cache.ttl_s, cache.alias_ttl_s, *own) + stale_s + 1


def open_cluster(settings: Settings, timeout_s: float = REQUEST_S) -> ClusterCache | None:
    """Make the client of the Redis or Valkey that is configured; it connects when it is asked."""
    cluster = settings.cache.cluster
    if cluster.url is None:
        return None
    return ClusterCache(cluster.url.reveal(), namespace=cluster.namespace, timeout_s=timeout_s)


def _open_host(settings: Settings) -> tuple[HostCache | None, HostLeases | None]:
    if not settings.cache.host.enabled:
        return None, None
    path = host_path(settings)
    host = HostCache(path, settings.cache.host.max_bytes)
    try:
        host.open()
    except HostFileError as error:
        # It goes on trying by itself.
        logger.warning("cache.host: %s: %s; going on without it", path, error)
    return host, HostLeases(path.with_name(f"{path.name}.leases"))
