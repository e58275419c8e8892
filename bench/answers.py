"""What a right answer looks like on the wire."""

import re

import msgspec
from msgspec import Struct

OK = b"HTTP/1.1 200 "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)(?:\r\n|$)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked(?:\r\n|$)", re.IGNORECASE)
_HEX = re.compile(rb"[0-9a-fA-F]+")


class WrongAnswerError(Exception):
    """The server under test did not answer what it had to: the figures would mean nothing."""


class _Reply(Struct):
    input_tokens: int


_reply = msgspec.json.Decoder(_Reply).decode


def body_of(data: bytes) -> bytes | None:
    """Cut out the body of the one answer in ``data``; None while it is incomplete.

    Raises WrongAnswerError for anything but one answer with status 200.
    """
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return None
    if not head.startswith(OK):
        raise WrongAnswerError("not an answer with status 200")
    if _CHUNKED.search(head):
        return _unchunked(body)
    length = _LENGTH.search(head)
    if not length or len(body) > int(length[1]):
        raise WrongAnswerError("not one answer with a content-length")
    return body if len(body) == int(length[1]) else None


def _unchunked(data: bytes) -> bytes | None:
    found = b""
    while True:
        size, line_end, data = data.partition(b"\r\n")
        if not line_end:
            return None
        if not _HEX.fullmatch(size):
            raise WrongAnswerError("not the size of a chunk")
        length = int(size, 16)
        end = data[length : length + 2]
        if not b"\r\n".startswith(end) or (not length and len(data) > 2):
            raise WrongAnswerError("not one answer in chunks")
        if len(end) < 2:
            return None
        found += data[:length]
        if not length:
            return found
        data = data[length + 2 :]


def tokens_of(body: bytes) -> int:
    """Read the count. Raises WrongAnswerError where there is none."""
    try:
        return _reply(body).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongAnswerError(str(error)) from error
