"""An export of what is remembered: NDJSON of keys and counts, no content.

{"format":"tallygate counts 1","key_version":1,"secret":"…","generations":{"claude-x":17…}}
{"key":"…hex…","record":"…base64…","expires_s":1893456000}                  one per count
{"counts":1}                                          a file without this line was cut off
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, BinaryIO

import msgspec
from msgspec import Meta, Struct

from app.operate.shared_tiers import SharedTiers, TierError
from cache.key import KEY_VERSION
from cache.record import ORDER

FORMAT = "tallygate counts 1"
KEY_BYTES = 32
BATCH = 200
MAX_LINE_BYTES = 2**18
MAX_HEADER_BYTES = 2**26


class Header(Struct, frozen=True):
    """An export's first line: a key means something only where all of this is the same."""

    format: str
    key_version: int
    secret: str
    """Fingerprint of the secret that keys and records were made with."""
    generations: dict[str, Annotated[int, Meta(ge=0, le=2**63 - 1)]]


class Line(Struct, frozen=True):
    """One remembered count."""

    key: str
    record: bytes
    expires_s: int
    """Seconds since 1970."""


class End(Struct, frozen=True):
    """An export's last line."""

    counts: int


class ArchiveError(Exception):
    """A file that is not imported, or not as a whole; the text is for the operator."""


class Exported(Struct):
    """What an export has done."""

    counts: int = 0
    bad: int = 0
    """Not this installation's, or damaged: left out."""


class Imported(Struct):
    """What an import has done with each line."""

    imported: int = 0
    purged: int = 0
    """Of a generation that was purged: nobody would find them."""
    expired: int = 0
    bad: int = 0


_headers = msgspec.json.Decoder(Header)
_lines = msgspec.json.Decoder(Line)
_ends = msgspec.json.Decoder(End)


async def write_archive(
    tiers: SharedTiers,
    secret: str,
    now_s: float,
    write: Callable[[bytes], object],
    advance: Callable[[int], None],
) -> Exported:
    """Write what the tiers hold. Raises TierError, and then what was written lacks its end."""
    done = Exported()
    generations = (await tiers.generations()).ahead_of({})
    write(_encode(Header(FORMAT, KEY_VERSION, secret, generations)))
    for key, data, expires_s in tiers.host_items():
        advance(1)
        if tiers.read(key, data) is None:
            done.bad += 1
            continue
        write(_encode(Line(key.hex(), data, expires_s)))
        done.counts += 1
    async for key, data, ttl_s in _only_in_cluster(tiers):
        advance(1)
        if tiers.read(key, data) is None:
            done.bad += 1
            continue
        expires_s = int(min(now_s + ttl_s, 2**62))
        write(_encode(Line(key.hex(), data, expires_s)))
        done.counts += 1
    write(_encode(End(done.counts)))
    return done


async def _only_in_cluster(tiers: SharedTiers) -> AsyncIterator[tuple[bytes, bytes, float]]:
    """Walk through what the host does not hold, or holds an older count of."""
    async for key, data, ttl_s in tiers.cluster_items():
        held = tiers.on_host(key)
        if held is None or tiers.read(key, held) is None or held[ORDER] < data[ORDER]:
            yield key, data, ttl_s


def _encode(line: Header | Line | End) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def read_header(stream: IO[bytes], secret: str) -> Header:
    """Read the first line. Raises ArchiveError for what this installation cannot use."""
    try:
        header = _headers.decode(stream.readline(MAX_HEADER_BYTES))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ArchiveError("not an export of counts: its first line is none of ours") from None
    if header.format != FORMAT:
        raise ArchiveError(f"format {header.format!r}; this version reads {FORMAT!r}")
    if header.key_version != KEY_VERSION:
        raise ArchiveError(f"keys of version {header.key_version}; this one's are {KEY_VERSION}")
    if header.secret != secret:
        raise ArchiveError(
            "made under another secret: its keys mean nothing here; set cache.key_secret, or else "
            "general_settings.master_key, to what it was where the export was made"
        )
    return header


class Importer:
    """Judges one line after another, and hands what is good to the tiers, which keep the newest."""

    def __init__(
        self,
        tiers: SharedTiers,
        generations: Mapping[str, int],
        wall_clock: Callable[[], float],
        keep_s: float,
    ) -> None:
        self.done = Imported()
        self._tiers = tiers
        self._generations = generations
        self._wall_clock = wall_clock
        self._keep_s = keep_s
        self._retries = 0
        self._dropped = tiers.host.dropped if tiers.host is not None else 0

    async def read(self, stream: IO[bytes], advance: Callable[[int], None]) -> None:
        """Import every line, and wait until all is committed. Raises TierError, ArchiveError."""
        batch: list[tuple[bytes, bytes, float]] = []
        end: End | None = None
        read = 0
        while end is None and (line := stream.readline(MAX_LINE_BYTES)):
            advance(len(line))
            if end := _end(line):
                break
            read += 1
            if good := self._judge(line):
                batch.append(good)
            if len(batch) == BATCH:
                await self._put(batch)
                batch = []
        await self._put(batch)
        self._tiers.flush_host()
        self._check_host()
        if end is None:
            raise ArchiveError("ends before its last line: it was cut off")
        if end.counts != read:
            raise ArchiveError(f"has {read} counts where it was written with {end.counts}")

    def _judge(self, line: bytes) -> tuple[bytes, bytes, float] | None:
        try:
            given = _lines.decode(line)
            key = bytes.fromhex(given.key)
        except (msgspec.DecodeError, ValueError):
            self.done.bad += 1
            return None
        record = self._tiers.read(key, given.record)
        ttl_s = given.expires_s - self._wall_clock()
        if record is None or len(key) != KEY_BYTES:
            self.done.bad += 1
        elif record.generation < self._generations.get(record.upstream_model, 0):
            self.done.purged += 1
        elif ttl_s <= 0:
            self.done.expired += 1
        else:
            return key, given.record, min(ttl_s, self._keep_s)
        return None

    async def _put(self, batch: list[tuple[bytes, bytes, float]]) -> None:
        if self._tiers.host is not None:
            for key, data, ttl_s in batch:
                while not self._tiers.host.put_soon(key, data, ttl_s):
                    self._retries += 1
                    self._tiers.flush_host()
        if self._tiers.cluster is not None:
            failed = _failures(self._tiers)
            async with asyncio.TaskGroup() as group:
                for key, data, ttl_s in batch:
                    group.create_task(self._tiers.cluster.land(key, b"", data, ttl_s))
            if _failures(self._tiers) != failed:
                raise TierError("cluster: did not take every count; run this again")
        self.done.imported += len(batch)

    def _check_host(self) -> None:
        host = self._tiers.host
        if host is not None and host.dropped - self._dropped > self._retries:
            raise TierError(f"host: did not take every count: {host.trouble or 'run this again'}")


def _end(line: bytes) -> End | None:
    if not line.startswith(b'{"counts":'):
        return None
    try:
        return _ends.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _failures(tiers: SharedTiers) -> int:
    if tiers.cluster is None:
        return 0
    counters = tiers.cluster.counters
    return counters.errors + counters.not_asked + counters.crowded


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file of mode 0600 that takes its name only once it is whole. Raises OSError."""
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(None, "not a regular file; - is standard output", str(path))
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
