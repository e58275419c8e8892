"""A reply of status 200, read so that it can mean one thing only.

    {"input_tokens":14}   {"inputTokens":14}   {"totalTokens":14,"promptTokensDetails":[…]}

Whatever else it says, it says its count once, as an integer from 1 to 10^9. A zero is refused too:
a valid request has at least one token, and clients have believed a 0 (sub2api issue 635, 2026).
"""

import msgspec
from msgspec import Raw

from adapters.base import MalformedUpstreamError

MAX_COUNT = 1_000_000_000

_MEMBERS = msgspec.json.Decoder(dict[str, Raw])
_INTEGER = msgspec.json.Decoder(int, strict=True)


def read_members(body: bytes) -> dict[str, Raw]:
    """Split a reply's object, each value as it was sent but for white space.

    Raises MalformedUpstreamError, also where a name stands twice: a decoder would take the last.
    """
    try:
        compact = msgspec.json.format(body, indent=-1)
        compact.decode()
        members = _MEMBERS.decode(compact)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedUpstreamError("the reply is no JSON object") from error
    # Every member is `"name":value`, joined by commas: one that was overwritten is missed here.
    plain = sum(
        len(msgspec.json.encode(name)) + len(memoryview(value)) + 2
        for name, value in members.items()
    )
    if members and plain + 1 != len(compact):
        raise MalformedUpstreamError("the reply says something twice")
    return members


def take_tokens(members: dict[str, Raw], name: str) -> int:
    """Take the count out of a reply's members. Raises MalformedUpstreamError."""
    try:
        tokens = _INTEGER.decode(members.pop(name))
    except (msgspec.DecodeError, KeyError) as error:
        raise MalformedUpstreamError(f"the reply holds no integer {name}") from error
    if not 1 <= tokens <= MAX_COUNT:
        raise MalformedUpstreamError(f"the reply's {name} is not a possible count")
    return tokens
