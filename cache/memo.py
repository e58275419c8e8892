"""What was learned from exact bytes: a bounded map from their digest to what they ask."""

from collections import OrderedDict
from typing import Generic, TypeVar

Learned = TypeVar("Learned")


class Memo(Generic[Learned]):
    """Least recently used entries leave first; values must be of bounded size themselves."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, Learned] = OrderedDict()

    def get(self, digest: bytes) -> Learned | None:
        """Return what these bytes ask, if they were seen before."""
        found = self._entries.get(digest)
        if found is not None:
            self._entries.move_to_end(digest)
        return found

    def put(self, digest: bytes, learned: Learned) -> None:
        """Remember; the one not used longest makes room."""
        self._entries[digest] = learned
        self._entries.move_to_end(digest)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, because what it rests on has changed."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
