"""``GET /usage``: who asked how much, from the ledger that all workers of this machine write."""

import asyncio
from http import HTTPStatus
from urllib.parse import parse_qsl

from msgspec.structs import replace
from sanic.request import Request
from sanic.response import HTTPResponse

from app.errors import (
    ProxyError,
    forbidden,
    invalid_request,
    not_found,
    overloaded,
    timed_out,
)
from app.ids import new_request_id
from app.log import warn_operator
from app.origin import from_this_machine
from app.replies import JSON
from app.telemetry.usage import Usage
from app.telemetry.usage.ledger import FLUSH_S
from app.telemetry.usage.query import PARAMETERS, BadQueryError, Query, parse
from app.telemetry.usage.report import (
    ReportError,
    SlowReportError,
    as_csv,
    as_json,
    read_report,
    rfc3339,
)
from app.workers import WALL_CLOCK, Worker

CSV = "text/csv; charset=utf-8"
MAX_WAITING = 8
"""Reports that wait for the one that is being made."""


async def usage(request: Request) -> HTTPResponse:
    """``GET /usage``: all of it for the master key, its own for another key.

    Without any configured key for this machine only. Raises ProxyError.
    """
    worker: Worker = request.app.ctx.worker
    query = _allowed(request, worker, _query(request.query_string))
    ledger = worker.usage
    if ledger.file is None:
        raise not_found("the ledger is switched off: set telemetry.usage.enabled")
    if ledger.waiting_readers >= MAX_WAITING:
        raise overloaded("too many reports at a time", 1)
    ledger.waiting_readers += 1
    try:
        loop = asyncio.get_running_loop()
        body, headers = await loop.run_in_executor(ledger.readers, _report, ledger, query)
    except SlowReportError:
        raise timed_out("the report takes too long: ask for less with since and until") from None
    except ReportError as error:
        warn_operator(f"telemetry.usage: {error}")
        message = "the ledger cannot be read"
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        raise ProxyError(status, "api_error", message, reason=message) from None
    finally:
        ledger.waiting_readers -= 1
    kind = JSON if query.format == "json" else CSV
    headers["request-id"] = new_request_id()
    return HTTPResponse(body, headers=headers, content_type=kind)


def _query(query_string: str) -> Query:
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, max_num_fields=2 * len(PARAMETERS))
        return parse(pairs, WALL_CLOCK())
    except ValueError as error:
        text = str(error) if isinstance(error, BadQueryError) else "too many parameters"
        raise invalid_request(text) from None


def _allowed(request: Request, worker: Worker, query: Query) -> Query:
    """Let a key see what is its own."""
    caller = worker.authenticator.caller(request.headers)
    if not worker.settings.keys:
        if not from_this_machine(request.ip, request.headers):
            raise forbidden("without a configured key this is for this machine only")
        return query
    if caller.is_master:
        return query
    if query.only.get("key", caller.name) != caller.name:
        raise forbidden("key: this key sees its own use only")
    return replace(query, only={**query.only, "key": caller.name})


def _report(ledger: Usage, query: Query) -> tuple[bytes, dict[str, str]]:
    """Write what this worker has counted, and read the file."""
    ledger.flush()
    if ledger.file is None:
        raise ReportError("switched off")
    report = read_report(ledger.file.path, query)
    # Other workers have written theirs as well by then, unless the file takes nothing.
    complete_until_s = ledger.complete_until_s - 2 * FLUSH_S
    headers = {
        "cache-control": "no-store",
        "x-tallygate-complete-until": rfc3339(complete_until_s),
        "x-tallygate-truncated": "true" if report.truncated else "false",
    }
    body = as_json(report, complete_until_s) if query.format == "json" else as_csv(report)
    return body, headers
