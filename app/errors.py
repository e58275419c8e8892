"""Every failure as a caller sees it: Anthropic's error body, its status, its retry headers.

    {"type":"error","error":{"type":"not_found_error","message":"…"},"request_id":"req_…"}

https://platform.claude.com/docs/en/api/errors (2026-11)
"""

import asyncio
import math
import re
from collections.abc import Mapping

from sanic.exceptions import RequestTimeout, SanicException, ServiceUnavailable
from sanic.handlers import ErrorHandler
from sanic.request import Request
from sanic.response import HTTPResponse

from adapters.base import UpstreamError
from app.ids import new_request_id
from app.log import describe, logger
from app.replies import failed

CLIENT_ERRORS, TOO_MANY, SERVER_ERRORS = 400, 429, 500
MAX_RETRY_AFTER_S = 3600
LONG_WAIT_S = 30
OPERATOR_FAULT = "upstream provider rejected the proxy's request"


class ProxyError(Exception):
    """A failure with the answer that it becomes.

    ``reason`` is our own wording, for logs. ``operator_detail`` names what the operator must mend
    (a variable, never its value): it goes to the log, and to callers on loopback. ``is_outage``:
    the provider failed rather than the request, so that its last known count may stand in.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 -- the wire's own name
        message: str,
        *,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
        details: bytes = b"",
        operator_detail: str = "",
        reason: str = "",
        is_outage: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.details = details
        self.operator_detail = operator_detail
        self.reason = reason or operator_detail
        self.is_outage = is_outage
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(math.ceil(retry_after_s))
        if should_retry is not None:
            self.headers["x-should-retry"] = "true" if should_retry else "false"

    def body(self, request_id: str, *, on_loopback: bool = False) -> bytes:
        """Render the error object with the request's id."""
        message = self.message
        if on_loopback and self.operator_detail:
            message = f"{message} ({self.operator_detail})"
        return failed(self.type, message, self.details, request_id)


def invalid_request(message: str, status: int = 400) -> ProxyError:
    """The caller's request is at fault: ``message`` says what, where and what to do."""
    return ProxyError(status, "invalid_request_error", message)


def unauthenticated(message: str) -> ProxyError:
    """No key, or a wrong one."""
    return ProxyError(401, "authentication_error", message)


def forbidden(message: str) -> ProxyError:
    """A right key that may not do this."""
    return ProxyError(403, "permission_error", message)


def not_found(message: str) -> ProxyError:
    """An unknown path, or a model that this configuration does not know."""
    return ProxyError(404, "not_found_error", message)


def too_large(message: str) -> ProxyError:
    """A body over a limit, ours or the provider's."""
    return ProxyError(413, "request_too_large", message)


def operator_fault(detail: str) -> ProxyError:
    """The proxy's own credential or settings are at fault: never the caller's 401."""
    return ProxyError(502, "api_error", OPERATOR_FAULT, should_retry=False, operator_detail=detail)


def timed_out(message: str) -> ProxyError:
    """The provider has not answered within the count's deadline."""
    return ProxyError(504, "timeout_error", message, is_outage=True)


def overloaded(message: str, retry_after_s: float) -> ProxyError:
    """We shed load: nothing was asked, the caller may come back."""
    return ProxyError(
        529,
        "overloaded_error",
        message,
        retry_after_s=retry_after_s,
        should_retry=retry_after_s <= LONG_WAIT_S,
    )


_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def from_upstream(error: UpstreamError, *, caller_credential: bool) -> ProxyError:
    """Turn a provider's refusal into the caller's answer."""
    if error.credential_fault and not caller_credential:
        return operator_fault(f"the provider refused our credential: {error.reason}")
    headers = {
        name: value
        for name, value in error.headers
        if name not in _WAITS or _is_bearable(value, _WAITS[name])
    }
    if _REQUEST_ID.fullmatch(error.upstream_request_id):
        headers["x-tallygate-upstream-request-id"] = error.upstream_request_id
    return ProxyError(
        error.status,
        error.type,
        error.message,
        headers=headers,
        details=error.details,
        reason=error.reason,
        is_outage=_is_outage(error),
    )


def _is_outage(error: UpstreamError) -> bool:
    """Say whether the provider failed: a 502 that we make of its 4xx is about the request.

    Not so of throttling, for which AWS has codes that also come with a 400.
    """
    about_request = CLIENT_ERRORS <= error.upstream_status < SERVER_ERRORS
    return error.status == TOO_MANY or (error.status >= SERVER_ERRORS and not about_request)


# Anthropic's clients read the one in milliseconds first (anthropic 2.12.0).
_WAITS = {"retry-after": 1, "retry-after-ms": 1000}
_PLAIN_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def _is_bearable(wait: str, per_second: int) -> bool:
    """Take a wait of at most an hour; clients sleep for whatever they are told."""
    return (
        _PLAIN_NUMBER.fullmatch(wait) is not None and float(wait) <= MAX_RETRY_AFTER_S * per_second
    )


# Our own words: the framework's repeat the URL, and a URL may hold what should not be repeated.
_FRAMEWORK = {
    400: ("invalid_request_error", "malformed HTTP request"),
    404: ("not_found_error", "unknown path; counting is POST /v1/messages/count_tokens"),
    405: ("invalid_request_error", "this path does not take that method; see the allow header"),
    413: ("request_too_large", "the request is larger than this server takes"),
    417: ("invalid_request_error", "the only expectation met is 100-continue"),
}


def from_framework(exception: BaseException) -> ProxyError:
    """Turn what Sanic itself raises, often before there is a request, into our answer."""
    if isinstance(exception, ProxyError):
        return exception
    if isinstance(exception, asyncio.CancelledError):
        return ProxyError(499, "client_closed", "the client has left")
    if isinstance(exception, RequestTimeout):
        return ProxyError(408, "timeout_error", "the request did not arrive in time")
    if isinstance(exception, ServiceUnavailable):
        # RESPONSE_TIMEOUT (25.12); our own deadlines answer long before it.
        return timed_out("no answer in time")
    if isinstance(exception, SanicException):
        type_, message = _FRAMEWORK.get(exception.status_code, ("api_error", "request failed"))
        headers = {name.lower(): str(value) for name, value in exception.headers.items()}
        return ProxyError(exception.status_code, type_, message, headers=headers)
    logger.error("unexpected %s", describe(exception))
    return ProxyError(500, "api_error", "internal error; the server's log has its place")


class AnthropicErrorHandler(ErrorHandler):
    """Answers in Anthropic's shape whatever reaches the framework's own error handling."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Render; must not rely on headers or a route, which a bad head leaves empty."""
        error = from_framework(exception)
        request.app.ctx.worker.metrics.http_refusal(error.status)
        request_id = new_request_id()
        return HTTPResponse(
            error.body(request_id),
            status=error.status,
            headers={"request-id": request_id, **error.headers},
            content_type="application/json",
        )
