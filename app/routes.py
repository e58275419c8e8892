"""HTTP in, HTTP out: each handler reads what it needs and hands the rest to the counter."""

import os
from collections.abc import Callable
from functools import partial

import msgspec
from sanic import Sanic
from sanic.request import Request
from sanic.response import HTTPResponse

from app.count_handler import CountHandler
from app.errors import forbidden, not_found
from app.ids import new_request_id
from app.openapi import document
from app.origin import from_this_machine
from app.page import page
from app.replies import JSON, CacheStats, Memo, Model, ModelList, Readiness, Taken
from app.status import gauges, status_of
from app.status_reply import Status
from app.usage_handler import usage
from app.workers import Worker

READ = ["GET", "HEAD"]


def add_routes(app: Sanic) -> None:  # type: ignore[type-arg]
    """Register every path this server answers."""
    add = app.add_route
    add(count_tokens, "/v1/messages/count_tokens", methods=["POST"], name="count")
    add(count_native, "/anthropic/v1/messages/count_tokens", methods=["POST"], name="native")
    add(messages, "/v1/messages", methods=["POST"], name="messages")
    add(models, "/v1/models", methods=READ, name="models")
    add(event_logging, "/api/event_logging/batch", methods=["POST"], name="event_logging")
    add(metrics, "/metrics", methods=READ, name="metrics")
    add(cache_stats, "/cache/stats", methods=READ, name="cache_stats")
    add(usage, "/usage", methods=READ, name="usage")
    add(liveness, "/health/liveliness", methods=READ, name="liveliness")
    add(liveness, "/health/liveness", methods=READ, name="liveness")
    add(readiness, "/health/readiness", methods=READ, name="readiness")
    add(openapi, "/openapi.json", methods=READ, name="openapi")
    add(status, "/status", methods=READ, name="status")
    add(status_stream, "/status/stream", methods=["GET"], name="status_stream")
    add(status_page, "/", methods=READ, name="page")
    add(status_page, "/ui", methods=READ, name="ui")
    add(docs_page, "/docs", methods=READ, name="docs")


async def count_tokens(request: Request) -> HTTPResponse:
    """``POST /v1/messages/count_tokens``; any query is ignored."""
    return await CountHandler(request, "messages").respond()


async def count_native(request: Request) -> HTTPResponse:
    """``POST /anthropic/v1/messages/count_tokens``: native ids, every field and the query kept."""
    return await CountHandler(request, "pass_through").respond()


async def messages(request: Request) -> HTTPResponse:
    """``POST /v1/messages``: not ours; say where it belongs."""
    del request
    raise not_found(
        "this server counts tokens only; route /v1/messages to your model gateway and "
        "/v1/messages/count_tokens here, as docs/beside-a-gateway.md shows"
    )


async def models(request: Request) -> HTTPResponse:
    """``GET /v1/models``: the names that this caller may use."""
    worker: Worker = request.app.ctx.worker
    caller = worker.authenticator.caller(request.headers)
    names = [name for name in worker.router.names() if caller.may_count((name,))]
    return _json(ModelList([Model(name) for name in names]))


async def event_logging(request: Request) -> HTTPResponse:
    """``POST /api/event_logging/batch``: Claude Code's telemetry, taken and forgotten."""
    del request
    return _json(Taken())


async def metrics(request: Request) -> HTTPResponse:
    """``GET /metrics``: open to this machine, else to any valid key."""
    worker: Worker = request.app.ctx.worker
    if not from_this_machine(request.ip, request.headers):
        worker.authenticator.caller(request.headers)
    return HTTPResponse(
        worker.metrics.render(gauges(worker)),
        headers={"request-id": new_request_id()},
        content_type="text/plain; version=0.0.4; charset=utf-8",
    )


async def cache_stats(request: Request) -> HTTPResponse:
    """``GET /cache/stats``: what this worker remembers, for the master key only.

    Without any configured key for this machine only.
    """
    worker: Worker = request.app.ctx.worker
    caller = worker.authenticator.caller(request.headers)
    is_near = from_this_machine(request.ip, request.headers)
    allowed = caller.is_master if worker.settings.keys else is_near
    if not allowed:
        raise forbidden("this is for the master key only")
    shown = CacheStats(
        worker=os.getpid(),
        memo=Memo(len(worker.repeats)),
        **await worker.tiers.stats(),
        tallygate_cache_total=worker.metrics.cache_totals(),
    )
    return _json(shown)


async def liveness(request: Request) -> HTTPResponse:
    """``GET /health/liveliness``: this worker's loop turns."""
    del request
    return _json("I'm alive!")


async def readiness(request: Request) -> HTTPResponse:
    """``GET /health/readiness``: this server takes requests; 503 from SIGTERM on."""
    if request.app.ctx.shutting_down:
        return _json(Readiness("shutting_down"), 503)
    return _json(Readiness("healthy"))


async def openapi(request: Request) -> HTTPResponse:
    """``GET /openapi.json``: open to everybody; it tells nothing of this configuration."""
    del request
    return _json(msgspec.Raw(document()))


async def status(request: Request) -> HTTPResponse:
    """``GET /status``: how this server does, for any valid key as far as it may know.

    Without any configured key for this machine only.
    """
    return _json(_snapshot(request)(), cache_control="no-store")


async def status_stream(request: Request) -> None:
    """``GET /status/stream``: the same once a second, one JSON object on each line."""
    await request.app.ctx.streams.run(request, _snapshot(request))


def _snapshot(request: Request) -> Callable[[], Status]:
    worker: Worker = request.app.ctx.worker
    caller = worker.authenticator.caller(request.headers)
    has_keys = bool(worker.settings.keys)
    if not has_keys and not from_this_machine(request.ip, request.headers):
        raise forbidden("without a configured key this is for callers on this machine only")
    return partial(status_of, worker, caller, sees_all=caller.is_master or not has_keys)


async def status_page(request: Request) -> HTTPResponse:
    """``GET /``: the page; it holds no data, and is open to everybody."""
    del request
    return _page("status")


async def docs_page(request: Request) -> HTTPResponse:
    """``GET /docs``: /openapi.json as a page."""
    del request
    return _page("docs")


def _page(name: str) -> HTTPResponse:
    shown = page(name)
    headers = {"request-id": new_request_id(), **shown.headers}
    return HTTPResponse(shown.body, headers=headers, content_type="text/html; charset=utf-8")


def _json(value: object, status: int = 200, **more: str) -> HTTPResponse:
    headers = {"request-id": new_request_id()}
    headers |= {name.replace("_", "-"): text for name, text in more.items()}
    body = msgspec.json.encode(value)
    return HTTPResponse(body, status=status, headers=headers, content_type=JSON)
