"""Gemini's two counting endpoints as the simulated provider answers them.

    POST /v1beta/models/gemini-…:countTokens                                         (AI Studio)
    POST /v1/projects/p/locations/l/publishers/google/models/gemini-…:countTokens    (Vertex AI)
    200  {"totalTokens": 14, "promptTokensDetails": […]}
    400  {"error": {"code": 400, "message": …, "status": "INVALID_ARGUMENT"}}

Strict like the real ones about fields: what their protocol does not have is a 400. Sources:
google-ai-generativelanguage 0.12.1, aiplatform v1 revision 20261106 (2026-11), and reports for the
texts of errors; where none quotes the real one it is made up in their style.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from bench.provider.count import count_tokens
from bench.provider.exchange import Reply, Request

REFUSED_KEY = "AIza-invalid"
REFUSED_TOKEN = "ya29.invalid"  # noqa: S105 -- the simulated service refuses it

_AI_STUDIO = re.compile(r"/v1(?:beta)?/models/([^/]+):countTokens")
_VERTEX = re.compile(
    r"/v1(?:beta1)?/projects/([^/]+)/locations/([^/]+)/publishers/google/models/([^/]+):countTokens"
)
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_USUAL = {
    401: "Request had invalid authentication credentials.",
    403: "The caller does not have permission",
    429: "Resource has been exhausted (e.g. check quota).",
    500: "An internal error has occurred.",
    503: "The model is overloaded. Please try again later.",
}
_HEADERS = (("content-type", "application/json; charset=UTF-8"),)
_RETRY_IN = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
_BAD_KEY = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
}

# The protocol's messages as far as a count of text, media and functions needs them: field → the
# message it holds, "[]" after it for a list, "" for a value that is judged elsewhere or not at all.
_MESSAGES: dict[str, dict[str, str]] = {
    "AiStudio": {"contents": "Content[]", "generateContentRequest": "GenerateContent"},
    "GenerateContent": {
        "model": "",
        "contents": "Content[]",
        "systemInstruction": "Content",
        "tools": "Tool[]",
        "toolConfig": "ToolConfig",
        "generationConfig": "",
    },
    "Vertex": {
        "contents": "Content[]",
        "systemInstruction": "Content",
        "tools": "Tool[]",
        "generationConfig": "",
    },
    "Content": {"role": "", "parts": "Part[]"},
    "Part": {
        "text": "",
        "inlineData": "Blob",
        "fileData": "File",
        "functionCall": "Call",
        "functionResponse": "Response",
    },
    "Blob": {"mimeType": "", "data": ""},
    "File": {"mimeType": "", "fileUri": ""},
    "Call": {"id": "", "name": "", "args": ""},
    "Response": {"id": "", "name": "", "response": "", "parts": "Media[]"},
    "Media": {"inlineData": "Blob", "fileData": "File"},
    "Tool": {"functionDeclarations": "Function[]"},
    "Function": {"name": "", "description": "", "parametersJsonSchema": ""},
    "ToolConfig": {"functionCallingConfig": "Calling"},
    "Calling": {"mode": "", "allowedFunctionNames": ""},
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


class RefusedError(Exception):
    """A refusal: its HTTP status, message and details."""

    def __init__(self, message: str, *, status: int = 400, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.details = details


class GoogleWire:
    """``…:countTokens``, on AI Studio's path or on Vertex AI's, under any prefix."""

    def claims(self, request: Request) -> bool:
        return request.path.endswith(":countTokens")

    def model(self, request: Request) -> str | None:
        found = re.search(r"/models/([^/]+):countTokens$", request.path)
        return unquote(found[1]) if found else None

    def answer(self, request: Request) -> Reply:
        try:
            tokens = count_tokens(_question(request))
        except RefusedError as refused:
            return _error(refused.status, refused.message, refused.details)
        except RecursionError:
            return _error(400, "Request payload is nested too deeply.")
        details = [{"modality": "TEXT", "tokenCount": tokens}]
        body = {"totalTokens": tokens, "promptTokensDetails": details}
        return Reply(200, msgspec.json.encode(body), _HEADERS)

    def error(self, status: int) -> Reply:
        return _error(status)


def _error(status: int, message: str | None = None, details: Any = None) -> Reply:
    error: dict[str, Any] = {
        "code": status,
        "message": message or _USUAL.get(status, f"Simulated status {status}"),
        "status": _CODES.get(status, "UNKNOWN"),
    }
    if status == 429 and details is None:
        details = [_RETRY_IN]
    if details is not None:
        error["details"] = details
    return Reply(status, msgspec.json.encode({"error": error}), _HEADERS)


def _question(request: Request) -> Mapping[str, object]:
    """Judge the request and return what is counted; raises RefusedError."""
    if request.method != "POST":
        raise RefusedError("Method not allowed.", status=405)
    if (vertex := _VERTEX.search(request.path)) is not None:
        _authenticate_vertex(request, unquote(vertex[1]))
        model, message = unquote(vertex[3]), "Vertex"
    elif (studio := _AI_STUDIO.search(request.path)) is not None:
        _authenticate_ai_studio(request)
        model, message = unquote(studio[1]), "AiStudio"
    else:
        raise RefusedError("Not found.", status=404)
    if "nonexistent" in model:
        raise RefusedError(f"models/{model} is not found, or is not supported.", status=404)
    try:
        body = msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError("Invalid JSON payload received.") from None
    _judge(body, message, "")
    return _counted(body, model)


def _authenticate_ai_studio(request: Request) -> None:
    key = request.headers.get("x-goog-api-key")
    if not key:
        raise RefusedError("Method doesn't allow unregistered callers.", status=403)
    if key == REFUSED_KEY:
        raise RefusedError("API key not valid. Please pass a valid API key.", details=[_BAD_KEY])


def _authenticate_vertex(request: Request, project: str) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token or token == REFUSED_TOKEN:
        raise RefusedError(_USUAL[401], status=401)
    if not re.fullmatch(r"(?:[a-z0-9.-]+:)?[a-z0-9][a-z0-9-]*", project):
        raise RefusedError(f"Permission denied on resource project {project}.", status=403)


def _counted(body: dict[str, Any], model: str) -> dict[str, Any]:
    inner = body.get("generateContentRequest")
    if inner is not None and "contents" in body:
        raise RefusedError("contents and generate_content_request are mutually exclusive.")
    if inner is not None and inner.get("model") != f"models/{model}":
        raise RefusedError("generate_content_request.model must name the same model.")
    counted: dict[str, Any] = body if inner is None else inner
    if not counted.get("contents"):
        # The text that AI Studio gives (zed-industries/zed issue 17343, 2024).
        raise RefusedError("CountTokens requires generate_content_request or contents to be set.")
    return counted


def _judge(value: Any, message: str, path: str) -> None:
    """Check a message and all messages in it."""
    if not isinstance(value, dict):
        raise RefusedError(f"Invalid value at '{path}'.")
    for given, inner in value.items():
        name, place = _camel_case(given), f"{path}.{given}".strip(".")
        if name not in _MESSAGES[message]:
            unknown = f"Unknown name \"{name}\" at '{path}': Cannot find field."
            raise RefusedError(f"Invalid JSON payload received. {unknown}")
        kind = _MESSAGES[message][name]
        if kind.endswith("[]"):
            if not isinstance(inner, list):
                raise RefusedError(f"Invalid value at '{place}'.")
            for index, item in enumerate(inner):
                _judge(item, kind.removesuffix("[]"), f"{place}[{index}]")
        elif kind:
            _judge(inner, kind, place)
    _judge_values(value, message, path)


def _camel_case(name: str) -> str:
    """Proto JSON takes both spellings of a field, and google-genai writes both."""
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _judge_values(value: dict[str, Any], message: str, path: str) -> None:
    if message == "Content" and not value.get("parts"):
        raise RefusedError(f"* {path}.parts: contents.parts must not be empty.")
    if message == "Content" and value.get("role", "user") not in ("user", "model"):
        raise RefusedError("Please use a valid role: user, model.")
    if message in ("Part", "Media") and len(value) != 1:
        raise RefusedError(f"* {path}.data: required oneof field 'data' must have one initialized.")
    if message in ("Call", "Response", "Function") and not _NAME.fullmatch(str(value.get("name"))):
        raise RefusedError(f"* {path}.name: Invalid function name.")
    for name in ("args", "response", "parametersJsonSchema"):
        if not isinstance(value.get(name, {}), dict):
            raise RefusedError(f"Invalid value at '{path}.{name}'.")
    if message == "Blob" and not _is_base64(value.get("data")):
        raise RefusedError(f"Invalid value at '{path}.data': Base64 decoding failed.")
    if message == "Calling" and value.get("mode") not in (1, 2, 3, "AUTO", "ANY", "NONE"):
        raise RefusedError(f"Invalid value at '{path}.mode'.")


def _is_base64(data: Any) -> bool:
    """Proto JSON takes both alphabets."""
    try:
        base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (AttributeError, ValueError):
        return False
    return True
