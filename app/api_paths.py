"""Every path of the server: what it is for, what it takes, what it answers and refuses.

A path that is missing here, or is here alone, fails tests/e2e/test_openapi.py.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from app import replies
from app.status_reply import Status
from app.status_stream import NDJSON
from app.telemetry.usage.query import DEFAULT_LIMIT, DEFAULT_SINCE, FILTERS, GROUPS, MAX_LIMIT

Json = dict[str, Any]

_TEXT = {"type": "string"}

ALWAYS = {
    "400": "no well-formed HTTP request",
    "408": "the request did not arrive in time",
    "413": "larger than this server takes",
    "417": "an expectation other than 100-continue",
    "500": "a fault of this server",
    "529": "too many connections, or too many large requests at a time",
}
_KEY = {"401": "no key, or a wrong one"}
_STATUS = {**_KEY, "403": "no key is configured, and the caller is not on this machine"}
_HTML = "text/html"
_COUNT = {
    **_KEY,
    "400": "not JSON, a field twice, no well-formed HTTP, or what the provider refuses",
    "402": "the provider's billing, where the credential is the caller's own",
    "403": "this key may not use this model",
    "404": "a model that is not configured, or that the provider does not know",
    "409": "the provider's conflict",
    "413": "over this server's limit, or the provider's",
    "415": "not JSON, or compressed",
    "429": "the provider's limit, the deployment's, or the key's own",
    "502": "the provider is unreachable, gives no count, or refuses the server's own credential",
    "504": "no answer in time, or not in the cache where only-if-cached was asked",
    "529": "the provider is overloaded, or there is no room for more here",
    "4XX": "another refusal of the provider's, as it gave it",
    "5XX": "another failure of the provider's, as it gave it",
}


class Operation(Struct, frozen=True):
    """One method of one path; ``refusals`` are what it says by status, in Anthropic's shape."""

    method: str
    path: str
    summary: str
    reply: Any
    refusals: Mapping[str, str] = {}
    media_type: str = "application/json"
    counts: bool = False
    needs_key: bool = False
    query: tuple[Json, ...] = ()
    headers: tuple[str, ...] = ("request-id",)
    also_as: str = ""
    """Another media type that may be asked for."""


def _usage_query() -> tuple[Json, ...]:
    """Describe the parameters of ``GET /usage``; a list is written with commas."""
    time = {**_TEXT, "description": "RFC 3339, or a span back from now", "examples": ["90m", "7d"]}
    groups = {"type": "array", "items": {"type": "string", "enum": list(GROUPS)}}
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
    given: Json = {
        "group_by": {**groups, "uniqueItems": True},
        "since": {**time, "default": DEFAULT_SINCE},
        "until": time,
        "format": {"type": "string", "enum": ["json", "csv"], "default": "json"},
        "limit": limit,
        **dict.fromkeys(FILTERS, _TEXT),
    }
    return tuple(
        {"name": name, "in": "query", "schema": schema, "explode": False}
        for name, schema in given.items()
    )


OPERATIONS = (
    Operation(
        "post",
        "/v1/messages/count_tokens",
        "Count; any query is ignored",
        replies.Counted,
        _COUNT,
        counts=True,
        needs_key=True,
    ),
    Operation(
        "post",
        "/anthropic/v1/messages/count_tokens",
        "Count by Anthropic's own model ids: every field and the query go on as they are",
        replies.Counted,
        _COUNT,
        counts=True,
        needs_key=True,
    ),
    Operation("post", "/v1/messages", "Not served", None, {"404": "says where it belongs"}),
    Operation(
        "get",
        "/v1/models",
        "The names that the caller's key may use",
        replies.ModelList,
        _KEY,
        needs_key=True,
    ),
    Operation("post", "/api/event_logging/batch", "Takes and forgets", replies.Taken),
    Operation(
        "get",
        "/metrics",
        "Prometheus text; open to this machine, else to any valid key",
        str,
        _KEY,
        media_type="text/plain",
    ),
    Operation(
        "get",
        "/cache/stats",
        "What is remembered; for the master key",
        replies.CacheStats,
        _KEY | {"403": "another key than the master key"},
        needs_key=True,
    ),
    Operation(
        "get",
        "/usage",
        "Who asked how much: all for the master key, its own for another key",
        replies.UsageReport,
        {
            **_KEY,
            "400": "a parameter that is unknown, or has a value that is not allowed",
            "403": "another key's use",
            "404": "the ledger is switched off",
            "504": "the report takes too long",
        },
        needs_key=True,
        query=_usage_query(),
        headers=("request-id", "x-tallygate-complete-until", "x-tallygate-truncated"),
        also_as="text/csv",
    ),
    Operation("get", "/health/liveliness", "Whether the worker's loop turns", str),
    Operation("get", "/health/liveness", "The same, by its usual name", str),
    Operation("get", "/health/readiness", "Whether requests are taken", replies.Readiness),
    Operation("get", "/openapi.json", "This document", dict),
    Operation(
        "get",
        "/status",
        "How the server does: totals, deployments, recent errors, as far as the key may know",
        Status,
        _STATUS,
        needs_key=True,
    ),
    Operation(
        "get",
        "/status/stream",
        "The same once a second, one JSON object on each line, for ten minutes at most",
        Status,
        _STATUS,
        media_type=NDJSON,
        needs_key=True,
    ),
    Operation("get", "/", "The page", str, media_type=_HTML),
    Operation("get", "/ui", "The page", str, media_type=_HTML),
    Operation("get", "/docs", "This document as a page", str, media_type=_HTML),
)
