"""What can be wrong with the cluster's server, in words that are safe to log."""

import ssl
from socket import gaierror
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

KINDS: Final = {
    "NOAUTH": "password missing",
    "WRONGPASS": "user or password refused",
    "NOPERM": "this user may not run the commands needed",
    "LOADING": "still loading its data",
    "READONLY": "a read-only replica",
    "OOM": "its memory is full, and it evicts nothing",
    "MISCONF": "it cannot save, and takes no writes",
    "MASTERDOWN": "a replica without its master",
    "BUSY": "busy with a script",
    "CLUSTERDOWN": "its cluster is down",
    "MOVED": "a Redis Cluster that keeps our keys elsewhere",
    "CROSSSLOT": "a Redis Cluster that keeps our keys elsewhere",
}
"""What the first word of an error reply means; the rest of a reply is never repeated."""


class AwayError(Exception):
    """The server cannot be asked, or what it said cannot be understood."""


def kind_of(error: BaseException) -> str:
    """Say what went wrong, without the error's text: that may quote a key or a password."""
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "silent"
    cause: BaseException | None = error
    while cause is not None:
        for kinds, kind in _CAUSES:
            if isinstance(cause, kinds):
                return kind
        cause = cause.__cause__ or cause.__context__
    # Before Redis 7, an error inside a script is reported around the original one.
    words = f"{getattr(error, 'status_code', None) or ''} {error}".replace("-", " ").split()
    for word in words if isinstance(error, RedisError) else ():
        if word in KINDS:
            return KINDS[word]
    lost = isinstance(error, OSError | RedisConnectionError)
    return "connection lost" if lost else type(error).__name__


_CAUSES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (ConnectionRefusedError, "refused"),
    (ConnectionResetError, "connection lost"),
    (gaierror, "its name is not known"),
    (ssl.SSLError, "TLS failed"),
    (InvalidResponse, "no Redis or Valkey server"),
    (AwayError, "an answer that cannot be understood"),
)
