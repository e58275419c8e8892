"""What stands before a chunk of a body: no sign, no space, no extension, and no trailer at last."""

import re

from app.errors import invalid_request

# A chunk begins with the line end before it: the head's own, or that of the chunk before.
_chunk = re.compile(rb"\r\n(?:0{1,16}\r\n\r\n|(?!0+\r)([0-9A-Fa-f]{1,16})\r\n)").match
_chunk_begun = re.compile(
    rb"(?:\r(?:\n(?:[0-9A-Fa-f]{1,16}\r?|0{1,16}\r\n\r?)?)?)?",
).fullmatch
_CHUNK_BEGUN_BYTES = 22


def chunk_line(buffer: bytearray) -> tuple[int, int] | None:
    """Read a chunk's size in bytes, 0 for the last one, and where what follows begins.

    None where more is to come. Raises ProxyError 400 for what no chunk begins with.
    """
    line = _chunk(buffer)
    if line is not None:
        return int(line[1], 16) if line[1] else 0, line.end()
    if not _chunk_begun(buffer[:_CHUNK_BEGUN_BYTES]):
        raise invalid_request("malformed chunked body")
    return None
