"""This process's own tier: a bounded, synchronous map of keys to counts."""

import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from cache.record import Record

# What an entry takes beside its own bytes: the key, the record, its integers, the map's slot.
ENTRY_OVERHEAD_BYTES = 560


class _Entry(Struct, gc=False):
    record: Record
    born_s: float
    """When the provider answered, on this process's monotonic clock."""


class LocalTier:
    """Least recently used entries leave first; ages are monotonic, so a clock step ends nothing.

    * Never holds more than ``max_entries`` entries or ``max_bytes`` bytes, overhead included.
    * How old a count may be is the reader's question: what is too old for one is another's stale
      answer, and stays until it is replaced or makes room.
    * Of two records under one key the one whose question took off later stays.
    """

    def __init__(
        self, max_entries: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: bytes, max_age_s: float) -> Record | None:
        """Return the record if it is younger than ``max_age_s``. No await, no decode."""
        entry = self._entries.get(key)
        if entry is None or self._clock() - entry.born_s >= max_age_s:
            return None
        self._entries.move_to_end(key)
        return entry.record

    def put(self, key: bytes, record: Record, age_s: float = 0.0) -> bool:
        """Remember a record that is ``age_s`` old; False where a newer one stands already."""
        # 1 an ordinary flight asks; 2 a no-cache flight asks later, lands first and is stored;
        # 3 the ordinary one lands: its count is the older one and must not take the place.
        born_s = self._clock() - age_s
        before = self._entries.get(key)
        if before is not None:
            if before.record.asked_at_ns > record.asked_at_ns:
                return False
            if before.record.asked_at_ns == record.asked_at_ns:
                # The same count from another tier: a wall clock that stepped back between the two
                # must not make it younger.
                born_s = min(born_s, before.born_s)
            self._remove(key)
        self._entries[key] = _Entry(record, born_s)
        self.size_bytes += _size_bytes(record)
        while len(self._entries) > self._max_entries or self.size_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LocalTier: {len(self)} entries, {self.size_bytes} bytes>"

    def _remove(self, key: bytes) -> None:
        self.size_bytes -= _size_bytes(self._entries.pop(key).record)


def _size_bytes(record: Record) -> int:
    return (
        ENTRY_OVERHEAD_BYTES + len(record.extra) + len(record.dropped) + len(record.upstream_model)
    )
