"""How AWS refuses: a code in a header, a text in the body.

    HTTP/1.1 400
    x-amzn-errortype: ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/
    {"message":"The provided model doesn't support counting tokens."}

Codes and statuses: botocore's service model of bedrock-runtime (1.43.117); those of a refused
signature stand outside it. A text often quotes names that the caller chose ("x: Extra inputs are
not permitted"), so only whole sentences that are known decide anything.
"""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from adapters.base import UpstreamError

MAX_MESSAGE = 2000

BAD_REQUEST, NOT_FOUND, BAD_GATEWAY, OVERLOADED = 400, 404, 502, 529
AUTHENTICATION = frozenset({401, 402, 403})

_REFUSED_CREDENTIAL = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
# A code says more than its status: those of throttling also come with 400 (botocore's retries).
_BY_CODE = {
    "InternalServerException": 500,
    "ModelErrorException": 502,
    "ModelTimeoutException": 504,
    "RequestLimitExceeded": 429,
    "ResourceNotFoundException": 404,
    "SerializationException": 502,
    "ServiceQuotaExceededException": 429,
    "ServiceUnavailableException": 529,
    "Throttling": 429,
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "UnknownOperationException": 502,
    "ValidationException": 400,
}
# What is missing here is the proxy's own fault, or nobody's in particular: a 502.
_BY_STATUS = {
    400: 400,
    404: 404,
    408: 504,
    413: 413,
    429: 429,
    500: 500,
    503: OVERLOADED,
    504: 504,
    529: OVERLOADED,
}
_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# agentgateway 3254 (2026-08). The second is how InvokeModel refuses a bare id that only inference
# profiles serve (aioboto3 352, 2024-12); that CountTokens says it too is UNVERIFIED.
_NOT_COUNTED = re.compile(
    r"The provided model doesn['\u2019]t support counting tokens\.?"
    r"|Invocation of model ID [\w.:/-]{1,256} with on-demand throughput isn['\u2019]t supported\. "
    r"Retry your request with the ID or ARN of an inference profile that contains this model\.?"
)
# claude-code 12621 (2025-11)
_UNKNOWN_MODEL = re.compile(r"The provided model identifier is invalid\.?")
# A refusal of the model is remembered and told to others: in words that are always the same.
NOT_COUNTED = "The provided model doesn't support counting tokens."
UNKNOWN_MODEL = "The provided model identifier is invalid."
# The runtime refuses more than 200,000 tokens even for models with a larger window, and the number
# that it states is exact (botocore 3707, 2026-05).
_TOO_LONG = re.compile(r"prompt is too long: ([1-9]\d{0,8}) tokens > \d+ maximum\.?")


class _Body(Struct):
    message: str | None = None
    Message: str | None = None
    code: str = msgspec.field(name="__type", default="")


_BODY = msgspec.json.Decoder(_Body)


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read a refusal; one without AWS's own text comes from something else that answers there."""
    try:
        found = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _Body()
    code = (headers.get("x-amzn-errortype") or found.code.rpartition("#")[2]).partition(":")[0]
    text = (found.message or found.Message or "").strip()[:MAX_MESSAGE]
    answered = _BY_CODE.get(code) or _BY_STATUS.get(status, BAD_GATEWAY)
    if answered in {BAD_REQUEST, NOT_FOUND} and not text:
        answered = BAD_GATEWAY
    at_fault = text if answered == BAD_REQUEST else ""
    too_long = _TOO_LONG.fullmatch(at_fault)
    refused = NOT_COUNTED if _NOT_COUNTED.fullmatch(at_fault) else ""
    if _UNKNOWN_MODEL.fullmatch(at_fault):
        answered = NOT_FOUND
    if answered == NOT_FOUND:
        refused = UNKNOWN_MODEL
    if not text or answered == BAD_GATEWAY:
        text = f"the provider answered {status}"
    return UpstreamError(
        status=answered,
        type=_TYPES.get(answered, "api_error"),
        message=refused or text,
        reason=_reason(status, code),
        upstream_status=status,
        headers=tuple((name, headers[name]) for name in ("retry-after",) if name in headers),
        upstream_request_id=headers.get("x-amzn-requestid", ""),
        credential_fault=status in AUTHENTICATION or code in _REFUSED_CREDENTIAL,
        credential_expired=code in _EXPIRED,
        model_not_counted=bool(refused),
        stated_count=int(too_long[1]) if too_long else 0,
    )


def _reason(status: int, code: str) -> str:
    """Name the code only if it is one of AWS's: a reason is no place for foreign text."""
    known = code in _REFUSED_CREDENTIAL or code in _BY_CODE
    return f"status {status}, {code}" if known else f"status {status}"
