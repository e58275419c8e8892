"""``python -m app usage``: the ledger as a table, whether a server runs or not."""

import argparse
import sys
from typing import Any

from rich.cells import cell_len

from app.config import load
from app.memory import usage_path
from app.operate.commands import WALL_CLOCK
from app.operate.terminal import remark, say
from app.telemetry.inert import inert
from app.telemetry.usage.query import GROUPS, MAX_LIMIT, SUMS, BadQueryError, parse
from app.telemetry.usage.report import (
    Report,
    ReportError,
    SlowReportError,
    as_csv,
    as_json,
    read_report,
)

ASKED = ("since", "until", "group_by", "limit", "key", "model", "end_user")
UNNAMED = "-"


def add_usage_command(commands: Any) -> None:
    """Add ``usage``."""
    usage = commands.add_parser("usage", help="who asked how much, and what was saved")
    usage.add_argument("--config", help="default: $TALLYGATE_CONFIG, else ./config.yaml")
    usage.add_argument("--since", default="24h", help="a time, or a span such as 90m, 24h, 7d")
    usage.add_argument("--until", help="likewise; default: now")
    usage.add_argument(
        "--group-by", default="key,end_user,model", help=f"of {', '.join(GROUPS)}; '' is one total"
    )
    usage.add_argument("--key", help="of this key's name only")
    usage.add_argument("--model", help="of this model only, as it is configured")
    usage.add_argument("--end-user", help="of this end user only")
    usage.add_argument("--limit", help=f"rows, {MAX_LIMIT} at most; default: 1000")
    usage.add_argument("--format", choices=("table", "json", "csv"), default="table")
    usage.set_defaults(run=_usage)


def _usage(options: argparse.Namespace) -> int:
    settings = load(options.config)
    given = {name: getattr(options, name) for name in ASKED}
    try:
        pairs = [(name, value) for name, value in given.items() if value is not None]
        query = parse(pairs, WALL_CLOCK())
    except BadQueryError as error:
        remark("--" + str(error).replace("_", "-", 1))
        return 2
    path = usage_path(settings)
    if not path.exists():
        remark(f"{path}: nothing has been counted yet")
        return 1
    try:
        report = read_report(path, query)
    except SlowReportError:
        remark(f"{path}: takes too long; ask for less with --since and --until")
        return 1
    except ReportError as error:
        remark(str(error))
        return 1
    if options.format == "table":
        for line in table(report):
            say(line)
    else:
        written = as_json(report) + b"\n" if options.format == "json" else as_csv(report)
        sys.stdout.write(written.decode())
    if report.truncated:
        remark(f"cut after {query.limit} rows: see --limit")
    return 0


def table(report: Report) -> list[str]:
    """Align names to the left and sums to the right; what is no text is escaped."""
    names = len(report.query.group_by)
    cells = [[_shown(value) for value in row] for row in report.rows]
    if names and not report.truncated:
        sums = zip(*(row[names:] for row in report.rows), strict=True)
        totals = [sum(map(int, column)) for column in sums] or [0] * len(SUMS)
        cells.append(["total", *[""] * (names - 1), *map(_shown, totals)])
    heads = [*report.query.group_by, *(name.replace("_", " ") for name in SUMS)]
    lines = [heads, *cells]
    widths = [max(cell_len(line[at]) for line in lines) for at in range(len(heads))]
    return ["  ".join(_aligned(line, widths, names)).rstrip() for line in lines]


def _shown(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else inert(value) or UNNAMED


def _aligned(cells: list[str], widths: list[int], names: int) -> list[str]:
    aligned = []
    for at, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - cell_len(cell))
        aligned.append(cell + space if at < names else space + cell)
    return aligned
