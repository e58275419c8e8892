"""How values come into the host tier's file: many at once, and never an older one over a newer."""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from cache.record import ORDER

MOST_ROWS = 100
"""At once. Each step of SQLite's gives other threads the interpreter, and has to get it back."""
_ORDER = f"substr({{}}.value, {ORDER.start + 1}, {ORDER.stop - ORDER.start})"


class Row(NamedTuple):
    """A value under its key, until when it is kept, and what time it is: in seconds."""

    key: bytes
    value: bytes
    expires_s: int
    now_s: float


def put(rows: Sequence[Row], file: sqlite3.Connection) -> int:
    """Put rows, in their order; return how many were taken. Raises sqlite3.Error."""
    taken = 0
    for at in range(0, len(rows), MOST_ROWS):
        some = rows[at : at + MOST_ROWS]
        values = [value for row in some for value in row[:3]]
        taken += file.execute(_statement(len(some)), (*values, some[-1].now_s)).rowcount
    return taken


@lru_cache(MOST_ROWS)
def _statement(rows: int) -> str:
    return f"""
INSERT INTO counts (key, value, expires_s) VALUES {", ".join(["(?, ?, ?)"] * rows)}
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_s = excluded.expires_s
WHERE {_ORDER.format("excluded")} >= {_ORDER.format("counts")} OR counts.expires_s <= ?
"""  # noqa: S608 -- made of integers
