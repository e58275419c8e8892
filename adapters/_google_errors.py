"""Google's error replies (AIP-193) in the caller's terms, for every API that speaks them.

    {"error":{"code":429,"message":"…","status":"RESOURCE_EXHAUSTED","details":[{"@type":
     "type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36s"}]}}

The same object may stand in a list of one (yym68686/uni-api issue 41, 2024). Decisions are made on
status, code and reason, and where Google gives nothing else on a sentence that is known as a whole:
a text quotes what the caller wrote.
https://google.aip.dev/193, https://cloud.google.com/apis/design/errors (2026-11).
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from adapters.base import UpstreamError

REFUSED = "upstream provider rejected the proxy's request"
"""What a caller hears when the operator, or this translation, is at fault."""
MAX_MESSAGE = 2_000

_CODES = frozenset(
    {
        "ABORTED",
        "ALREADY_EXISTS",
        "CANCELLED",
        "DATA_LOSS",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
        "UNIMPLEMENTED",
        "UNKNOWN",
    }
)
_ANSWERS = {
    400: (400, "invalid_request_error"),
    404: (404, "not_found_error"),
    408: (504, "timeout_error"),
    413: (413, "request_too_large"),
    429: (429, "rate_limit_error"),
    500: (500, "api_error"),
    503: (529, "overloaded_error"),
    504: (504, "timeout_error"),
    529: (529, "overloaded_error"),
}
_BAD_GATEWAY = (502, "api_error")
_CREDENTIAL_STATUSES = (401, 402, 403)
# In the words of continue 9655 and gemini-cli 25198 (2026), where the reason is missing.
_BAD_KEY = re.compile(
    r"API [Kk]ey (?:not valid|not found)\. Please pass a valid API key\.?"
    r"|API [Kk]ey expired\. Please renew the API key\.?"
)
# Fields that the service does not know, and a request with nothing in it (zed 17343, 2024), are no
# caller's doing.
_UNKNOWN_FIELD = (
    r"(?:Invalid JSON payload received\. )?"
    r"Unknown name \"[^\"\n]*\"(?: at '[^'\n]*')?: Cannot find field\.?"
)
_OUR_FAULT = re.compile(
    rf"{_UNKNOWN_FIELD}(?:\n{_UNKNOWN_FIELD})*"
    r"|CountTokens requires generate_content_request or contents to be set\.?"
)
_DELAY = re.compile(r"(\d{1,9})(\.\d{1,9})?s")
_KEY = re.compile(r"api_key:\S+|AIza[0-9A-Za-z_-]{10,}")


def read_google_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error reply, JSON or not. Header names are lower-case.

    A bad API key is a 400 with the reason API_KEY_INVALID, not a 401; a model or service that the
    operator has yet to enable is a 400 FAILED_PRECONDITION.
    """
    error = _error(body)
    code = str(error.get("status"))
    code = code if code in _CODES else "no known code"
    text = error.get("message")
    text = text.strip() if isinstance(text, str) else ""
    details = list(_details(error))
    reason = f"status {status}, {code}"
    if _is_operators(status, code, text, details):
        return _refused(status, f"{reason}: credential or project", credential_fault=True)
    if status == HTTPStatus.BAD_REQUEST and _OUR_FAULT.fullmatch(text):
        return _refused(status, f"{reason}: our translation", credential_fault=False)
    answer, type_ = _ANSWERS.get(status, _BAD_GATEWAY)
    if not error and answer in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}:
        # Some server in between: it knows neither the model nor the request.
        answer, type_ = _BAD_GATEWAY
    return UpstreamError(
        status=answer,
        type=type_,
        message=_message(text) or f"the provider answered {status}",
        reason=reason,
        upstream_status=status,
        headers=_retry_after(headers, details),
    )


def _refused(status: int, reason: str, *, credential_fault: bool) -> UpstreamError:
    return UpstreamError(
        status=502,
        type="api_error",
        message=REFUSED,
        reason=reason,
        upstream_status=status,
        headers=(("x-should-retry", "false"),),
        credential_fault=credential_fault,
    )


def _error(body: bytes) -> dict[str, Any]:
    """Return the error object, or an empty one."""
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(reply, list) and reply:
        reply = reply[0]
    error = reply.get("error") if isinstance(reply, dict) else None
    return error if isinstance(error, dict) else {}


def _details(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    details = error.get("details")
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))


def _is_operators(status: int, code: str, text: str, details: list[dict[str, Any]]) -> bool:
    """Say whether the key, the project or its settings were refused."""
    if status in _CREDENTIAL_STATUSES or code == "FAILED_PRECONDITION":
        return True
    reasons = (str(detail.get("reason", "")) for detail in details)
    return status == HTTPStatus.BAD_REQUEST and (
        _BAD_KEY.fullmatch(text) is not None
        or any(reason.startswith("API_KEY_") for reason in reasons)
    )


def _message(text: str) -> str:
    """Keep Google's sentence; not JSON put into it by some server, and no key."""
    if text.startswith(("{", "[")):
        return ""
    return _KEY.sub("***", text)[:MAX_MESSAGE]


def _retry_after(
    headers: Mapping[str, str], details: list[dict[str, Any]]
) -> tuple[tuple[str, str], ...]:
    """``retry-after``, else RetryInfo's ``36s`` or ``36.5s``, in whole seconds."""
    if "retry-after" in headers:
        return (("retry-after", headers["retry-after"]),)
    for detail in details:
        delay = _DELAY.fullmatch(str(detail.get("retryDelay", "")))
        if delay:
            seconds = int(delay[1]) + (1 if delay[2] and delay[2].strip(".0") else 0)
            return (("retry-after", str(seconds)),)
    return ()
