"""A bounded map for what comes again and again: a flood of what comes once does not push it out."""

import sys
from typing import Generic, TypeVar

Learned = TypeVar("Learned")


class Recent(Generic[Learned]):
    """Two generations: what is found in the old one moves to the young one, the rest is forgotten.

    Never holds more than ``max_entries``, nor keys of more than ``max_key_bytes`` in all.
    """

    def __init__(self, max_entries: int, max_key_bytes: int = sys.maxsize) -> None:
        self._half = max_entries // 2
        self._half_bytes = max_key_bytes // 2
        self._young: dict[bytes, Learned] = {}
        self._old: dict[bytes, Learned] = {}
        self._young_bytes = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> Learned | None:
        """Return what was learned of a key."""
        found = self._young.get(key)
        if found is None and (found := self._old.pop(key, None)) is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, learned: Learned) -> Learned:
        """Remember, and return it; None cannot be told from nothing."""
        if key not in self._young:
            size_bytes = len(key)
            if len(self._young) >= self._half or self._young_bytes + size_bytes > self._half_bytes:
                self._old, self._young, self._young_bytes = self._young, {}, 0
            self._young_bytes += size_bytes
        self._young[key] = learned
        return learned
