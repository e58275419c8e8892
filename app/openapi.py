"""``GET /openapi.json``: what this server takes and answers, told from the types it reads with.

OpenAPI 3.1.1 (https://spec.openapis.org/oas/v3.1.1.html, 2024-10). It says nothing of a
configuration: neither models nor keys. A path that is missing here, or is here alone, fails
tests/e2e/test_openapi.py.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from app import replies
from app.auth import KEY_HEADERS
from app.question import (
    BETA,
    DEFAULT_VERSION,
    HEADER_VALUE,
    IDENTITY_HEADERS,
    MAX_BETAS,
    SECONDS,
    CountTokensBody,
)
from app.status_reply import Status
from app.status_stream import NDJSON
from app.telemetry.metrics import SOURCES
from app.telemetry.usage.query import DEFAULT_LIMIT, DEFAULT_SINCE, FILTERS, GROUPS, MAX_LIMIT

Json = dict[str, Any]

_TYPES = (
    CountTokensBody,
    replies.Counted,
    replies.ErrorBody,
    replies.ModelList,
    replies.Taken,
    replies.Readiness,
    replies.CacheStats,
    replies.UsageReport,
    replies.UsageRow,
    Status,
)
_REF = "#/components/schemas/{name}"
_TEXT = {"type": "string"}
_WAIT = {"schema": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}}

_ALWAYS = {
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
    "429": "the provider's limit",
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


@cache
def document() -> bytes:
    """Write the document as JSON; the same in every worker."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REF)
    paths: Json = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    error = {"application/json": {"schema": _schema(replies.ErrorBody)}}
    components = {
        "schemas": schemas,
        "responses": {"Refusal": _response("refused", _REFUSAL_HEADERS, error)},
        "headers": _headers(),
        "securitySchemes": _schemes(),
    }
    return msgspec.json.encode(
        {
            "openapi": "3.1.1",
            "info": {
                "title": "Tallygate",
                "version": "1",
                "description": "Anthropic's count_tokens for several providers, exact, remembered.",
            },
            "paths": paths,
            "components": components,
        }
    )


def _operation(one: Operation) -> Json:
    refusals = {**_ALWAYS, **one.refusals}
    shape = {"$ref": "#/components/responses/Refusal"}
    responses: Json = {status: {**shape, "description": what} for status, what in refusals.items()}
    if one.reply is not None:
        names = _ANSWER_HEADERS if one.counts else one.headers
        content: Json = {one.media_type: {"schema": _schema(one.reply)}}
        if one.also_as:
            content[one.also_as] = {"schema": _TEXT}
        responses["200"] = _response("answered", names, content)
        if one.reply is replies.Readiness:
            responses["503"] = {**responses["200"], "description": "about to end"}
    described: Json = {"summary": one.summary, "responses": responses}
    if one.counts:
        body = {"application/json": {"schema": _schema(CountTokensBody)}}
        described["requestBody"] = {"required": True, "content": body}
        described["parameters"] = _parameters()
    if one.query:
        described["parameters"] = list(one.query)
    if one.needs_key:
        described["security"] = [{name: []} for name in KEY_HEADERS]
    return described


def _schema(type_: Any) -> Json:
    if type_ in _TYPES:
        return {"$ref": _REF.format(name=type_.__name__)}
    return msgspec.json.schema(type_)


def _response(what: str, headers: tuple[str, ...], content: Json) -> Json:
    refs = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return {"description": what, "headers": refs, "content": content}


_ANSWER_HEADERS = (
    "request-id",
    "x-request-id",
    "cache-status",
    "x-tallygate-source",
    "x-tallygate-provider",
    "x-tallygate-model",
    "x-tallygate-counted-at",
    "x-tallygate-dropped",
)
_REFUSAL_HEADERS = (
    "request-id",
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-tallygate-upstream-request-id",
)


def _headers() -> Json:
    """Describe what stands in the head of an answer; what is always there is required."""
    given: Json = {
        "request-id": {"schema": {"type": "string", "pattern": "^req_[0-9a-zA-Z]+$"}},
        "x-request-id": {"schema": _TEXT, "description": "the caller's own, given back"},
        "cache-status": {"schema": {"type": "string", "pattern": "^tallygate; "}},
        "x-tallygate-source": {"schema": {"type": "string", "enum": SOURCES}},
        "x-tallygate-provider": {"schema": _TEXT},
        "x-tallygate-model": {"schema": _TEXT, "description": "the model that was counted for"},
        "x-tallygate-counted-at": {"schema": {"type": "string", "format": "date-time"}},
        "x-tallygate-dropped": {"schema": _TEXT, "description": "left out, separated by commas"},
        "x-tallygate-complete-until": {"schema": {"type": "string", "format": "date-time"}},
        "x-tallygate-truncated": {"schema": {"type": "string", "enum": ["true", "false"]}},
        "retry-after": {**_WAIT, "description": "seconds"},
        "retry-after-ms": _WAIT,
        "x-should-retry": {"schema": {"type": "string", "enum": ["true", "false"]}},
        "x-tallygate-upstream-request-id": {"schema": _TEXT},
    }
    sometimes = {*_REFUSAL_HEADERS, "x-request-id", "x-tallygate-dropped"} - {"request-id"}
    return {
        name: {"required": True, **header} if name not in sometimes else header
        for name, header in given.items()
    }


def _schemes() -> Json:
    """Name the headers of a key; the first one present decides."""
    schemes: Json = {name: {"type": "apiKey", "in": "header", "name": name} for name in KEY_HEADERS}
    return schemes | {"authorization": {"type": "http", "scheme": "bearer"}}


def _parameters() -> list[Json]:
    value = {"type": "string", "pattern": f"^{HEADER_VALUE}$"}
    betas = f"^{BETA}(?:, *{BETA}){{0,{MAX_BETAS - 1}}}$"
    given: Json = {
        "anthropic-version": {**value, "default": DEFAULT_VERSION},
        "anthropic-beta": {**_TEXT, "pattern": betas},
        **dict.fromkeys(IDENTITY_HEADERS, value),
        "cache-control": {**_TEXT, "examples": ["no-cache", "no-store", "only-if-cached"]},
        "x-litellm-timeout": {**_TEXT, "pattern": f"^{SECONDS}$"},
        "x-request-id": _TEXT,
        "x-tallygate-end-user": _TEXT,
    }
    return [{"name": name, "in": "header", "schema": schema} for name, schema in given.items()]
