"""Replies without the credentials that they were asked with: a provider may quote what it was sent.

Blanked before an adapter reads a reply, so that no field of it is forgotten and none is cut within
a credential.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from adapters.base import UpstreamRequest
from app.upstream import UpstreamReply

BLANK = "***"
_HEADERS = frozenset({"x-api-key", "authorization", "x-goog-api-key", "x-amz-security-token"})
_SIGNER = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/")


def credentials_of(sent: UpstreamRequest) -> tuple[str, ...]:
    """List what proves who asks, as a text may quote it; the longest first."""
    found: set[str] = set()
    for name, value in sent.headers:
        if name in _HEADERS:
            found |= {value, value.removeprefix("Bearer "), *_SIGNER.findall(value)}
    return tuple(sorted(found - {""}, key=len, reverse=True))


def blanked_reply(reply: UpstreamReply, credentials: tuple[str, ...]) -> UpstreamReply:
    """Blank credentials out of a refusal, its headers included."""
    headers = {name: _blank(value, credentials) for name, value in reply.headers.items()}
    body = blanked_json(reply.body, credentials)
    return msgspec.structs.replace(reply, headers=headers, body=body)


def blanked_json(text: bytes, credentials: tuple[str, ...]) -> bytes:
    """Blank credentials out of the strings of a JSON text, however it spells them.

    Without any it stays as it is, and so does what is no JSON: no adapter can read that either.
    """
    try:
        value = msgspec.json.decode(text)
        plain = msgspec.json.encode(value)
        if not any(msgspec.json.encode(one)[1:-1] in plain for one in credentials):
            return text
        return msgspec.json.encode(_blank(value, credentials))
    except (msgspec.DecodeError, UnicodeError):
        return text
    except RecursionError:
        return b""


def _blank(value: Any, credentials: Iterable[str]) -> Any:
    if isinstance(value, str):
        for one in credentials:
            value = value.replace(one, BLANK)
        return value
    if isinstance(value, list):
        return [_blank(item, credentials) for item in value]
    if isinstance(value, dict):
        return {
            _blank(name, credentials): _blank(item, credentials) for name, item in value.items()
        }
    return value
