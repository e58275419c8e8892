"""What an image and a PDF page cost, read from their first bytes without decoding a picture.

Images: ceil(width / 28) * ceil(height / 28) tokens after scaling to the model's limits; those of
Claude 4.7 and later are a long edge of 2,576 pixels and 4,784 tokens.
https://platform.claude.com/docs/en/build-with-claude/vision (2026-07)
"""

import binascii
import re
import zlib
from contextlib import suppress

_PATCH = 28
_LONG_EDGE = 2576
IMAGE_CEILING = 4784
"""Tokens of the largest image, and of one whose size cannot be read."""

PDF_PAGE = 3200
"""Tokens of a page: its picture (1,590 to 1,620) and as much text as a full page holds.

Documented as 1,500 to 3,000 for the older tokenizer; full pages of text were measured at 2,347 and
3,182 (docs/estimate.md).
"""

_HEAD_CHARS = 65_536
_SEGMENTS_MOST = 1000
_PAGES_MOST = 1000
_BYTES_PER_HIDDEN_PAGE = 20_000
_INFLATE_MOST = 8 << 20
_MARKER = 0xFF
_FRAME_STARTS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PAGE = re.compile(rb"/Type\s*/Page\b")


def image_tokens(base64_data: str) -> int:
    """Tokens of an image; IMAGE_CEILING if its header cannot be read."""
    width, height = _size(_decoded(base64_data[:_HEAD_CHARS])) or (0, 0)
    if not width and len(base64_data) > _HEAD_CHARS:
        width, height = _size(_decoded(base64_data)) or (0, 0)
    if not (width and height):
        return IMAGE_CEILING
    scale = min(1.0, _LONG_EDGE / max(width, height))
    across, down = (max(1, -(-round(side * scale) // _PATCH)) for side in (width, height))
    return min(IMAGE_CEILING, across * down)


def pdf_pages(base64_data: str) -> int:
    """Count the pages of a PDF by its page objects; by its size where none can be seen."""
    pdf = _decoded(base64_data)
    pages = len(_PAGE.findall(pdf)) + sum(len(_PAGE.findall(part)) for part in _object_streams(pdf))
    return min(_PAGES_MOST, pages or 1 + len(pdf) // _BYTES_PER_HIDDEN_PAGE)


def _decoded(base64_data: str) -> bytes:
    """Decode what is base64 of it: a cut-off end and line breaks are no hindrance."""
    for cut in range(4):
        with suppress(ValueError):
            return binascii.a2b_base64(base64_data[: len(base64_data) - cut] + "===")
    return b""


def _size(image: bytes) -> tuple[int, int] | None:
    """Width and height as PNG, GIF, WebP or JPEG write them into their header."""
    if image.startswith(b"\x89PNG"):
        return _big(image[16:20]), _big(image[20:24])
    if image.startswith(b"GIF8"):
        return _little(image[6:8]), _little(image[8:10])
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return _webp_size(image)
    if image.startswith(b"\xff\xd8"):
        return _jpeg_size(image)
    return None


def _webp_size(image: bytes) -> tuple[int, int] | None:
    match image[12:16]:
        case b"VP8X":
            return _little(image[24:27]) + 1, _little(image[27:30]) + 1
        case b"VP8L":
            bits = _little(image[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return _little(image[26:28]) & 0x3FFF, _little(image[28:30]) & 0x3FFF
    return None


def _jpeg_size(image: bytes) -> tuple[int, int] | None:
    """Walk the segments to the one that starts the frame."""
    at = 2
    for _ in range(_SEGMENTS_MOST):
        if at + 9 > len(image) or image[at] != _MARKER:
            break
        marker = image[at + 1]
        if marker in _FRAME_STARTS:
            return _big(image[at + 7 : at + 9]), _big(image[at + 5 : at + 7])
        at += 1 if marker == _MARKER else 2 + max(2, _big(image[at + 2 : at + 4]))
    return None


def _object_streams(pdf: bytes) -> list[bytes]:
    """Inflate the streams in which a PDF of version 1.5 and later may hide its page objects."""
    parts: list[bytes] = []
    left = _INFLATE_MOST
    at = pdf.find(b"/ObjStm")
    while at != -1 and left > 0:
        start = pdf.find(b"stream", at, at + 400)
        end = pdf.find(b"endstream", start) if start != -1 else at + 7
        if end == -1:
            break
        if start != -1:
            part = _inflated(pdf[start + 6 : end].lstrip(b"\r\n"), left)
            left -= len(part)
            parts.append(part)
        at = pdf.find(b"/ObjStm", end)
    return parts


def _inflated(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return b""


def _big(field: bytes) -> int:
    return int.from_bytes(field, "big")


def _little(field: bytes) -> int:
    return int.from_bytes(field, "little")
