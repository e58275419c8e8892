"""Request ids: unique across workers and restarts, cheap enough for every hit."""

import itertools
import secrets

_PREFIX = f"req_{secrets.token_hex(8)}"
_numbers = itertools.count(1)


def new_request_id() -> str:
    """Return ``req_`` + 16 random hex digits of this process + a running number."""
    return f"{_PREFIX}{next(_numbers):08x}"
