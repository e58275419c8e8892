"""What the ledger answers, as JSON or CSV."""

import csv
import io
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from app.telemetry.usage.query import GROUPS, SUMS, TIMES, Query
from cache.private_sqlite import HostFileError, code_of, connect, private_status

QUERY_S = 5.0
_STEPS = 100_000
"""Of SQLite's machine, between two looks at the clock."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Value = str | int


class ReportError(Exception):
    """The ledger cannot be read; the text is for the operator."""


class SlowReportError(Exception):
    """It takes longer than QUERY_S."""


class Report(Struct, frozen=True):
    """Rows of the groups' values and the sums, of which there may have been more."""

    query: Query
    rows: list[tuple[Value, ...]]
    truncated: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Name what stands in a row."""
        return (*self.query.group_by, *SUMS)


def read_report(path: Path, query: Query) -> Report:
    """Ask the file; there need be none. Raises ReportError, SlowReportError."""
    rows: list[tuple[Value, ...]] = []
    try:
        if private_status(path) is not None:
            with closing(connect(path, "ro")) as reader:
                rows = _rows(reader, query)
    except (OSError, sqlite3.Error, HostFileError) as error:
        if code_of(error) == sqlite3.SQLITE_INTERRUPT:
            raise SlowReportError from None
        raise ReportError(f"{path}: {error}") from error
    return Report(query, rows[: query.limit], len(rows) > query.limit)


def _rows(reader: sqlite3.Connection, query: Query) -> list[tuple[Value, ...]]:
    """Read one row more than is wanted: then there was more."""
    (version,) = reader.execute("PRAGMA user_version").fetchone()
    if not version:
        return []
    until_s = time.monotonic() + QUERY_S
    reader.set_progress_handler(lambda: int(time.monotonic() > until_s), _STEPS)
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in SUMS)
    groups = [GROUPS[name] for name in query.group_by]
    only = "".join(f" AND {GROUPS[name]} = ?" for name in query.only)
    times = [GROUPS[name] for name in TIMES if name in query.group_by]
    ask = f"SELECT {', '.join([*groups, sums])} FROM usage WHERE minute >= ? AND minute < ?{only}"  # noqa: S608 -- of our own words
    if groups:
        order = ", ".join([*times, "sum(requests) DESC", *groups])
        ask += f" GROUP BY {', '.join(groups)} ORDER BY {order} LIMIT ?"
    values: list[Value] = [query.since, query.until, *query.only.values()]
    found = reader.execute(ask, [*values, query.limit + 1] if groups else values)
    at = [index for index, name in enumerate(query.group_by) if name in TIMES]
    return [_with_times(row, at) for row in found]


def _with_times(row: tuple[Value, ...], at: list[int]) -> tuple[Value, ...]:
    if not at:
        return row
    values = list(row)
    for index in at:
        values[index] = rfc3339(int(values[index]) * 60)
    return tuple(values)


def rfc3339(time_s: float) -> str:
    """Write a time in whole seconds, of UTC."""
    seconds = min(max(int(time_s), 0), _LAST_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


_LAST_S = 253_402_300_799
"""Of the year 9999."""


def as_json(report: Report, complete_until_s: float | None = None) -> bytes:
    """Write an object; row by row, so that other threads come in between."""
    query, encode = report.query, msgspec.json.encode
    head = {
        "object": "usage",
        "since": rfc3339(query.since * 60),
        "until": rfc3339(query.until * 60),
        **({} if complete_until_s is None else {"complete_until": rfc3339(complete_until_s)}),
        "group_by": list(query.group_by),
        "truncated": report.truncated,
    }
    columns = report.columns
    data = b",".join([encode(dict(zip(columns, row, strict=True))) for row in report.rows])
    return b'%b,"data":[%b]}' % (encode(head)[:-1], data)


def as_csv(report: Report) -> bytes:
    """Write RFC 4180 with a header; what a spreadsheet takes for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(report.columns)
    for row in report.rows:
        writer.writerow([_harmless(value) for value in row])
    return text.getvalue().encode()


def _harmless(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
