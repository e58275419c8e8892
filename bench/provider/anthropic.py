"""Anthropic's counting endpoint as the simulated provider answers it.

    POST /v1/messages/count_tokens   {"model": "claude-…", "messages": […]}
    200  {"input_tokens": 14}
    400  {"type": "error", "error": {"type": "invalid_request_error", "message": …},
          "request_id": "req_…"}

Sources: the API reference and https://platform.claude.com/docs/en/api/errors (2026-11);
the types of the anthropic SDK 2.12.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count
from typing import Any

import msgspec

from bench.provider.anthropic_rules import RefusedError, judge
from bench.provider.count import count_tokens
from bench.provider.exchange import Reply, Request

MAX_BODY_BYTES = 32 * 2**20
REFUSED_KEY = "sk-ant-invalid"

# Types: the SDK's ErrorType and the errors page, which alone names request_too_large. Texts: public
# reports for 401, 404, 413, 429 and 529, the errors page for 403 and 500, made up for the others.
_ERRORS = {
    400: ("invalid_request_error", "messages: at least one message is required"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is a problem with your billing or payment information."),
    403: (
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
    ),
    404: ("not_found_error", "Not found"),
    409: ("conflict_error", "The request conflicts with the current state of the resource."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: (
        "rate_limit_error",
        "This request would exceed your account's rate limit. Please try again later.",
    ),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out while processing."),
    529: ("overloaded_error", "Overloaded"),
}


class AnthropicWire:
    """``POST …/v1/messages/count_tokens``, under any prefix and with any query."""

    def __init__(self) -> None:
        self._ids = count(1)

    def claims(self, request: Request) -> bool:
        return request.path.endswith("/v1/messages/count_tokens")

    def model(self, request: Request) -> str | None:
        try:
            model = _question(request.body).get("model")
        except (RefusedError, RecursionError):
            return None
        return model if isinstance(model, str) else None

    def answer(self, request: Request) -> Reply:
        try:
            body = msgspec.json.encode(_counted(request))
        except RefusedError as refused:
            return self._error(refused.status, refused.message)
        except RecursionError:
            return self._error(400, "The request body is nested too deeply")
        return Reply(200, body, self._headers(self._request_id()))

    def error(self, status: int) -> Reply:
        return self._error(status)

    def _error(self, status: int, message: str | None = None) -> Reply:
        default = "invalid_request_error" if status < 500 else "api_error"
        kind, usual = _ERRORS.get(status, (default, f"Simulated status {status}"))
        body: dict[str, Any] = {
            "type": "error",
            "error": {"type": kind, "message": message or usual},
        }
        if status == 413:  # sent by the network in front of the API, which gives no id
            return Reply(413, msgspec.json.encode(body))
        body["request_id"] = self._request_id()
        headers = self._headers(body["request_id"], remaining=0 if status == 429 else 4999)
        if status == 429:
            headers += (("retry-after", "1"),)
        return Reply(status, msgspec.json.encode(body), headers)

    def _request_id(self) -> str:
        return f"req_sim_{next(self._ids):012}"

    def _headers(self, request_id: str, *, remaining: int = 4999) -> tuple[tuple[str, str], ...]:
        """The reply's headers; the limit is shown and never enforced."""
        return (
            ("content-type", "application/json"),
            ("request-id", request_id),
            ("anthropic-ratelimit-requests-limit", "5000"),
            ("anthropic-ratelimit-requests-remaining", str(remaining)),
            (
                "anthropic-ratelimit-requests-reset",
                _in_a_minute(int(datetime.now(UTC).timestamp())),
            ),
        )


@lru_cache(maxsize=1)
def _in_a_minute(now_s: int) -> str:
    return (datetime.fromtimestamp(now_s, UTC) + timedelta(minutes=1)).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


def _counted(request: Request) -> dict[str, Any]:
    """Judge the request and give the reply's fields; a beta call's reply has one more."""
    _authenticate(request)
    if request.method != "POST":
        raise RefusedError("Method Not Allowed", status=405)
    version = request.headers.get("anthropic-version")
    if not version:
        raise RefusedError("anthropic-version: header is required")
    if len(request.body) > MAX_BODY_BYTES:
        raise RefusedError("Request exceeds the maximum size", status=413)
    question = _question(request.body)
    betas = [beta.strip() for beta in request.headers.get("anthropic-beta", "").split(",")]
    judge(question, version, betas)
    tokens = count_tokens(question)
    if betas == [""] and "beta=true" not in request.query:
        return {"input_tokens": tokens}
    managed = question.get("context_management") is not None
    original = {"original_input_tokens": tokens} if managed else None
    return {"input_tokens": tokens, "context_management": original}


def _authenticate(request: Request) -> None:
    key = request.headers.get("x-api-key")
    if key is None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise RefusedError("x-api-key header is required", status=401)
    if not key or key == REFUSED_KEY:
        raise RefusedError("invalid x-api-key", status=401)


def _question(body: bytes) -> dict[str, Any]:
    try:
        question = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(f"The request body is not valid JSON: {error}") from None
    if not isinstance(question, dict):
        raise RefusedError("Input should be a valid dictionary")
    return question
