"""What went wrong last with each deployment, as all workers of the server have seen it."""

from collections.abc import Callable, Iterable
from typing import Any, Self

import msgspec
from msgspec import Struct

from adapters.base import UpstreamError
from app.slots import Slots, slots_memory
from app.telemetry.layout import ERROR_TYPES, OTHER
from app.telemetry.recent_errors import REASON_BYTES, cut

SLOT_BYTES = 192


class LastError(Struct, frozen=True):
    """A failure of a deployment, or its word that it is asked too often.

    ``type`` is of a closed list, ``reason`` our own wording: neither is the provider's text.
    """

    time_s: float
    status: int
    type: str
    reason: str


class ErrorMemory(Struct, frozen=True):
    """What is shared: a slot for each row and deployment."""

    names: tuple[str, ...]
    rows: int
    memory: Any

    @classmethod
    def make(cls, names: Iterable[str], rows: int, before: Self | None = None) -> Self:
        """Make it for deployments by name; ``before``: what a new configuration takes over."""
        names = tuple(names)
        if before is not None and (before.names, before.rows) == (names, rows):
            return before
        made = cls(names, rows, slots_memory(rows * len(names), SLOT_BYTES))
        if before is not None:
            made._take_over(before)
        return made

    def slots(self) -> Slots:
        """Open it."""
        return Slots(self.memory, SLOT_BYTES)

    def slot(self, row: int, name: str) -> int:
        """Return which slot is a row's for a deployment."""
        return row * len(self.names) + self.names.index(name)

    def _take_over(self, before: Self) -> None:
        old, new = before.slots(), self.slots()
        for name in set(before.names) & set(self.names):
            for row in range(min(before.rows, self.rows)):
                if record := old.read(before.slot(row, name)):
                    new.write(self.slot(row, name), record)


class LastErrors:
    """The last error of each deployment; the worker of ``row`` writes what it has seen itself."""

    def __init__(self, shared: ErrorMemory, row: int, wall_clock: Callable[[], float]) -> None:
        self._slots = shared.slots()
        self._first = row * len(shared.names)
        self._index = {name: index for index, name in enumerate(shared.names)}
        self._wall_clock = wall_clock
        self._decoder = msgspec.msgpack.Decoder(LastError)

    def note(self, deployment: str, error: UpstreamError) -> None:
        """Keep an error in the place of the one before."""
        type_ = error.type if error.type in ERROR_TYPES else OTHER
        kept = LastError(self._wall_clock(), error.status, type_, cut(error.reason, REASON_BYTES))
        slot = self._first + self._index[deployment]
        self._slots.write(slot, msgspec.msgpack.encode(kept))

    def of(self, deployment: str) -> LastError | None:
        """Return the newest that any worker has seen."""
        slots = range(self._index[deployment], len(self._slots), len(self._index))
        found = [self._decoder.decode(one) for one in map(self._slots.read, slots) if one]
        return max(found, key=lambda one: one.time_s, default=None)
