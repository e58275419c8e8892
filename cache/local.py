"""This process's own tier: a bounded, synchronous map of keys to counts."""

import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from cache.record import Record

# What an entry takes beside its own bytes: the key, the record, two integers, the map's slot.
ENTRY_OVERHEAD_BYTES = 420


class _Entry(Struct):
    record: Record
    expires_s: float


class LocalTier:
    """Least recently used entries leave first; time is monotonic, so a clock step expires nothing.

    Never holds more than ``max_entries`` entries or ``max_bytes`` bytes, overhead included.
    """

    def __init__(
        self, max_entries: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: bytes) -> Record | None:
        """Return the record while it is fresh. No await, no decode."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_s <= self._clock():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.record

    def put(self, key: bytes, record: Record, ttl_s: float) -> None:
        """Remember the record for ``ttl_s`` seconds, in place of what stood under the key."""
        if key in self._entries:
            self._remove(key)
        if ttl_s <= 0:
            return
        self._entries[key] = _Entry(record, self._clock() + ttl_s)
        self.size_bytes += _size_bytes(record)
        while len(self._entries) > self._max_entries or self.size_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LocalTier: {len(self)} entries, {self.size_bytes} bytes>"

    def _remove(self, key: bytes) -> None:
        self.size_bytes -= _size_bytes(self._entries.pop(key).record)


def _size_bytes(record: Record) -> int:
    return ENTRY_OVERHEAD_BYTES + len(record.extra) + len(record.dropped)
