"""Claude's counting endpoint on Vertex AI as the simulated provider answers it.

    POST /v1/projects/…/locations/…/publishers/anthropic/models/count-tokens:rawPredict
         {"model": "claude-…", "anthropic_version": "vertex-2023-10-16", "messages": […]}
    200  {"input_tokens": 14}
    400  {"type": "error", "error": {"type": "invalid_request_error", "message": …}, …}
    401  {"error": {"code": 401, "message": …, "status": "UNAUTHENTICATED"}}

What the model's own server refuses has Anthropic's shape, what Google refuses before it Google's.
Sources: Google's page on counting tokens for Claude (2026-11); LiteLLM issue 25798 and pull request
39597 for two refusals; https://cloud.google.com/apis/design/errors for Google's shape.
"""

import re
from itertools import count
from typing import Any

import msgspec

from bench.provider.anthropic_rules import RefusedError, judge
from bench.provider.count import count_tokens
from bench.provider.exchange import Reply, Request

REFUSED_TOKEN = "ya29.invalid"  # noqa: S105 -- made to be refused

_PATH = re.compile(
    r".*/v1/projects/[^/]+/locations/[a-z0-9-]+"
    r"/publishers/anthropic/models/count-tokens:rawPredict"
)
_VERSIONS = {"vertex-2023-10-16": "2023-06-01", "2026-10-21": "2026-10-21"}
# Which betas the real counter has received changes with the model and the month.
_BETAS = frozenset(
    {
        "compact-2026-01-12",
        "context-management-2025-06-27",
        "mid-conversation-tool-changes-2026-07-01",
        "token-counting-2024-11-01",
    }
)
_MOVING = ("@default", "@latest")

# Texts: public reports for 401 and 429, made up in their style for the others.
_GOOGLE = {
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "Permission 'aiplatform.endpoints.predict' denied."),
    404: ("NOT_FOUND", "Requested entity was not found."),
    405: ("UNIMPLEMENTED", "The method is not implemented."),
    429: (
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model.",
    ),
    500: ("INTERNAL", "An internal error has occurred."),
    503: ("UNAVAILABLE", "The service is currently unavailable."),
    504: ("DEADLINE_EXCEEDED", "Deadline exceeded."),
}


class VertexClaudeWire:
    """The one path for every model, under any prefix."""

    def __init__(self) -> None:
        self._ids = count(1)

    def claims(self, request: Request) -> bool:
        return _PATH.fullmatch(request.path) is not None

    def model(self, request: Request) -> str | None:
        try:
            model = _question(request.body).get("model")
        except (RefusedError, RecursionError):
            return None
        return model if isinstance(model, str) else None

    def answer(self, request: Request) -> Reply:
        try:
            return Reply(200, msgspec.json.encode(_counted(request)))
        except RefusedError as refused:
            if refused.status in _GOOGLE:
                return self.error(refused.status)
            return self._refusal(refused.message)
        except RecursionError:
            return self._refusal("The request body is nested too deeply")

    def error(self, status: int) -> Reply:
        if status not in _GOOGLE:
            return self._refusal(f"Simulated status {status}", status)
        code, message = _GOOGLE[status]
        error = {"error": {"code": status, "message": message, "status": code}}
        # Some of Google's errors arrive in an array of one; here those about quota do.
        return Reply(status, msgspec.json.encode([error] if status == 429 else error))

    def _refusal(self, message: str, status: int = 400) -> Reply:
        kind = "invalid_request_error" if status < 500 else "api_error"
        body = {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": f"req_vrtx_sim_{next(self._ids):012}",
        }
        return Reply(status, msgspec.json.encode(body))


def _counted(request: Request) -> dict[str, Any]:
    """Judge the request as Google, then as the model's own server; give the reply's fields."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token or token == REFUSED_TOKEN:
        raise RefusedError("", status=401)
    if request.method != "POST":
        raise RefusedError("", status=405)
    betas = [beta.strip() for beta in request.headers.get("anthropic-beta", "").split(",") if beta]
    _judge_betas(betas)
    question = _question(request.body)
    # Without one the request counts too: LiteLLM 1.109.1 sends none.
    version = question.pop("anthropic_version", "vertex-2023-10-16")
    if version not in _VERSIONS:
        raise RefusedError(f"anthropic_version: unexpected value {version!r}")
    judge(question, _VERSIONS[version], betas)
    model = question["model"]
    if model.endswith(_MOVING):
        raise RefusedError(f"{model} is not supported for token counting")
    tokens = count_tokens(question)
    if question.get("context_management") is None:
        return {"input_tokens": tokens}
    return {"input_tokens": tokens, "context_management": {"original_input_tokens": tokens}}


def _judge_betas(betas: list[str]) -> None:
    if unknown := [f"`{beta}`" for beta in betas if beta not in _BETAS]:
        raise RefusedError(
            f"Unexpected value(s) {', '.join(unknown)} for the `anthropic-beta` header. Please "
            "consult our documentation at platform.claude.com/docs or try again without the header."
        )


def _question(body: bytes) -> dict[str, Any]:
    try:
        question = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(f"The request body is not valid JSON: {error}") from None
    if not isinstance(question, dict):
        raise RefusedError("Input should be a valid dictionary")
    return question
