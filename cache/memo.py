"""What was learned from exact bytes: a bounded map from their digest to what they ask."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Learned = TypeVar("Learned")


class Memo(Generic[Learned]):
    """Least recently used entries leave first.

    Never holds more than ``max_entries`` entries or ``max_bytes`` bytes, as ``size_of`` tells them.
    """

    def __init__(self, max_entries: int, max_bytes: int, size_of: Callable[[Learned], int]) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[bytes, Learned] = OrderedDict()
        self.size_bytes = 0

    def get(self, digest: bytes) -> Learned | None:
        """Return what these bytes ask, if they were seen before."""
        found = self._entries.get(digest)
        if found is not None:
            self._entries.move_to_end(digest)
        return found

    def put(self, digest: bytes, learned: Learned) -> None:
        """Remember; those not used longest make room."""
        before = self._entries.pop(digest, None)
        if before is not None:
            self.size_bytes -= self._size_of(before)
        self._entries[digest] = learned
        self.size_bytes += self._size_of(learned)
        while len(self._entries) > self._max_entries or self.size_bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size_bytes -= self._size_of(oldest)

    def __len__(self) -> int:
        return len(self._entries)
