"""A remembered count, and the bytes in which tiers outside this process keep it.

    ┌───────┬─────────────┬──────────────┬──────────────┬────────────┬─────────┬─────────┬─────┐
    │ TG 01 │ asked_at_ns │ counted_at_s │ input_tokens │ generation │ lengths │ texts   │ MAC │
    │ 3 B   │ 8 B         │ 8 B          │ 8 B          │ 8 B        │ 8 B     │         │ 16 B│
    └───────┴─────────────┴──────────────┴──────────────┴────────────┴─────────┴─────────┴─────┘

Integers are big-endian, so that a store can tell the later of two records by comparing bytes
(``ORDER``). The MAC covers the key and all that stands before it: a record that is corrupt, cut,
foreign, or that stands under another key is refused, and a refused record is a miss.
"""

import hashlib
import hmac
import struct

from msgspec import Struct

MAGIC = b"TG\x01"
ORDER = slice(3, 11)
"""Where ``asked_at_ns`` stands: of two records under one key the greater is the newer."""
_HEAD = struct.Struct(">3sQQQQHHI")
_MAC_BYTES = 16
MAX_BYTES = 65_536
"""No record is longer: a provider's extra reply fields are small."""


class Record(Struct, frozen=True, gc=False):
    """One remembered count: what the provider said, and when it was asked and answered."""

    input_tokens: int
    counted_at_s: int
    """Seconds since 1970."""
    extra: bytes = b""
    """Raw JSON members to follow ``"input_tokens":N`` (`adapters.base.Count`)."""
    dropped: bytes = b""
    """Names of what the provider's format has no place for, joined by commas."""
    asked_at_ns: int = 0
    """Nanoseconds since 1970: the count whose question took off later is the newer one."""
    upstream_model: str = ""
    generation: int = 0
    """Of the model, when it was asked (`cache.generations`)."""


class BadRecordError(Exception):
    """Bytes that are no record of this key, this secret and this version."""


class Codec:
    """Writes and reads records; what another secret wrote is refused."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.sha256(secret).digest()

    def encode(self, key: bytes, record: Record) -> bytes:
        """Write a record for its place under ``key``. Raises ValueError when it is too long."""
        model = record.upstream_model.encode()
        head = _HEAD.pack(
            MAGIC,
            record.asked_at_ns,
            record.counted_at_s,
            record.input_tokens,
            record.generation,
            len(model),
            len(record.dropped),
            len(record.extra),
        )
        data = b"".join((head, model, record.dropped, record.extra))
        if len(data) + _MAC_BYTES > MAX_BYTES:
            raise ValueError("a record longer than any count's")
        return data + self._mac(key, data)

    def decode(self, key: bytes, data: bytes) -> Record:
        """Read what ``encode`` wrote under the same key. Raises BadRecordError."""
        if not _HEAD.size + _MAC_BYTES <= len(data) <= MAX_BYTES or data[:3] != MAGIC:
            raise BadRecordError("no record of this version")
        body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if not hmac.compare_digest(self._mac(key, body), mac):
            raise BadRecordError("not written under this key with this secret")
        _, asked, counted, tokens, generation, *lengths = _HEAD.unpack_from(body)
        model_end = _HEAD.size + lengths[0]
        dropped_end = model_end + lengths[1]
        return Record(
            input_tokens=tokens,
            counted_at_s=counted,
            extra=body[dropped_end:],
            dropped=body[model_end:dropped_end],
            asked_at_ns=asked,
            upstream_model=body[_HEAD.size : model_end].decode(),
            generation=generation,
        )

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hashlib.blake2b(key + data, digest_size=_MAC_BYTES, key=self._secret).digest()
