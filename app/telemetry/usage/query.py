"""What may be asked of the ledger: the parameters of ``GET /usage``, and of the command."""

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from app.telemetry.inert import inert

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
_SPAN_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_span = re.compile(r"([0-9]{1,6})([smhdw])").fullmatch
_has_time_and_offset = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
"""As RFC 3339 has it; Python takes more."""
_space_for_plus = re.compile(r"(.*T.*) ([0-9]{2}:[0-9]{2})").fullmatch


class BadQueryError(ValueError):
    """What is asked for has no answer: says what, where, and what to do."""


class Query(Struct, frozen=True):
    """What is asked of the ledger: from the minute ``since`` to before the minute ``until``."""

    since: int
    until: int
    group_by: tuple[str, ...] = ()
    only: Mapping[str, str] = {}
    """What a column has to be."""
    format: str = "json"
    limit: int = DEFAULT_LIMIT


def parse(pairs: Iterable[tuple[str, str]], now_s: float) -> Query:
    """Read the parameters of a question. Raises BadQueryError, which quotes none of it.

    Where a parameter is unknown a key may stand.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise BadQueryError(f"unknown parameter{_nearest(name, PARAMETERS)}; known: {known}")
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
        only={name: inert(given[name]) for name in FILTERS if name in given},
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
        near = _nearest(value, known)
        raise BadQueryError(f"{parameter}: must be of {', '.join(known)}{near}")
    return value


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name[:64], known, n=1)
    return f": did you mean {close[0]}?" if close else ""


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
