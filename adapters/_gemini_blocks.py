"""Anthropic content blocks → Gemini parts. What is text is passed on as it was written.

    {"type":"text","text":"Hi"}                                  →  {"text":"Hi"}
    {"type":"image","source":{"type":"base64",…}}                →  {"inlineData":{…}}
    {"type":"tool_use","id":"t","name":"f","input":{}}           →  {"functionCall":{…}}
    {"type":"tool_result","tool_use_id":"t","content":"15"}      →  {"functionResponse":{…}}

No vendor defines this conversion; the shapes are those recorded of google-genai 2.34.0 (2026-11).
"""

import string
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Raw

from adapters._gemini_json import Fields, Members, Reader, is_given, is_string, join_strings
from adapters.base import CannotExpressError

Part = tuple[bytes, bytes]
"""A Gemini part of one member: how it begins, and the member's value as JSON."""

TEXT = b'{"text":'
INLINE_DATA = b'{"inlineData":'
FUNCTION_CALL = b'{"functionCall":'
FUNCTION_RESPONSE = b'{"functionResponse":'

FIELDS: Mapping[str, Fields] = {
    "text": Fields(frozenset({"type", "text"}), frozenset({"cache_control", "citations"})),
    "image": Fields(frozenset({"type", "source"}), frozenset({"cache_control", "transformations"})),
    "document": Fields(
        frozenset({"type", "source", "title", "context"}), frozenset({"cache_control", "citations"})
    ),
    "search_result": Fields(
        frozenset({"type", "source", "title", "content"}), frozenset({"cache_control", "citations"})
    ),
    "tool_use": Fields(
        frozenset({"type", "id", "name", "input"}), frozenset({"cache_control", "caller"})
    ),
    "tool_result": Fields(
        frozenset({"type", "tool_use_id", "content", "is_error"}), frozenset({"cache_control"})
    ),
}
DROPPED = frozenset({"thinking", "redacted_thinking"})
"""Claude's own reasoning: its signature means nothing to Gemini and is never sent there."""

IN_MESSAGE = frozenset(FIELDS) | DROPPED
IN_TOOL_RESULT = frozenset({"text", "image", "document", "search_result"})
IN_DOCUMENT = frozenset({"text", "image"})
TEXT_ONLY = frozenset({"text"})

# What Anthropic takes (anthropic 2.12.0, 2026-11). Google documents no GIF; whether it counts one
# is its own answer to give.
IMAGES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
PDFS = frozenset({"application/pdf"})
TEXTS = frozenset({"text/plain"})

_ENCODED = Fields(frozenset({"type", "media_type", "data"}))
_CONTENT = Fields(frozenset({"type", "content"}))
_BASE64 = f"{string.ascii_letters}{string.digits}+/".encode()


class Blocks:
    """Converts the blocks of one conversation in their order; remembers the tools it has called."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._tool_names: dict[str, bytes] = {}
        self._converters: Mapping[str, Callable[[Members, str], list[Part]]] = {
            "text": self._text,
            "image": self._image,
            "document": self._document,
            "search_result": self._search_result,
            "tool_use": self._tool_use,
            "tool_result": self._tool_result,
        }

    def parts(self, content: Raw, path: str, allowed: frozenset[str]) -> list[Part]:
        """Convert a string or a list of blocks. Raises CannotExpressError."""
        if is_string(content):
            return _text_part(bytes(content))
        parts: list[Part] = []
        for index, block in enumerate(self._reader.array(content, path)):
            parts += self._block(block, f"{path}.{index}", allowed)
        return parts

    def _block(self, block: Members, path: str, allowed: frozenset[str]) -> list[Part]:
        kind = self._reader.text(block, "type", path)
        if kind not in allowed:
            raise self._reader.refuse_kind(path, "block", kind)
        if kind in DROPPED:
            self._reader.dropped.add(kind)
            return []
        self._reader.sift(block, FIELDS[kind], path)
        return self._converters[kind](block, path)

    def _text(self, block: Members, path: str) -> list[Part]:
        return _text_part(self._reader.string(block, "text", path))

    def _image(self, block: Members, path: str) -> list[Part]:
        source, path, kind = self._source(block, path)
        return [self._media(source, path, kind, IMAGES)]

    def _document(self, block: Members, path: str) -> list[Part]:
        """Title and context come first, as text: Gemini has no place of its own for them."""
        parts = [
            part
            for name in ("title", "context")
            if is_given(block, name)
            for part in _text_part(self._reader.string(block, name, path))
        ]
        source, path, kind = self._source(block, path)
        if kind == "text":
            self._reader.sift(source, _ENCODED, path)
            if is_given(source, "media_type"):
                self._media_type(source, path, TEXTS)
            return parts + _text_part(self._reader.string(source, "data", path))
        if kind == "content":
            self._reader.sift(source, _CONTENT, path)
            content = self._reader.field(source, "content", path)
            return parts + self.parts(content, f"{path}.content", IN_DOCUMENT)
        return [*parts, self._media(source, path, kind, PDFS)]

    def _search_result(self, block: Members, path: str) -> list[Part]:
        heading = [self._reader.string(block, name, path) for name in ("title", "source")]
        content = self._reader.field(block, "content", path)
        return [part for line in heading for part in _text_part(line)] + self.parts(
            content, f"{path}.content", TEXT_ONLY
        )

    def _tool_use(self, block: Members, path: str) -> list[Part]:
        name, id_ = self._reader.string(block, "name", path), self._reader.string(block, "id", path)
        self._tool_names[self._reader.text(block, "id", path)] = name
        arguments = self._reader.object(block, "input", path)
        return [(FUNCTION_CALL, b'{"id":%b,"name":%b,"args":%b}' % (id_, name, arguments))]

    def _tool_result(self, block: Members, path: str) -> list[Part]:
        """Text becomes the function's output, media its parts; the name is looked up by the id.

        Media go into its parts, as Gemini 3 documents them; a model before it answers 400 there
        (maximhq/bifrost pull request 4202, 2026-06), which is true and so passed on.
        """
        name = self._tool_names.get(self._reader.text(block, "tool_use_id", path))
        if name is None:
            raise CannotExpressError(f"{path}.tool_use_id: no tool_use block before it has this id")
        id_ = self._reader.string(block, "tool_use_id", path)
        parts: list[Part] = []
        if is_given(block, "content"):
            parts = self.parts(block["content"], f"{path}.content", IN_TOOL_RESULT)
        key = b"error" if self._is_error(block, path) else b"output"
        output = join_strings([value for opening, value in parts if opening == TEXT])
        response = b'{"id":%b,"name":%b,"response":{"%b":%b}' % (id_, name, key, output)
        media = [part for part in parts if part[0] != TEXT]
        if media:
            return [(FUNCTION_RESPONSE, b"".join((response, b',"parts":', *render(media), b"}")))]
        return [(FUNCTION_RESPONSE, response + b"}")]

    def _is_error(self, block: Members, path: str) -> bool:
        value = bytes(block.get("is_error", Raw(b"false")))
        if value not in (b"true", b"false", b"null"):
            raise CannotExpressError(f"{path}.is_error: must be true or false")
        return value == b"true"

    def _source(self, block: Members, path: str) -> tuple[Members, str, str]:
        """Return a block's source with its own path and its type."""
        path, members = f"{path}.source", self._reader.field(block, "source", path)
        source = self._reader.members(members, path)
        return source, path, self._reader.text(source, "type", path)

    def _media(self, source: Members, path: str, kind: str, types: frozenset[str]) -> Part:
        if kind == "base64":
            return self._inline(source, path, types)
        if kind == "url":
            # An object behind a name may change, and a remembered count would then be wrong.
            raise CannotExpressError(f"{path}.url: URLs are not fetched; send the data as base64")
        raise self._reader.refuse_kind(path, "source", kind)

    def _inline(self, source: Members, path: str, types: frozenset[str]) -> Part:
        self._reader.sift(source, _ENCODED, path)
        media_type = self._media_type(source, path, types)
        data = self._reader.string(source, "data", path)
        if b"\\" in data:
            # Some encoders write / as \/ (PHP's json_encode does).
            data = b'"%b"' % self._reader.text(source, "data", path).encode()
        if not _is_base64(data):
            raise CannotExpressError(f"{path}.data: must be standard base64 with its padding")
        return INLINE_DATA, b'{"mimeType":"%b","data":%b}' % (media_type.encode(), data)

    def _media_type(self, source: Members, path: str, types: frozenset[str]) -> str:
        media_type = self._reader.text(source, "media_type", path)
        if media_type not in types:
            known = ", ".join(sorted(types))
            raise CannotExpressError(f"{path}.media_type: must be one of {known}")
        return media_type


def render(parts: Iterable[Part]) -> Iterator[bytes]:
    """Write parts as a JSON array, in pieces: a large one is copied once, where all are joined."""
    before = b"["
    for opening, value in parts:
        yield before
        yield opening
        yield value
        before = b"},"
    yield b"[]" if before == b"[" else b"}]"


def _text_part(written: bytes) -> list[Part]:
    """An empty text is no part; a content of nothing else is none, and Google refuses one (400)."""
    return [] if written == b'""' else [(TEXT, written)]


def _is_base64(quoted: bytes) -> bool:
    """Judge without decoding: a PDF of 15 MB takes 9 ms so, 38 ms with binascii."""
    padding = quoted.translate(None, _BASE64)
    is_whole = len(quoted) > 2 and len(quoted) % 4 == 2  # noqa: PLR2004 -- the two quotes
    return is_whole and padding in {b'""', b'"="', b'"=="'} and quoted.endswith(padding[1:])
