"""Sink: the last refusals of all workers, in shared memory, for ``/status`` and the page.

Each worker writes a ring of its own: a fixed number of slots, short fields from closed lists and
from the configuration. A ring outlives its worker, and a reload.
"""

from typing import Any

import msgspec
from msgspec import Struct

from app.slots import Slots, slots_memory
from app.telemetry.event import CountEvent

SLOTS_PER_ROW, SLOT_BYTES = 16, 512
NAME_BYTES, REASON_BYTES, WORD_BYTES = 96, 80, 48


class Refused(Struct, frozen=True, array_like=True):
    """One refusal, as it is kept. ``reason`` is our own wording, never a provider's text."""

    time_s: float
    status: int
    type: str
    reason: str
    alias: str
    deployment: str
    caller: str
    request_id: str


def cut(text: str, max_bytes: int) -> str:
    """Cut a text to what fits in so many bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def recent_errors_memory(rows: int) -> Any:
    """Make what the workers of ``rows`` rows share."""
    return slots_memory(rows * SLOTS_PER_ROW, SLOT_BYTES)


class RecentErrors:
    """The rings of all workers, of which the worker of ``row`` writes its own."""

    def __init__(self, memory: Any, row: int) -> None:
        self._slots = Slots(memory, SLOT_BYTES)
        self._first = row * SLOTS_PER_ROW
        self._decoder = msgspec.msgpack.Decoder(Refused)
        # On from where the row's last worker has ended.
        own = [(one.time_s if (one := self._read(self._first + n)) else 0.0) for n in _RING]
        self._next = min(_RING, key=own.__getitem__)

    def emit(self, event: CountEvent) -> None:
        """Keep a refusal in the place of the oldest."""
        if not event.error_type:
            return
        kept = Refused(
            time_s=event.time_s,
            status=event.status,
            type=cut(event.error_type, WORD_BYTES),
            reason=cut(event.reason, REASON_BYTES),
            alias=cut(event.alias, NAME_BYTES),
            deployment=cut(event.deployment, NAME_BYTES),
            caller=cut(event.caller, NAME_BYTES),
            request_id=event.request_id,
        )
        self._slots.write(self._first + self._next, msgspec.msgpack.encode(kept))
        self._next = (self._next + 1) % SLOTS_PER_ROW

    def newest(self) -> list[Refused]:
        """List what all workers have kept, the newest first."""
        found = (self._read(slot) for slot in range(len(self._slots)))
        return sorted(filter(None, found), key=lambda one: one.time_s, reverse=True)

    def end(self) -> None:
        """Nothing is left: every write is done when ``emit`` returns."""

    def wait(self, timeout_s: float) -> None:
        """Nothing is to be waited for."""

    def _read(self, slot: int) -> Refused | None:
        record = self._slots.read(slot)
        return None if record is None else self._decoder.decode(record)


_RING = range(SLOTS_PER_ROW)
