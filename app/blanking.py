"""Replies without the credentials that they were asked with: a provider may quote what it was sent.

Blanked before an adapter reads a reply, so that no field of it is forgotten and none is cut within
a credential.
"""

import re
from collections.abc import Iterable

import msgspec

from adapters.base import UpstreamRequest
from app.upstream import UpstreamReply

BLANK = "***"
_HEADERS = frozenset({"x-api-key", "authorization", "x-goog-api-key", "x-amz-security-token"})
# A string of a JSON text; of one that breaks off, what there is.
_string = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
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
    """Blank credentials out of every string of a JSON text, however it spells them.

    String by string, since an adapter reads what no decoder takes as a whole: it skips what it does
    not know. Of a name that stands twice both are searched; all else stays as it is.
    """
    spelled = [msgspec.json.encode(one)[1:-1] for one in credentials]
    others = (b"\\u", b"\\/")  # the other ways to spell a character
    if not any(one in text for one in (*others, *spelled)):
        return text

    shortest = min(map(len, credentials), default=len(text))

    def blanked(found: re.Match[bytes]) -> bytes:
        if len(found[0]) < shortest:
            return found[0]
        try:
            value: str = msgspec.json.decode(found[0], type=str)
        except (msgspec.DecodeError, UnicodeError):
            return b'"***"'  # nothing that can be read is lost
        clean = _blank(value, credentials)
        return found[0] if clean == value else msgspec.json.encode(clean)

    return _string.sub(blanked, text)


def _blank(value: str, credentials: Iterable[str]) -> str:
    for one in credentials:
        value = value.replace(one, BLANK)
    return value
