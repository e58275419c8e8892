"""Claude's two counters on AWS as the simulated provider answers them.

    POST /model/{id}/count-tokens          {"input": {"invokeModel": {"body": "<base64>"}}}
    200  {"inputTokens": 14}
    400  x-amzn-errortype: ValidationException:http://…      {"message": …}

    POST /anthropic/v1/messages/count_tokens               as Anthropic's own endpoint

A signature is looked at and not recomputed: its scope must name the service, its headers the host
and the date. The secret would have to be known for more.
Sources: botocore's service model of bedrock-runtime (1.43.117); for the texts, botocore 3707
(2026-05), agentgateway 3254 (2026-08), claude-code 12621 (2025-11), pydantic-ai (2026-10) for
defer_loading; the others are made up in their style.
"""

import re
from base64 import b64decode
from itertools import count
from typing import Any
from urllib.parse import unquote

import msgspec

from bench.provider.anthropic import AnthropicWire
from bench.provider.anthropic_rules import RefusedError, judge
from bench.provider.count import count_tokens
from bench.provider.exchange import Reply, Request

REFUSED_KEY = "AKIAINVALID"
EXPIRED_TOKEN = "expired-session"  # noqa: S105 -- made to be refused
MAX_TOKENS = 200_000
MAX_BODY_BYTES = 25_000_000

_RUNTIME = re.compile(r"(?:/.*)?/model/([^/]+)/count-tokens")
_MANTLE = "/anthropic/v1/messages/count_tokens"
_GEOGRAPHY = re.compile(r"(?:us|eu|apac|jp|au|us-gov|global)\.")
# Reported as refused by the runtime and counted by mantle: LiteLLM 37102, PostHog 70515 (2026).
_MANTLE_ONLY = re.compile(r"claude-(?:opus-4-[78]|[a-z]+-5)")
_SCOPE = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]+)/\d{8}/[a-z0-9-]+/([a-z-]+)/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=[0-9a-f]{64}"
)

# Of InvokeModel; an unknown one is refused by its name (LiteLLM 13825, 2025-08).
_FIELDS = frozenset(
    {
        "cache_control",
        "context_management",
        "messages",
        "output_config",
        "output_format",
        "stop_sequences",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
# AWS's list as LiteLLM 19877 (2026-01) quotes it, and compaction's (AWS's page on it, 2026-11);
# that of Claude Code is seen to be accepted (claude-code 49648, 2026-04). The real one goes by
# model too.
_BETAS = frozenset(
    {
        "claude-code-20250219",
        "compact-2026-01-12",
        "computer-use-2024-10-22",
        "computer-use-2025-01-24",
        "computer-use-2025-11-24",
        "context-1m-2025-08-07",
        "context-management-2025-06-27",
        "dev-full-thinking-2025-05-14",
        "effort-2025-11-24",
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "output-128k-2025-02-19",
        "token-efficient-tools-2025-02-19",
        "tool-examples-2025-10-29",
        "tool-search-tool-2025-10-19",
    }
)
_ERRORS = {
    400: ("ValidationException", "Malformed input request, please reformat and try again."),
    403: ("AccessDeniedException", "You are not authorized to perform: bedrock:CountTokens."),
    404: ("ResourceNotFoundException", "Could not resolve the foundation model."),
    429: ("ThrottlingException", "Too many requests, please wait before trying again."),
    500: ("InternalServerException", "The system encountered an unexpected error."),
    503: ("ServiceUnavailableException", "Bedrock is unable to process your request."),
}


class BedrockWire:
    """The runtime's CountTokens, under any prefix."""

    def __init__(self) -> None:
        self._ids = count(1)

    def claims(self, request: Request) -> bool:
        return _RUNTIME.fullmatch(request.path) is not None

    def model(self, request: Request) -> str | None:
        found = _RUNTIME.fullmatch(request.path)
        return unquote(found[1]) if found else None

    def answer(self, request: Request) -> Reply:
        try:
            _authenticate(request, "bedrock")
            tokens = _counted(self.model(request) or "", request.body)
        except _CredentialError as refused:
            return self._error(403, *refused.args)
        except RefusedError as refused:
            code, usual = _ERRORS[refused.status]
            return self._error(refused.status, code, refused.message or usual)
        except RecursionError:
            return self.error(400)
        return Reply(200, msgspec.json.encode({"inputTokens": tokens}), self._headers())

    def error(self, status: int) -> Reply:
        usual = ("ValidationException" if status < 500 else "InternalServerException", "Simulated")
        return self._error(status, *_ERRORS.get(status, usual))

    def _error(self, status: int, code: str, message: str) -> Reply:
        suffix = ":http://internal.amazon.com/coral/com.amazon.bedrock/" if status != 403 else ""
        headers = (*self._headers(), ("x-amzn-errortype", code + suffix))
        return Reply(status, msgspec.json.encode({"message": message}), headers)

    def _headers(self) -> tuple[tuple[str, str], ...]:
        request_id = f"00000000-0000-4000-8000-{next(self._ids):012}"
        return (("content-type", "application/json"), ("x-amzn-requestid", request_id))


class BedrockMantleWire(AnthropicWire):
    """Anthropic's endpoint under mantle's path; must stand before it in the list of wires."""

    def claims(self, request: Request) -> bool:
        return request.path == _MANTLE

    def answer(self, request: Request) -> Reply:
        try:
            _authenticate(request, "bedrock-mantle")
        except _CredentialError:
            return self._error(403, "The security token included in the request is invalid.")
        model = self.model(request) or ""
        if not model.startswith("anthropic."):
            return self._error(404, f"The model '{model}' does not exist")
        kept = [pair for pair in request.raw_headers if pair[0].lower() != b"authorization"]
        kept.append((b"authorization", b"Bearer accepted-above"))
        return super().answer(
            Request(request.method, request.target, kept, request.body, time=request.time)
        )


class _CredentialError(Exception):
    """AWS's code and text for a request that is nobody's."""


def _authenticate(request: Request, service: str) -> None:
    given = request.headers.get("authorization", "")
    if given.startswith("Bearer ") and given.removeprefix("Bearer ").strip():
        return
    if service == "bedrock-mantle" and request.headers.get("x-api-key"):
        return
    found = _SCOPE.fullmatch(given)
    if found is None:
        code = "MissingAuthenticationTokenException"
        raise _CredentialError(code, "Missing Authentication Token")
    signed = found[3].split(";")
    if found[2] != service or not {"host", "x-amz-date"} <= set(signed):
        raise _CredentialError("InvalidSignatureException", f"Credential should be for {service}.")
    if found[1] == REFUSED_KEY:
        text = "The security token included in the request is invalid."
        raise _CredentialError("UnrecognizedClientException", text)
    if request.headers.get("x-amz-security-token") == EXPIRED_TOKEN:
        text = "The security token included in the request is expired"
        raise _CredentialError("ExpiredTokenException", text)


def _counted(model: str, body: bytes) -> int:
    """Judge as CountTokens does: the model first, then the request as InvokeModel would."""
    if "claude" not in model or "nonexistent" in model:
        raise RefusedError("The provided model identifier is invalid.")
    if _GEOGRAPHY.match(model) or _MANTLE_ONLY.search(model):
        raise RefusedError("The provided model doesn't support counting tokens.")
    question = _invoked(body)
    betas = question.pop("anthropic_beta", [])
    if not _BETAS.issuperset(betas):
        raise RefusedError("The model returned the following errors: invalid beta flag")
    _judge_members(question)
    judge({"model": model, **question}, "2023-06-01", betas)
    tokens = count_tokens(question)
    if tokens > MAX_TOKENS:
        raise RefusedError(f"prompt is too long: {tokens} tokens > {MAX_TOKENS} maximum")
    return tokens


def _judge_members(question: dict[str, Any]) -> None:
    """Check what InvokeModel wants besides, and take that out; then what it does not know."""
    if question.pop("anthropic_version", None) != "bedrock-2023-05-31":
        raise RefusedError("anthropic_version: Field required")
    max_tokens = question.pop("max_tokens", None)
    if not isinstance(max_tokens, int) or max_tokens < 1:
        raise RefusedError("max_tokens: Field required")
    thinking = question.get("thinking")
    budget = thinking.get("budget_tokens", 0) if isinstance(thinking, dict) else 0
    if max_tokens <= budget:
        raise RefusedError("`max_tokens` must be greater than `thinking.budget_tokens`.")
    for name in question:
        if name not in _FIELDS:
            raise RefusedError(f"{name}: Extra inputs are not permitted")
    tools = question.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and "defer_loading" in tool:
            path = f"tools.{index}.custom.defer_loading"
            raise RefusedError(f"{path}: Extra inputs are not permitted")


def _invoked(body: bytes) -> dict[str, Any]:
    """Unpack the request inside; of Converse's form, only that it is another question."""
    try:
        form = msgspec.json.decode(body)["input"]
        (kind,) = form
        if kind == "converse":
            return {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1, **form[kind]}
        inner = b64decode(form["invokeModel"]["body"], validate=True)
        question = msgspec.json.decode(inner)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        raise RefusedError("") from None
    if not isinstance(question, dict):
        raise RefusedError("")
    if len(inner) > MAX_BODY_BYTES:
        raise RefusedError(f"body: must have length less than or equal to {MAX_BODY_BYTES}")
    return question
