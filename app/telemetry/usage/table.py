"""What is in the ledger's file: the tables, and how rows are added, folded and deleted."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from app.log import logger
from cache.private_sqlite import transaction

OTHER = "other"
"""Who is not told apart from others."""
HOUR_MINUTES, DAY_MINUTES = 60, 1_440
MAX_STEPS = 48
"""Hours that are pruned or folded in a minute."""
SCHEMA = (
    """
    CREATE TABLE usage (
      minute INTEGER NOT NULL, -- since 1970
      caller TEXT NOT NULL, end_user TEXT NOT NULL, model TEXT NOT NULL,
      upstream_model TEXT NOT NULL, provider TEXT NOT NULL, source TEXT NOT NULL,
      requests INTEGER NOT NULL, input_tokens INTEGER NOT NULL, upstream_calls INTEGER NOT NULL,
      errors INTEGER NOT NULL, upstream_calls_saved INTEGER NOT NULL,
      PRIMARY KEY (minute, caller, end_user, model, upstream_model, provider, source)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE state (name TEXT PRIMARY KEY, minute INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO state VALUES ('tidied', 0), ('folded', 0)",
)
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
  requests = requests + excluded.requests,
  input_tokens = input_tokens + excluded.input_tokens,
  upstream_calls = upstream_calls + excluded.upstream_calls,
  errors = errors + excluded.errors,
  upstream_calls_saved = upstream_calls_saved + excluded.upstream_calls_saved
"""
_CLAIM = "UPDATE state SET minute = ?1 WHERE name = 'tidied' AND (minute < ?1 OR minute > ?1 + 1)"
_FOLDED = """
SELECT ?1 / 60 * 60, caller, CASE end_user WHEN '' THEN '' ELSE 'other' END, model,
  CASE upstream_model WHEN '' THEN '' ELSE 'other' END, provider, source,
  sum(requests), sum(input_tokens), sum(upstream_calls), sum(errors), sum(upstream_calls_saved)
FROM usage WHERE minute >= ?1 AND minute < ?2 GROUP BY 2, 3, 4, 5, 6, 7
"""
_DELETE = "DELETE FROM usage WHERE minute >= ? AND minute < ?"


class Row(NamedTuple):
    """What some names used in one minute."""

    minute: int
    caller: str
    end_user: str
    model: str
    upstream_model: str
    provider: str
    source: str
    requests: int
    input_tokens: int
    upstream_calls: int
    errors: int
    upstream_calls_saved: int


def add(writer: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Add rows to those of the same names and minute."""
    writer.executemany(_ADD, rows)


def claim(writer: sqlite3.Connection, minute: int) -> bool:
    """Say whether it is on this process to tidy up in this minute."""
    return writer.execute(_CLAIM, (minute,)).rowcount > 0


def prune(writer: sqlite3.Connection, before: int) -> None:
    """Delete what was counted before a minute."""
    for _ in range(MAX_STEPS):
        first = _first(writer, 0)
        if first is None or first >= before:
            return
        with transaction(writer):
            writer.execute(_DELETE, (first, min(first + HOUR_MINUTES, before)))


def fold(writer: sqlite3.Connection, minute: int, max_rows: int) -> None:
    """Make hours of the oldest minutes, without end users; at last, forget the oldest hour."""
    for _ in range(MAX_STEPS):
        (rows,) = writer.execute("SELECT count(*) FROM usage").fetchone()
        if rows <= max_rows:
            return
        ask = "SELECT minute FROM state WHERE name = 'folded'"
        first = _first(writer, writer.execute(ask).fetchone()[0])
        until = minute - 1  # what is being written is left alone
        with transaction(writer):
            if first is None or first >= until:
                first = _first(writer, 0) or 0
                if first >= until:
                    return
                writer.execute(_DELETE, (first, min(first + HOUR_MINUTES, until)))
                logger.warning("telemetry.usage: over max_rows, its oldest hour is forgotten")
                continue
            until = min(first // HOUR_MINUTES * HOUR_MINUTES + HOUR_MINUTES, until)
            folded = writer.execute(_FOLDED, (first, until)).fetchall()
            writer.execute(_DELETE, (first, until))
            add(writer, folded)
            writer.execute("UPDATE state SET minute = ? WHERE name = 'folded'", (until,))


def _first(writer: sqlite3.Connection, least: int) -> int | None:
    ask = "SELECT min(minute) FROM usage WHERE minute >= ?"
    first: int | None = writer.execute(ask, (least,)).fetchone()[0]
    return first
