"""``GET /openapi.json``: what this server takes and answers, told from the types it reads with.

OpenAPI 3.1.1 (https://spec.openapis.org/oas/v3.1.1.html, 2024-10). It says nothing of a
configuration: neither models nor keys. The paths stand in ``api_paths.py``.
"""

from functools import cache
from typing import Any

import msgspec

from app import replies
from app.api_paths import ALWAYS, OPERATIONS, Json, Operation
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
from app.telemetry.layout import SOURCES

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
    refusals = {**ALWAYS, **one.refusals}
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
