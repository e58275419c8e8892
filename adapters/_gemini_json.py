"""Reads a request piece by piece, and leaves every piece that only passes through as raw JSON.

A refusal names the place (``messages.3.content.1``) and kinds of input, never what stands there.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from adapters.base import CannotExpressError

Members = dict[str, Raw]
"""An object's members in their order, each value as it was written."""


class Fields(Struct, frozen=True):
    """What an object may hold: fields with a counterpart, and fields left out and named."""

    mapped: frozenset[str]
    dropped: frozenset[str] = frozenset()


_T = TypeVar("_T")
_MEMBERS = msgspec.json.Decoder(Members)
_ARRAY = msgspec.json.Decoder(list[Members])
_TEXT = msgspec.json.Decoder(str)
_SAYS_NOTHING = (b"null", b"[]")

# A kind of block, tool or field is quoted back only where it looks like one: it may be content.
_NAME = re.compile(r"[a-z0-9_]{1,64}")


class Reader:
    """Reads values at known places, for one request. Its methods raise CannotExpressError."""

    def __init__(self, provider: str) -> None:
        self.dropped: set[str] = set()
        """Kinds of input that have been left out."""
        self._cannot = f"cannot be counted by provider {provider}"

    def sift(self, members: Members, fields: Fields, path: str) -> None:
        """Note what is left out, and refuse what nobody knows: it may carry tokens."""
        mapped = fields.mapped
        for name in members:
            if name in mapped or bytes(members[name]) in _SAYS_NOTHING:
                continue
            if name not in fields.dropped:
                raise self.refuse_field(path, name)
            self.dropped.add(name)

    def members(self, value: Raw | bytes, path: str) -> Members:
        """Split an object."""
        members = _decode(_MEMBERS, value, path, "an object")
        _check_whole([members], value, path, around=0)
        return members

    def array(self, value: Raw | bytes, path: str) -> list[Members]:
        """Split a list of objects."""
        objects = _decode(_ARRAY, value, path, "a list of objects")
        if objects:
            _check_whole(objects, value, path, around=len(objects) + 1)
        return objects

    def text(self, members: Members, name: str, path: str) -> str:
        """Decode a string that decides something."""
        value = self.field(members, name, path)
        try:
            return _TEXT.decode(value)
        except msgspec.DecodeError:
            raise CannotExpressError(f"{at(path, name)}: must be a string") from None

    def string(self, members: Members, name: str, path: str) -> bytes:
        """Return a string as it is written, quotes and escapes included."""
        value = bytes(self.field(members, name, path))
        if value[:1] != b'"':
            raise CannotExpressError(f"{at(path, name)}: must be a string")
        return value

    def object(self, members: Members, name: str, path: str) -> bytes:
        """Return an object as it is written."""
        value = bytes(self.field(members, name, path))
        if value[:1] != b"{":
            raise CannotExpressError(f"{at(path, name)}: must be an object")
        return value

    def field(self, members: Members, name: str, path: str) -> Raw:
        """Return a member that must be there."""
        try:
            return members[name]
        except KeyError:
            raise CannotExpressError(f"{at(path, name)}: Field required") from None

    def refuse_kind(self, path: str, what: str, kind: str) -> CannotExpressError:
        """Say that a block, source or tool of this ``type`` has no counterpart."""
        named = f"{what} type '{kind}'" if _NAME.fullmatch(kind) else f"this {what} type"
        return CannotExpressError(f"{path}: {named} {self._cannot}")

    def refuse_field(self, path: str, name: str) -> CannotExpressError:
        """Say that a field has no counterpart."""
        if not _NAME.fullmatch(name):
            return CannotExpressError(f"{path or 'the request body'}: a field {self._cannot}")
        return CannotExpressError(f"{at(path, name)}: {self._cannot}")


def at(path: str, name: str) -> str:
    """Name the place of a member; the request itself has the empty path."""
    return f"{path}.{name}" if path else name


def is_given(members: Members, name: str) -> bool:
    """Say whether an optional member is there and not null."""
    return name in members and bytes(members[name]) != b"null"


def is_string(value: Raw) -> bool:
    """Tell a string from other JSON values by its first character."""
    return memoryview(value)[0] == _QUOTE


_QUOTE = ord('"')


def join_strings(strings: list[bytes]) -> bytes:
    """Write strings as one, a line break between them, each as it is written."""
    return b'"%b"' % b"\\n".join(string[1:-1] for string in strings)


def _decode(decoder: msgspec.json.Decoder[_T], value: Raw | bytes, path: str, what: str) -> _T:
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CannotExpressError(f"{path}: must be {what}") from None


def _check_whole(objects: list[Members], value: Raw | bytes, path: str, around: int) -> None:
    """Account for every byte: of a member written twice only the last has been read.

    The text is compact; what stands around the objects are a list's brackets and commas.
    """
    written = len(memoryview(value)) - around
    if _size(objects, len) != written and _size(objects, _written_length) != written:
        raise CannotExpressError(f"{path}: a field is written twice, or its name with escapes")


def _size(objects: list[Members], length: Callable[[str], int]) -> int:
    """Add up objects of members `"name":value`, joined by commas."""
    size = 0
    for members in objects:
        values = sum([len(memoryview(value)) for value in members.values()])
        size += sum(map(length, members)) + values + 4 * len(members) + (1 if members else 2)
    return size


def _written_length(name: str) -> int:
    return len(msgspec.json.encode(name)) - 2
