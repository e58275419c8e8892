"""A bounded map for what comes again and again: a flood of what comes once does not push it out."""

from typing import Generic, TypeVar

Learned = TypeVar("Learned")


class Recent(Generic[Learned]):
    """Two generations: what is found in the old one moves to the young one, the rest is forgotten.

    Never holds more than ``max_entries``.
    """

    def __init__(self, max_entries: int) -> None:
        self._half = max_entries // 2
        self._young: dict[bytes, Learned] = {}
        self._old: dict[bytes, Learned] = {}

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
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = learned
        return learned
