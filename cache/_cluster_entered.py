"""What a caller hears that enters: a value, a failure, the lease, or that somebody else has it."""

import re

import msgspec
from msgspec import Struct

from cache.failure import Failure

MAX_RETRY_AFTER_S = 3_600
_FAILURE_TYPE = re.compile(r"[a-z_]{1,32}")
_failures = msgspec.msgpack.Decoder(Failure)


class Found(Struct, frozen=True):
    """A value stands under the key; whether it is a record is the caller's to see."""

    value: bytes


class Failed(Struct, frozen=True):
    """The flight that this caller has waited for ended so."""

    failure: Failure


class Led(Struct, frozen=True):
    """The lease is this caller's own."""

    stale: bytes | None = None
    """What stands under the key, too old for this caller."""


class Held(Struct, frozen=True):
    """Somebody else is asking the provider."""

    stale: bytes | None = None
    """As above."""


class Away(Struct, frozen=True):
    """The server cannot be asked. The lease may have been taken all the same: land it as usual."""


Entered = Found | Failed | Led | Held | Away


def read_failure(data: bytes) -> Failure | None:
    """Believe no more of a failure than its shape: anybody on the server may have written it."""
    try:
        failure = _failures.decode(data)
    except (msgspec.DecodeError, ValueError):
        return None
    sane = (
        400 <= failure.status < 600  # noqa: PLR2004
        and _FAILURE_TYPE.fullmatch(failure.type)
        and 0 <= failure.retry_after_s <= MAX_RETRY_AFTER_S
        and len(failure.credential) in (0, 8)
    )
    return failure if sane else None
