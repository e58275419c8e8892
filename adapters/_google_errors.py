"""Google's error bodies, as Vertex AI and AI Studio send them.

    {"error":{"code":429,"message":"…","status":"RESOURCE_EXHAUSTED","details":[…]}}

Sometimes the object stands in an array of one (uni-api issue 41, cline issue 651).
https://cloud.google.com/apis/design/errors (2026-11)
"""

import re
from collections.abc import Mapping

import msgspec

from adapters.base import UpstreamError

OUR_FAULT = "upstream provider rejected the proxy's request"
MAX_MESSAGE = 2_000


class _Detail(msgspec.Struct):
    reason: str = ""
    retry_delay: str = msgspec.field(default="", name="retryDelay")


class _Status(msgspec.Struct):
    message: str = ""
    status: str = ""
    details: list[_Detail] = []


class _Body(msgspec.Struct):
    error: _Status


_BODY: msgspec.json.Decoder[_Body | list[_Body]] = msgspec.json.Decoder(_Body | list[_Body])

# The operator's: a key or a project, and what either may do. A bad API key is a 400, and so is a
# project that may not use a model.
_CREDENTIAL_STATUSES = (401, 402, 403)
_CREDENTIAL_CODES = ("FAILED_PRECONDITION", "PERMISSION_DENIED", "UNAUTHENTICATED")
_KEY_REASON = "API_KEY_"
# Ours: the JSON names a field that the method does not have.
_UNKNOWN_FIELD = re.compile(r"Unknown name .*Cannot find field", re.DOTALL)

_ANSWERS = {
    400: (400, "invalid_request_error"),
    404: (404, "not_found_error"),
    413: (413, "request_too_large"),
    429: (429, "rate_limit_error"),
    500: (500, "api_error"),
    # A model whose tokens cannot be counted is the request's fault, not the server's.
    501: (400, "invalid_request_error"),
    503: (529, "overloaded_error"),
    504: (504, "timeout_error"),
}
_CODE = re.compile(r"[A-Z_]{2,40}")
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def read_google_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read a reply that is no 200, whatever its body is; what cannot be read is a 502."""
    error = _read(body)
    refused = _refuses_credential(status, error)
    answer, type_ = _ANSWERS.get(status, (502, "api_error"))
    message = error.message[:MAX_MESSAGE] or f"the provider answered {status}"
    if refused or answer == 502 or _UNKNOWN_FIELD.search(error.message):  # noqa: PLR2004
        answer, type_, message = 502, "api_error", OUR_FAULT
    return UpstreamError(
        status=answer,
        type=type_,
        message=message,
        reason=f"status {status}, {error.status if _CODE.fullmatch(error.status) else 'no code'}",
        upstream_status=status,
        headers=_retry_after(headers, error),
        credential_fault=refused,
    )


def _read(body: bytes) -> _Status:
    try:
        found = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Status()
    if isinstance(found, list):
        return found[0].error if found else _Status()
    return found.error


def _refuses_credential(status: int, error: _Status) -> bool:
    return (
        status in _CREDENTIAL_STATUSES
        or error.status in _CREDENTIAL_CODES
        or any(detail.reason.startswith(_KEY_REASON) for detail in error.details)
    )


def _retry_after(headers: Mapping[str, str], error: _Status) -> tuple[tuple[str, str], ...]:
    """Prefer the header; Google more often says ``RetryInfo.retryDelay``, ``"36s"``."""
    if given := headers.get("retry-after"):
        return (("retry-after", given),)
    delays = (_SECONDS.fullmatch(detail.retry_delay) for detail in error.details)
    return next(((("retry-after", delay[1]),) for delay in delays if delay), ())
