"""What a right answer looks like on the wire."""

import re

import msgspec
from msgspec import Struct

OK = b"HTTP/1.1 200 "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)(?:\r\n|$)", re.IGNORECASE)


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
    length = _LENGTH.search(head)
    if not head.startswith(OK) or not length or len(body) > int(length[1]):
        raise WrongAnswerError("not one answer with status 200 and a content-length")
    return body if len(body) == int(length[1]) else None


def tokens_of(body: bytes) -> int:
    """Read the count. Raises WrongAnswerError where there is none."""
    try:
        return _reply(body).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongAnswerError(str(error)) from error
