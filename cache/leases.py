"""One flight per key among the processes of a machine, and what the others learn of its failure.

    take(key) ── TAKEN ──► ask the provider, store ──► release(key)
       │ HELD                      │ or fail(key, …)
       └─► look up the store and failure(key, …) now and then, until one of them answers

A lease is a POSIX record lock on a byte that the key decides: the kernel frees it the moment its
process ends, however it ends. The kernel keeps the locks of a file in a list, so the keys are
spread over several files. Each file begins with slots for failures and for claims:

    │ 256 failures of 128 B │ 256 claims of 8 B │ … │ 2⁶² bytes that exist only to be locked │
"""

import contextlib
import enum
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from cache._private import HostFileError, open_private, private_folder, private_status
from cache.failure import LASTS_S, Failure

SHARDS = 16
MAX_HELD = 4096
"""By one process: beyond it a flight goes without a lease."""
CHECK_NS = 1_000_000_000
"""A file that was deleted is noticed, and one that could not be opened tried again, this late."""

_SLOTS = 256
_SLOT_BYTES = 128
_CLAIMS_AT = _SLOTS * _SLOT_BYTES
_CLAIM_BYTES = 8
_LEASES_AT = 1 << 20
_CHECKSUM_BYTES = 8
_CREDENTIAL_BYTES = 8
_TYPE_BYTES = 32
# Fingerprint of the key, CLOCK_MONOTONIC in ns, status, retry-after in s, credential, type.
_FAILURE = struct.Struct(f">16sQHIB{_CREDENTIAL_BYTES}sB{_TYPE_BYTES}s")


class LeaseState(enum.Enum):
    """What became of an attempt to take a lease; true when it was taken."""

    TAKEN = "taken"
    HELD = "held"
    """By another process, or by this one already."""
    FULL = "full"
    """This process holds MAX_HELD: go without."""
    BROKEN = "broken"
    """The files cannot be used: go without."""

    def __bool__(self) -> bool:
        return self is LeaseState.TAKEN


class _File(Struct):
    descriptor: int
    inode: tuple[int, int]
    held: int = 0


class _Place(Struct, frozen=True):
    """Where a key's lease, failure and claim are."""

    shard: int
    slot: int
    offset: int
    fingerprint: bytes


class HostLeases:
    """Leases, failures and claims in the files ``path.00`` … ``path.15``.

    Opened on first use, in the worker; any thread may call. Nothing here raises or waits: a fault
    of the files makes every lease BROKEN, every failure None and every claim False, until it is
    gone. A process must have one HostLeases for a path: closing any descriptor of a file drops all
    record locks that the process holds on it.
    """

    def __init__(self, path: Path, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._path = path
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._held: dict[bytes, tuple[_File, int]] = {}
        self._current: list[_File | None] = [None] * SHARDS
        self._check_at = [0] * SHARDS
        # Every open file by inode, so that none is ever opened a second time.
        self._open: dict[tuple[int, int], _File] = {}

    def take(self, key: bytes) -> LeaseState:
        """Try to be the one process that asks for ``key``."""
        with self._lock:
            if key in self._held:
                return LeaseState.HELD
            if len(self._held) >= MAX_HELD:
                return LeaseState.FULL
            place = _place(key)
            file = self._file(place.shard)
            if file is None:
                return LeaseState.BROKEN
            try:
                fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place.offset)
            except (BlockingIOError, PermissionError):
                return LeaseState.HELD
            except OSError:
                return LeaseState.BROKEN
            file.held += 1
            self._held[key] = file, place.offset
            return LeaseState.TAKEN

    def release(self, key: bytes) -> None:
        """Give the lease back; of one that is not held, nothing."""
        with self._lock:
            file, offset = self._held.pop(key, (None, 0))
            if file is None:
                return
            with contextlib.suppress(OSError):
                fcntl.lockf(file.descriptor, fcntl.LOCK_UN, 1, offset)
            file.held -= 1
            self._close_unused(file)

    def fail(self, key: bytes, failure: Failure, now_ns: int) -> None:
        """Publish a failure at ``now_ns`` (CLOCK_MONOTONIC); one that does not fit is not."""
        if len(failure.credential) > _CREDENTIAL_BYTES or len(failure.type) > _TYPE_BYTES:
            return
        place = _place(key)
        try:
            data = _FAILURE.pack(
                place.fingerprint,
                now_ns,
                failure.status,
                failure.retry_after_s,
                len(failure.credential),
                failure.credential,
                len(failure.type),
                failure.type.encode("ascii"),
            )
        except (struct.error, UnicodeEncodeError):
            return
        with self._lock, contextlib.suppress(OSError):
            file = self._file(place.shard)
            if file is not None:
                os.pwrite(file.descriptor, data + _checksum(data), place.slot * _SLOT_BYTES)

    def failure(self, key: bytes, since_ns: int, now_ns: int) -> Failure | None:
        """Read a failure that was published between the two times, and LASTS_S ago at most."""
        place = _place(key)
        with self._lock:
            file = self._file(place.shard)
            if file is None:
                return None
            try:
                data = os.pread(
                    file.descriptor, _FAILURE.size + _CHECKSUM_BYTES, place.slot * _SLOT_BYTES
                )
            except OSError:
                return None
        # A process may be writing into the slot right now.
        body = data[: _FAILURE.size]
        if not body.startswith(place.fingerprint) or data[_FAILURE.size :] != _checksum(body):
            return None
        _, at_ns, status, retry_s, credential_len, credential, type_len, kind = _FAILURE.unpack(
            body
        )
        oldest_ns = max(since_ns, now_ns - int(LASTS_S * 1e9))
        if not oldest_ns <= at_ns <= now_ns:
            return None
        return Failure(status, kind[:type_len].decode(), retry_s, credential[:credential_len])

    def claim(self, name: bytes, every_s: float) -> bool:
        """Say yes to one caller on the machine per ``every_s`` seconds and name.

        The empty name has a place of its own; two others may share one and then take turns.
        """
        place = _place(name)
        shard, slot = (place.shard, max(place.slot, 1)) if name else (0, 0)
        at = _CLAIMS_AT + slot * _CLAIM_BYTES
        with self._lock, contextlib.suppress(OSError):
            file = self._file(shard)
            if file is None:
                return False
            fcntl.lockf(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
            try:
                now_ns = self._clock_ns()
                last_ns = int.from_bytes(os.pread(file.descriptor, _CLAIM_BYTES, at))
                # A time ahead of ours was written before the machine started anew.
                if last_ns <= now_ns < last_ns + int(every_s * 1e9) and last_ns:
                    return False
                return os.pwrite(file.descriptor, now_ns.to_bytes(8), at) == _CLAIM_BYTES
            finally:
                fcntl.lockf(file.descriptor, fcntl.LOCK_UN, 1, at)
        return False

    def close(self) -> None:
        """Give every lease back and close the files."""
        with self._lock:
            for file in self._open.values():
                os.close(file.descriptor)
            self._open.clear()
            self._held.clear()
            self._current = [None] * SHARDS

    def __len__(self) -> int:
        return len(self._held)

    def _file(self, shard: int) -> _File | None:
        """Give the shard's file, opened anew when the path names another one; None: a fault."""
        now_ns = self._clock_ns()
        if now_ns < self._check_at[shard]:
            return self._current[shard]
        self._check_at[shard] = now_ns + CHECK_NS
        before = self._current[shard]
        try:
            self._current[shard] = self._open_shard(shard)
        except (OSError, HostFileError):
            self._current[shard] = None
        if before is not None and before is not self._current[shard]:
            self._close_unused(before)
        return self._current[shard]

    def _open_shard(self, shard: int) -> _File:
        """Open the file, unless it is open. Raises OSError, HostFileError."""
        path = self._path.with_name(f"{self._path.name}.{shard:02}")
        private_folder(path.parent)
        status = private_status(path)
        known = status and self._open.get((status.st_dev, status.st_ino))
        if known:
            return known
        descriptor = open_private(path)
        status = os.fstat(descriptor)
        file = _File(descriptor, (status.st_dev, status.st_ino))
        self._open[file.inode] = file
        return file

    def _close_unused(self, file: _File) -> None:
        """Close a file that is no longer the path's, once no lease in it is left."""
        if file.held == 0 and file not in self._current:
            self._open.pop(file.inode, None)
            os.close(file.descriptor)


def _place(key: bytes) -> _Place:
    digest = hashlib.blake2b(key, digest_size=32).digest()
    return _Place(
        shard=digest[0] % SHARDS,
        slot=digest[1],
        offset=_LEASES_AT + (int.from_bytes(digest[2:10]) >> 2),
        fingerprint=digest[16:],
    )


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).digest()
