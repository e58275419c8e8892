"""Questions to the ledger, and their answers as JSON or CSV: for ``GET /usage`` and the command."""

import csv
import difflib
import io
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from cache.private_sqlite import HostFileError, connect, private_status

GROUPS = {
    "key": "caller",
    "end_user": "end_user",
    "model": "model",
    "upstream_model": "upstream_model",
    "provider": "provider",
    "source": "source",
    "minute": "minute",
    "hour": "minute / 60 * 60",
    "day": "minute / 1440 * 1440",
}
TIMES = ("minute", "hour", "day")
SUMS = ("requests", "input_tokens", "upstream_calls", "errors", "upstream_calls_saved")
FILTERS = ("key", "end_user", "model", "upstream_model", "provider", "source")
FORMATS = ("json", "csv")
PARAMETERS = ("group_by", "since", "until", "format", "limit", *FILTERS)
DEFAULT_SINCE, DEFAULT_LIMIT, MAX_LIMIT = "24h", 1_000, 100_000
QUERY_S = 5.0
_STEPS = 100_000
"""Of SQLite's machine, between two looks at the clock."""
_SPAN_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_span = re.compile(r"([0-9]{1,6})([smhdw])").fullmatch
_has_time_and_offset = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
"""As RFC 3339 has it; Python takes more."""
_space_for_plus = re.compile(r"(.*T.*) ([0-9]{2}:[0-9]{2})").fullmatch
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Value = str | int


class BadQueryError(ValueError):
    """What is asked for has no answer: says what, where, and what to do."""


class ReportError(Exception):
    """The ledger cannot be read; the text is for the operator."""


class SlowReportError(Exception):
    """It takes longer than QUERY_S."""


class Query(Struct, frozen=True):
    """What is asked of the ledger: from the minute ``since`` to before the minute ``until``."""

    since: int
    until: int
    group_by: tuple[str, ...] = ()
    only: Mapping[str, str] = {}
    """What a column has to be."""
    format: str = "json"
    limit: int = DEFAULT_LIMIT


class Report(Struct, frozen=True):
    """Rows of the groups' values and the sums, of which there may have been more."""

    query: Query
    rows: list[tuple[Value, ...]]
    truncated: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Name what stands in a row."""
        return (*self.query.group_by, *SUMS)


def parse(pairs: Iterable[tuple[str, str]], now_s: float) -> Query:
    """Read the parameters of a question. Raises BadQueryError."""
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            raise BadQueryError(f"{name[:64]}: unknown parameter{_nearest(name, PARAMETERS)}")
        if name in given:
            raise BadQueryError(f"{name}: given twice; give it once, several values by commas")
        given[name] = value
    since_s = _time("since", given.get("since") or DEFAULT_SINCE, now_s)
    until_s = _time("until", given["until"], now_s) if given.get("until") else now_s
    if until_s <= since_s:
        raise BadQueryError("until: must be later than since")
    return Query(
        since=int(since_s // 60),
        until=int(-(-until_s // 60)),
        group_by=_groups(given.get("group_by", "")),
        only={name: given[name] for name in FILTERS if name in given},
        format=_one_of("format", given.get("format", "json"), FORMATS),
        limit=_limit(given.get("limit", str(DEFAULT_LIMIT))),
    )


def _groups(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",")) if value else ()
    for name in names:
        _one_of("group_by", name, tuple(GROUPS))
    if len(set(names)) < len(names):
        raise BadQueryError("group_by: names one twice")
    return names


def _one_of(parameter: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        shown = value[:64]
        near = _nearest(value, known)
        raise BadQueryError(f"{parameter}: {shown} is none of {', '.join(known)}{near}")
    return value


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name[:64], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _limit(value: str) -> int:
    limit = int(value) if value.isascii() and value.isdigit() and len(value) <= len("100000") else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise BadQueryError(f"limit: must be a whole number from 1 to {MAX_LIMIT}")
    return limit


def _time(parameter: str, value: str, now_s: float) -> float:
    """Read a span back from now, or a time of RFC 3339."""
    if span := _span(value):
        return now_s - int(span[1]) * _SPAN_S[span[2]]
    if plus := _space_for_plus(value):  # an offset's + that was not encoded in a query
        value = f"{plus[1]}+{plus[2]}"
    try:
        found = datetime.fromisoformat(value) if _has_time_and_offset(value) else None
    except ValueError:
        found = None
    if found is None:
        raise BadQueryError(
            f"{parameter}: must be a time such as 2026-11-29T08:00:00Z, or a span such as 90m, 24h "
            "or 7d"
        )
    return found.timestamp()


def read_report(path: Path, query: Query) -> Report:
    """Ask the file; there need be none. Raises ReportError, SlowReportError."""
    rows: list[tuple[Value, ...]] = []
    try:
        if private_status(path) is not None:
            with closing(connect(path, "ro")) as reader:
                rows = _rows(reader, query)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise SlowReportError from None
        raise ReportError(f"{path}: {error}") from error
    except (OSError, sqlite3.Error, HostFileError) as error:
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
