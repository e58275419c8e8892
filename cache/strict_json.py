"""A JSON object judged strictly and split at its top level, with nothing below it touched.

The two things a decoder would do silently are refused or kept apart here: a name written twice
is an error, and numbers, escapes and the order of keys below the top level stay as spelled.
"""

import json  # noqa: TID251 -- the only decoder that shows a name written twice

import msgspec

MAX_DEPTH = 200

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ONLY_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_OPENING = frozenset(b"[{")


class InvalidJSONError(Exception):
    """Not a JSON object, or not one that can be read in one way only; the text names no content."""


def compact(raw: bytes) -> bytes:
    """Judge the whole text and take out insignificant white space, and only that.

    Raises InvalidJSONError for bad grammar, bad UTF-8 and nesting deeper than MAX_DEPTH.
    """
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_too_deep(raw):
        raise InvalidJSONError(f"nested deeper than {MAX_DEPTH} levels")
    try:
        # Neither format nor Raw looks at UTF-8 inside strings (msgspec 0.22).
        raw.decode()
        return msgspec.json.format(raw, indent=-1)
    except UnicodeDecodeError as error:
        raise InvalidJSONError(f"not UTF-8 (byte {error.start})") from None
    except msgspec.DecodeError as error:
        raise InvalidJSONError(str(error)) from None
    except RecursionError:
        raise InvalidJSONError(f"nested deeper than {MAX_DEPTH} levels") from None


def members(compacted: bytes) -> dict[str, msgspec.Raw]:
    """Split a compact object into its top-level members.

    Raises InvalidJSONError when it is no object, or when a name is written twice: what is hashed
    and what is sent must be the same one.
    """
    try:
        found = _members.decode(compacted)
    except msgspec.ValidationError:
        raise InvalidJSONError("the body must be a JSON object") from None
    plain = sum(
        len(msgspec.json.encode(name)) + len(memoryview(value)) + 2 for name, value in found.items()
    )
    # Every member is `"name":value`, joined by commas: a member that was overwritten leaves the
    # sum short. So does a name spelled with escapes, which the second look tells apart.
    if found and plain + 1 != len(compacted):
        names = _top_level_names(compacted)
        if len(names) != len(set(names)):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidJSONError(f"{twice[:64]}: written twice at the top level")
    return found


def _top_level_names(compacted: bytes) -> list[str]:
    names: list[str] = json.loads(
        compacted,
        object_pairs_hook=lambda pairs: [name for name, _ in pairs],
        parse_int=len,
        parse_float=len,
    )
    return names


def _is_too_deep(raw: bytes) -> bool:
    """Follow the brackets outside strings; says nothing about text that is not JSON."""
    bare = raw.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _ONLY_BRACKETS)
    depth = 0
    for part in bare.split(b'"')[::2]:
        for byte in part:
            depth += 1 if byte in _OPENING else -1
            if depth > MAX_DEPTH:
                return True
    return False
