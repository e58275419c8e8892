"""What is asked of the cluster's server beside the way of a count: one round trip per step."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

from redis.exceptions import ResponseError

from cache._cluster_faults import AwayError
from cache._cluster_link import Link

BATCH = 200
"""Records per round trip, so that no step holds the server for long."""
_STEP_S = 5.0
_DIGITS = 20


async def read(link: Link, name: str) -> bytes | None:
    """Read a record; what is of another type under its name is removed."""
    try:
        found: bytes | None = await link.cache.get(name)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        link.counters.bad += 1
        await unlink(link, [name])
        return None
    return found


async def unlink(link: Link, names: Sequence[str]) -> int:
    """Remove names; one command each, since they lie in different slots."""
    return sum(await link.together.execute_together(*(("UNLINK", name) for name in names)))


async def read_generations(link: Link, name: str) -> dict[str, int]:
    """Read the hash of generations; what nobody of ours has written is passed over."""
    try:
        held = await link.cache.raw("execute_command", "HGETALL", name)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        link.counters.bad += 1
        await unlink(link, [name])
        return {}
    return {
        model.decode(errors="replace"): int(written)
        for model, written in held.items()
        if len(written) == _DIGITS and written.isdigit()
    }


async def read_stats(link: Link) -> dict[str, str | int]:
    """Read the server's name, version, used memory in bytes and number of keys of its database."""
    server, memory, keys = await link.together.execute_together(
        ("INFO", "server"), ("INFO", "memory"), ("DBSIZE",)
    )
    name = str(server.get("server_name", "redis"))
    version = server.get(f"{name}_version", server.get("redis_version", "unknown"))
    return {
        "server": name,
        "version": str(version),
        "used_memory_bytes": int(memory.get("used_memory", 0)),
        "keys": int(keys),
    }


async def scan(link: Link, prefix: str) -> AsyncIterator[tuple[bytes, bytes, float]]:
    """Yield key, value and seconds to live of what stands under ``prefix{hex}``."""
    cursor = 0
    while True:
        try:
            async with asyncio.timeout(_STEP_S):
                cursor, found = await _step(link, prefix, cursor)
        except Exception as error:
            raise AwayError("the server stopped answering") from error
        for entry in found:
            yield entry
        if cursor == 0:
            return


async def _step(
    link: Link, prefix: str, cursor: int
) -> tuple[int, list[tuple[bytes, bytes, float]]]:
    client = link.alone
    cursor, names = await client.scan(cursor, match=f"{prefix}{{*}}", count=BATCH)
    async with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.execute_command("GET", name)
            pipe.execute_command("PTTL", name)
        replies = await pipe.execute(raise_on_error=False) if names else []
    found = []
    for name, value, ttl_ms in zip(names, replies[::2], replies[1::2], strict=True):
        key = _key(os.fsdecode(name).removeprefix(prefix))
        if key is not None and isinstance(value, bytes) and isinstance(ttl_ms, int):
            found.append((key, value, ttl_ms / 1000 if ttl_ms >= 0 else float("inf")))
    return cursor, found


def _key(tag: str) -> bytes | None:
    try:
        return bytes.fromhex(tag[1:-1])
    except ValueError:
        return None
