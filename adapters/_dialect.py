"""What clients of Claude on a cloud write into the body in place of a header, lifted out of it.

    {"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["context-1m-2025-08-07"],…}

Bedrock's dialect (AWS, 2026-11) and Vertex AI's (anthropic 2.12.0): neither member means anything
on another cloud, where it would be refused.
"""

from typing import TypeVar

import msgspec
from msgspec import Raw

from adapters.base import CannotExpressError, CountRequest

_T = TypeVar("_T")
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_TEXT = msgspec.json.Decoder(str)
_TEXTS = msgspec.json.Decoder(list[str])


def lifted(count: CountRequest) -> tuple[CountRequest, str]:
    """Give the question without the two members, its betas joined, and the body's own version.

    The version is empty where the body names none. Raises CannotExpressError.
    """
    if b'"anthropic_' not in count.body:
        return count, ""
    members = _MEMBERS.decode(count.body)
    own_betas = members.pop("anthropic_beta", None)
    own_version = members.pop("anthropic_version", None)
    if own_betas is None and own_version is None:
        return count, ""
    betas = _decoded(_TEXTS, own_betas, "anthropic_beta: must be a list of strings") or []
    version = _decoded(_TEXT, own_version, "anthropic_version: must be a string") or ""
    body = b"{%b}" % b",".join(
        b"%b:%b" % (msgspec.json.encode(name), value) for name, value in members.items()
    )
    joined = tuple(sorted({*count.betas, *betas}))
    return msgspec.structs.replace(count, body=body, betas=joined), version


def _decoded(decoder: msgspec.json.Decoder[_T], value: Raw | None, otherwise: str) -> _T | None:
    try:
        return None if value is None else decoder.decode(value)
    except msgspec.DecodeError:
        raise CannotExpressError(otherwise) from None
