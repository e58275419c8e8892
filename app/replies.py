"""The bodies that this server answers with, as types: what is written, and what is documented."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

JSON = "application/json"


class Counted(Struct):
    """A count. Members that the provider adds, such as ``context_management``, stand beside it."""

    input_tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)]


class ErrorObject(Struct):
    """What went wrong; a provider's ``details`` may stand beside it."""

    type: str
    message: str


class ErrorBody(Struct, tag_field="type", tag="error"):
    """Anthropic's error body; ``request_id`` is that of the ``request-id`` header."""

    error: ErrorObject
    request_id: str


class Model(Struct):
    """A name that may be asked for."""

    id: str
    type: Literal["model"] = "model"
    object: Literal["model"] = "model"


class ModelList(Struct):
    """The names that the caller's key may use; wildcards as they stand in the configuration."""

    data: list[Model]
    object: Literal["list"] = "list"
    has_more: Literal[False] = False


class Taken(Struct):
    """Taken, and forgotten."""

    status: Literal["ok"] = "ok"


class Readiness(Struct):
    """Whether this server takes requests."""

    status: Literal["healthy", "shutting_down"]


class Memo(Struct):
    """The exact bytes whose answers are known."""

    entries: int


class CacheStats(Struct):
    """What the worker that answers remembers; a tier that is not configured is null."""

    worker: int
    memo: Memo
    local: dict[str, int]
    host: dict[str, Any] | None
    cluster: dict[str, Any] | None
    generations: dict[str, int]
    tallygate_cache_total: dict[str, dict[str, int]]


Sum = Annotated[int, Meta(ge=0)]


class UsageRow(Struct, kw_only=True):
    """What was used by one group; of its names those that are grouped by."""

    key: str | UnsetType = UNSET
    end_user: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    upstream_model: str | UnsetType = UNSET
    provider: str | UnsetType = UNSET
    source: str | UnsetType = UNSET
    minute: str | UnsetType = UNSET
    hour: str | UnsetType = UNSET
    day: str | UnsetType = UNSET
    requests: Sum
    input_tokens: Sum
    upstream_calls: Sum
    errors: Sum
    upstream_calls_saved: Sum


class UsageReport(Struct, kw_only=True):
    """The ledger's answer; ``truncated``: there are more rows than ``limit``."""

    object: Literal["usage"] = "usage"
    since: str
    until: str
    complete_until: str
    """What was counted until then is in it; of what came later, some."""
    group_by: list[str]
    truncated: bool
    data: list[UsageRow]


def counted(input_tokens: int, extra: bytes) -> bytes:
    """Write a count and the raw members ``b',"name":value'`` that follow it."""
    return b"%b%b}" % (msgspec.json.encode(Counted(input_tokens))[:-1], extra)


def failed(type_: str, message: str, details: bytes, request_id: str) -> bytes:
    """Write an error; ``details`` are raw members of the error object, as above."""
    body = msgspec.json.encode(ErrorBody(ErrorObject(type_, message), request_id))
    end = body.rindex(b'},"request_id":')
    return b"%b%b%b" % (body[:end], details, body[end:])
