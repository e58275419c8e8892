"""The tier that all worker processes of one machine share: one SQLite file (ADR 0008).

Values are bytes that this tier does not understand, but for one thing: where a record says when
its count was asked (`record.ORDER`), so that the newer of two stays.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from cache._host_put import Row, put
from cache._host_store import DELETE, LOOK_UP, NEVER_S, HostStore, rows_of
from cache._host_writer import Outcome
from cache._private import HostFileError

__all__ = ["HostCache", "HostFileError"]

_ADD = """
INSERT INTO counts (key, value, expires_s) VALUES (?1, ?2, ?3) ON CONFLICT (key)
DO UPDATE SET value = excluded.value, expires_s = excluded.expires_s WHERE counts.expires_s <= ?4
"""
_SWAP = (
    "UPDATE counts SET value = ?2, expires_s = ?3 WHERE key = ?1 AND value = ?5 AND expires_s > ?4"
)
_DELETE_LIVE = "DELETE FROM counts WHERE key = ? AND expires_s > ?"
_DELETE_VALUE = "DELETE FROM counts WHERE key = ? AND value = ?"
_DELETE_PREFIX = "DELETE FROM counts WHERE substr(key, 1, ?) = ?"
_EXPIRE = "UPDATE counts SET expires_s = ?2 WHERE key = ?1 AND expires_s > ?3"


class HostCache(HostStore, BaseCache):  # type: ignore[misc] # aiocache ships no types
    """The store behind aiocache's interface, so that any of its backends could take its place.

    Keys and values are bytes (a str is its UTF-8). These operations raise sqlite3.Error when the
    file fails them, and return once what they wrote is committed. A ttl of None or 0 is none.
    """

    NAME = "host"

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        wall_clock: Callable[[], float] = time.time,  # noqa: TID251 -- it is the argument
    ) -> None:
        HostStore.__init__(self, path, max_bytes, wall_clock)
        BaseCache.__init__(self, serializer=NullSerializer(), timeout=None)

    async def _do(self, run: Callable[[sqlite3.Connection], int], *parts: bytes) -> int:
        """Do a job in the writer's thread and await it. Raises sqlite3.Error."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Outcome] = loop.create_future()

        def tell(outcome: Outcome) -> None:
            if not told.done():
                told.set_result(outcome)

        def done(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(tell, outcome)

        self._submit(run, parts, done)
        return rows_of(await told)

    def _build_key(self, key: bytes | str, namespace: str | None = None) -> bytes:
        return (namespace or "").encode() + _bytes(key)

    async def _get(self, key: bytes, **_: Any) -> bytes | None:
        return self.look_up(key)

    _gets = _get

    async def _multi_get(self, keys: list[bytes], **_: Any) -> list[bytes | None]:
        return [self.look_up(key) for key in keys]

    async def _exists(self, key: bytes, _conn: Any = None) -> bool:
        return self.look_up(key) is not None

    async def _set(
        self, key: bytes, value: Any, ttl: float | None, _cas_token: Any = None, _conn: Any = None
    ) -> bool | int:
        row = Row(key, _bytes(value), self._expires_s(ttl or None), self._wall_clock())
        if _cas_token is None:
            await self._do(lambda file: put([row], file), *row[:2])
            return True
        swap = (*row, _bytes(_cas_token))
        return await self._do(lambda file: file.execute(_SWAP, swap).rowcount, *row[:2])

    async def _multi_set(
        self, pairs: Iterable[tuple[bytes, Any]], ttl: float | None, _conn: Any = None
    ) -> None:
        expires_s, now_s = self._expires_s(ttl or None), self._wall_clock()
        rows = [Row(key, _bytes(value), expires_s, now_s) for key, value in pairs]
        parts = [part for row in rows for part in row[:2]]
        await self._do(lambda file: put(rows, file), *parts)

    async def _add(self, key: bytes, value: Any, ttl: float | None, _conn: Any = None) -> None:
        row = (key, _bytes(value), self._expires_s(ttl or None), self._wall_clock())
        if not await self._do(lambda file: file.execute(_ADD, row).rowcount, *row[:2]):
            raise ValueError(f"Key {key!r} already exists, use .set to update the value")

    async def _increment(self, key: bytes, delta: int, _conn: Any = None) -> int:
        now_s = self._wall_clock()

        def run(file: sqlite3.Connection) -> int:
            row = file.execute(LOOK_UP, (key, now_s)).fetchone()
            total = delta if row is None else int(row[0]) + delta
            if row is None:
                file.execute(DELETE, (key,))
                file.execute(_ADD, (key, b"%d" % total, NEVER_S, now_s))
            else:
                file.execute("UPDATE counts SET value = ?2 WHERE key = ?1", (key, b"%d" % total))
            return total

        try:
            return await self._do(run, key)
        except ValueError:
            raise TypeError("Value is not an integer") from None

    async def _expire(self, key: bytes, ttl: float, _conn: Any = None) -> bool:
        row = (key, self._expires_s(ttl or None), self._wall_clock())
        return await self._do(lambda file: file.execute(_EXPIRE, row).rowcount, key) > 0

    async def _delete(self, key: bytes, _conn: Any = None) -> int:
        row = (key, self._wall_clock())
        return await self._do(lambda file: file.execute(_DELETE_LIVE, row).rowcount, key)

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        prefix = (namespace or "").encode()
        if prefix:
            row = (len(prefix), prefix)
            await self._do(lambda file: file.execute(_DELETE_PREFIX, row).rowcount)
        else:
            await self._do(lambda file: file.execute("DELETE FROM counts").rowcount)
        return True

    async def _redlock_release(self, key: bytes, value: Any) -> int:
        row = (key, _bytes(value))
        return await self._do(lambda file: file.execute(_DELETE_VALUE, row).rowcount, key)

    async def _close(self, *_: Any, **__: Any) -> None:
        await asyncio.to_thread(self.shut)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        raise TypeError(f"bytes expected, not {type(value).__name__}")
    return value
