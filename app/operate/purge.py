"""Forgetting a model: in every tier and every worker, now, and then on the disk as well."""

import asyncio
from collections.abc import Callable, Mapping

from msgspec import Struct

from adapters.registry import ESTIMATE
from app.operate.shared_tiers import SharedTiers
from app.routing import Router

HEARD_S = 1.5
"""After this every worker that reaches a shared tier has heard, and writes under the old keys no
more; only what was out at a provider may still land there, where nobody looks."""
BATCH = 500


class Purged(Struct):
    """How many counts were deleted, by tier; None where there is no such tier."""

    host: int | None = None
    cluster: int | None = None


def upstream_models(router: Router, name: str) -> tuple[str, ...]:
    """Say which upstream models a name of the configuration leads to; () for no such name.

    A deployment's alternate counts the same model, and keeps it under the same name.
    """
    route = router.resolve(name)
    # The router finds an upstream id too, and then all that its entry's name leads to.
    if route is None or (name not in router.names() and "*" not in route.alias):
        return ()
    firsts = (pool.first for pool in route.pools)
    found = (one.endpoint.upstream_model for one in firsts if one.provider != ESTIMATE)
    return tuple(dict.fromkeys(found))


async def purge(
    tiers: SharedTiers, models: tuple[str, ...], advance: Callable[[int], None]
) -> Purged:
    """Begin new generations, wait until servers have heard, and delete the old ones' counts.

    Raises TierError: what was begun holds, what was not deleted is still never found.
    """
    known = await tiers.generations()
    begun = {model: known.advance(model) for model in models}
    await tiers.raise_generations(begun)
    await asyncio.sleep(HEARD_S)
    return Purged(
        host=_purge_host(tiers, begun, advance) if tiers.host is not None else None,
        cluster=await _purge_cluster(tiers, begun, advance) if tiers.cluster is not None else None,
    )


def _is_old(tiers: SharedTiers, begun: Mapping[str, int], key: bytes, data: bytes) -> bool:
    record = tiers.read(key, data)
    return record is not None and record.generation < begun.get(record.upstream_model, 0)


def _purge_host(
    tiers: SharedTiers, begun: Mapping[str, int], advance: Callable[[int], None]
) -> int:
    deleted = 0
    batch: list[bytes] = []
    for key, data, _ in tiers.host_items():
        advance(1)
        if _is_old(tiers, begun, key, data):
            batch.append(key)
        if len(batch) == BATCH:
            deleted += tiers.delete_from_host(batch)
            batch = []
    return deleted + tiers.delete_from_host(batch)


async def _purge_cluster(
    tiers: SharedTiers, begun: Mapping[str, int], advance: Callable[[int], None]
) -> int:
    deleted = 0
    batch: list[bytes] = []
    async for key, data, _ in tiers.cluster_items():
        advance(1)
        if _is_old(tiers, begun, key, data):
            batch.append(key)
        if len(batch) == BATCH:
            deleted += await tiers.delete_from_cluster(batch)
            batch = []
    return deleted + await tiers.delete_from_cluster(batch)
