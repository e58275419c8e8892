"""Headers and body → Question: what is asked, judged once, in the form in which it is hashed."""

import math
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from adapters.base import CountRequest, Secret
from app.errors import ProxyError, invalid_request, not_found
from app.freshness import Freshness, freshness
from app.telemetry.end_user import end_user_of_body, end_user_of_headers
from cache.key import NOT_COUNTED, canonical
from cache.strict_json import InvalidJSONError, compact, members

DEFAULT_VERSION = "2023-06-01"
"""Sent when the client names none: what SDKs 0.x and 1.x send, and the older of the two."""
IDENTITY_HEADERS = ("anthropic-user-profile-id", "anthropic-workspace-id")
MAX_MODEL = 256

MAX_BETAS = 64

# What a header may hold, as the OpenAPI document tells it too.
HEADER_VALUE = r"[\x21-\x7e]{1,256}"
BETA = r"[A-Za-z0-9._:-]{1,128}"
SECONDS = r"(?=.*[1-9])[0-9]{1,6}(?:\.[0-9]{1,6})?"

_is_header_value = re.compile(HEADER_VALUE).fullmatch
_is_beta = re.compile(BETA).fullmatch
_is_seconds = re.compile(SECONDS).fullmatch
_QUERY = re.compile(r"[\x21-\x7e]{0,1024}")


class Question(Struct, frozen=True, gc=False):
    """One request to count, whoever will answer it."""

    model: str
    request: CountRequest
    freshness: Freshness
    end_user: str
    """Named by a header, else by the body."""
    body_end_user: str = ""
    own_credential: Secret | None = None
    """The caller's own upstream credential, where it may be used."""
    native: bool = False
    """Asked on the pass-through: ``model`` is one of Anthropic's own ids."""
    timeout_s: float = math.inf
    """How long the caller waits, where that is less than the configuration allows."""

    def __repr__(self) -> str:
        return f"<Question about {self.model!r}: {self.request!r}>"


class Said(Struct, frozen=True):
    """What the headers of a request say, whatever its body asks."""

    version: str
    betas: tuple[str, ...]
    identity: tuple[tuple[str, str], ...]
    freshness: Freshness
    end_user: str
    timeout_s: float


class ContentBlock(Struct):
    """Anything with a type: what else it holds is the provider's to judge."""

    type: str


class InputMessage(Struct):
    """One turn; its content may be missing in one of role system."""

    role: str
    content: str | list[ContentBlock] | msgspec.UnsetType = msgspec.UNSET


class CountTokensBody(Struct):
    """What every provider needs; fields and blocks that nobody knows yet are not looked at."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    system: str | list[ContentBlock] | None = None
    tools: list[dict[str, msgspec.Raw]] | None = None


_shape = msgspec.json.Decoder(CountTokensBody)


def decode(
    headers: Mapping[str, str],
    body: bytes,
    mapped_headers: tuple[str, ...] = (),
    own_credential: Secret | None = None,
) -> Question:
    """Read a request of the unified route. Raises ProxyError 400, 404 or 415."""
    check_content(headers)
    asked = _read(body, NOT_COUNTED)
    return _compose(asked, said(headers, mapped_headers), own_credential=own_credential)


def decode_native(
    headers: Mapping[str, str],
    body: bytes,
    query: str,
    mapped_headers: tuple[str, ...] = (),
    own_credential: Secret | None = None,
) -> Question:
    """Read a request of the pass-through: every field and the query go on as they are."""
    check_query(query)
    check_content(headers)
    asked = _read(body, frozenset())
    return _compose(asked, said(headers, mapped_headers), query, own_credential)


def decode_after(headers: Said, body: bytes, query: str | None = None) -> Question:
    """Read a body whose headers were read before; with a ``query`` on the pass-through.

    Raises ProxyError 400 or 404.
    """
    return _compose(_read(body, NOT_COUNTED if query is None else frozenset()), headers, query)


def said(headers: Mapping[str, str], mapped_headers: tuple[str, ...] = ()) -> Said:
    """Read what headers say about any question. Raises ProxyError 400."""
    return Said(
        version=_version(headers),
        betas=_betas(headers),
        identity=_identity(headers),
        freshness=freshness(headers.get("cache-control")),
        end_user=end_user_of_headers(headers, mapped_headers),
        timeout_s=_timeout_s(headers.get("x-litellm-timeout")),
    )


def _read(body: bytes, without: frozenset[str]) -> tuple[str, bytes, str]:
    """Read a body: the model, what is counted, and the end user it names. Raises ProxyError."""
    if not body.strip():
        raise invalid_request("model: Field required (the request body is empty)")
    try:
        compacted = compact(body)
        found = members(compacted)
    except InvalidJSONError as error:
        raise invalid_request(f"the request body is not valid JSON: {error}") from None
    model = _judge(compacted).model
    return model, canonical(found, without), end_user_of_body(found)


def _compose(
    asked: tuple[str, bytes, str],
    headers: Said,
    query: str | None = None,
    own_credential: Secret | None = None,
) -> Question:
    model, counted, named = asked
    return Question(
        model=model,
        request=CountRequest(
            body=counted,
            version=headers.version,
            betas=headers.betas,
            identity=headers.identity,
            query=query or "",
        ),
        freshness=headers.freshness,
        end_user=headers.end_user or named,
        body_end_user=named,
        own_credential=own_credential,
        native=query is not None,
        timeout_s=headers.timeout_s,
    )


def check_query(query: str) -> None:
    """Refuse a query of the pass-through that cannot go on as it is. Raises ProxyError 400."""
    if not _QUERY.fullmatch(query):
        raise invalid_request("query: must hold visible ASCII characters only, at most 1,024")


def check_content(headers: Mapping[str, str]) -> None:
    """Refuse bodies that are no plain JSON text; a missing content type is taken for JSON.

    Raises ProxyError 415.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise invalid_request(
            "content-encoding: request bodies must be sent uncompressed", status=415
        )
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise invalid_request("content-type: must be application/json", status=415)


def _judge(compacted: bytes) -> CountTokensBody:
    try:
        shape = _shape.decode(compacted)
    except msgspec.ValidationError as error:
        raise invalid_request(explain(str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        raise invalid_request("the request body is not valid JSON") from None
    for index, message in enumerate(shape.messages):
        # A system message may only carry an output_config (anthropic 2.12.0, 2026-11).
        if message.content is msgspec.UNSET and message.role != "system":
            raise invalid_request(f"messages.{index}.content: Field required")
    if len(shape.model) > MAX_MODEL:
        raise refuse_unknown(f"{shape.model[:64]}…")
    return shape


_AT = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_EMPTY = re.compile(r"Expected `(?:array|str)` of length >= 1")


def explain(text: str) -> str:
    """Turn msgspec's ``… - at `$.messages[2].content``` into ``messages.2.content: …``.

    msgspec names types and places, never values (0.22).
    """
    match = _AT.fullmatch(text)
    problem, where = (match[1], match[2] or "") if match else (text, "")
    path = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", where).strip(".")
    if missing := _MISSING.fullmatch(problem):
        return f"{path}.{missing[1]}: Field required".strip(".")
    if _EMPTY.fullmatch(problem):
        problem = "must not be empty"
    return f"{path}: {problem}" if path else f"the request body: {problem}"


def _timeout_s(given: str | None) -> float:
    """Read LiteLLM's header: seconds. Raises ProxyError 400 for what is no time to wait."""
    if given is None:
        return math.inf
    if not _is_seconds(given):
        raise invalid_request("x-litellm-timeout: must be a number of seconds above 0, such as 2.5")
    return float(given)


def _version(headers: Mapping[str, str]) -> str:
    version = headers.get("anthropic-version", "").strip() or DEFAULT_VERSION
    if not _is_header_value(version):
        raise invalid_request("anthropic-version: must hold visible ASCII characters only")
    return version


def _betas(headers: Mapping[str, str]) -> tuple[str, ...]:
    given = all_of(headers, "anthropic-beta")
    betas = sorted({beta.strip() for line in given for beta in line.split(",") if beta.strip()})
    if len(betas) > MAX_BETAS:
        raise invalid_request(f"anthropic-beta: more than {MAX_BETAS} values")
    for beta in betas:
        if not _is_beta(beta):
            raise invalid_request("anthropic-beta: must be names separated by commas")
    return tuple(betas)


def all_of(headers: Mapping[str, str], name: str) -> list[str]:
    """Return every line of a header that may stand on several."""
    getall = getattr(headers, "getall", None)
    return list(getall(name, ())) if getall else [headers[name]] if name in headers else []


def _identity(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found = []
    for name in IDENTITY_HEADERS:
        value = headers.get(name, "").strip()
        if value:
            if not _is_header_value(value):
                raise invalid_request(f"{name}: must hold visible ASCII characters only")
            found.append((name, value))
    return tuple(found)


def refuse_unknown(model: str) -> ProxyError:
    """Say that no deployment has this name; never an estimate, never a guess."""
    return not_found(f"model: {model} is not a name in this configuration; see /v1/models")
