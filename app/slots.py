"""Small records in shared memory: each slot has one writer, everybody reads, nobody locks.

    │ check │ length │ record … │   one slot

Who reads while another writes finds that the check does not hold, and takes it for no record. So it
is with what a killed writer has left half written.
"""

import multiprocessing
import struct
from typing import Any
from zlib import crc32

_HEAD = struct.Struct("<IH")


def slots_memory(slots: int, slot_bytes: int) -> Any:
    """Make memory for so many slots. Pickled as a handle when a process is started."""
    return multiprocessing.RawArray("B", slots * slot_bytes)


class Slots:
    """The slots of one memory, which all have the same size."""

    def __init__(self, memory: Any, slot_bytes: int) -> None:
        self._memory = memoryview(memory).cast("B")
        self._slot_bytes = slot_bytes

    def __len__(self) -> int:
        return len(self._memory) // self._slot_bytes

    def write(self, slot: int, record: bytes) -> None:
        """Replace a slot's record. Raises ValueError for one that is too long."""
        if len(record) > self._slot_bytes - _HEAD.size:
            raise ValueError(f"a record of {len(record)} bytes")
        at = slot * self._slot_bytes
        whole = _HEAD.pack(crc32(record), len(record)) + record
        self._memory[at : at + len(whole)] = whole

    def read(self, slot: int) -> bytes | None:
        """Return a slot's record; None where there is none, or none that is whole."""
        at = slot * self._slot_bytes
        check, length = _HEAD.unpack_from(self._memory, at)
        if not 0 < length <= self._slot_bytes - _HEAD.size:
            return None
        record = bytes(self._memory[at + _HEAD.size : at + _HEAD.size + length])
        return record if crc32(record) == check else None
