"""What the shared tiers say of themselves: numbers and troubles, never content."""

import sqlite3
from typing import Any

from cache.cluster import ClusterCache
from cache.host import HostCache


def host_stats(host: HostCache) -> dict[str, Any]:
    """Say how full the host's file is, or what is wrong with it; may wait for a disk."""
    try:
        return dict(host.stats())
    except sqlite3.Error as error:
        return {"trouble": str(error)}


async def cluster_stats(cluster: ClusterCache) -> dict[str, Any]:
    """Say how full the cluster's server is, other people's keys too, and whether it is asked."""
    said = await cluster.stats()
    breaker, counters = cluster.breaker, cluster.counters
    return {
        **(said or {}),
        "trouble": None if said is not None else "does not answer as it should",
        "breaker_open": breaker.is_open,
        "breaker_open_s": round(breaker.open_s, 1),
        "asked": counters.asked,
        "errors": counters.errors,
        "not_asked": counters.not_asked,
        "bad": counters.bad,
    }
