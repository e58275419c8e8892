"""The grammar of request heads: what one must look like to be acted on.

RFC 9112 (message syntax), RFC 9110 section 5 (fields), RFC 3986 section 3 (targets). Stricter than
these where two readers might differ on where a request ends or whom it is for; each choice is told
in docs/decisions/0011-strict-heads.md.
"""

import hashlib
import re
from typing import NoReturn

import msgspec

from app.errors import ProxyError, invalid_request
from app.recent import Recent

MAX_FIELDS = 100
MAX_NAME = 64
"""Of a header's name, in a message."""
MAX_LENGTH_DIGITS = 15
MAX_REMEMBERED = 4096
BEYOND_ANY_LIMIT = 10**MAX_LENGTH_DIGITS

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_IN_PATH = rb"[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2}"
_request_line = re.compile(
    rb"(%b) /(?:%b)*(?:\?(?:%b|\?)*)? HTTP/1\.([01])" % (_TOKEN, _IN_PATH, _IN_PATH)
).fullmatch
_field = re.compile(rb"(%b):[\t ]*([\t\x20-\x7e\x80-\xff]*)" % _TOKEN).fullmatch
_name = re.compile(rb"(%b):" % _TOKEN).match
_host = re.compile(
    rb"(?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
).fullmatch
_digits = re.compile(rb"[0-9]+").fullmatch


class Head(msgspec.Struct, frozen=True):
    """What a well-formed head says of its request; never what its fields hold."""

    body_bytes: int
    is_chunked: bool
    expects_continue: bool
    is_for_head: bool


class Heads:
    """The verdicts on heads that were found well-formed, by digest: heads hold credentials.

    A refusal is not kept: it ends its connection.
    """

    def __init__(self, max_entries: int = MAX_REMEMBERED) -> None:
        self._known: Recent[Head] = Recent(max_entries)

    def __len__(self) -> int:
        return len(self._known)

    def judge(self, raw: bytes) -> Head:
        """Return the verdict on a head without its closing empty line. Raises ProxyError."""
        digest = hashlib.sha256(raw).digest()
        head = self._known.get(digest)
        if head is None:
            head = judged(raw)
            self._known.put(digest, head)
        return head


def malformed(what: str) -> ProxyError:
    """Not one request by HTTP's grammar; ``what`` quotes nothing but the name of a header."""
    return invalid_request(f"malformed HTTP request: {what}")


def judged(raw: bytes) -> Head:
    """Judge a head by the grammar. Raises ProxyError."""
    line, *lines = raw.split(b"\r\n")
    request = _request_line(line)
    if request is None:
        raise malformed("its first line must be METHOD, a path and HTTP/1.1 or HTTP/1.0")
    if len(lines) > MAX_FIELDS:
        raise malformed(f"more than {MAX_FIELDS} headers")
    found: dict[bytes, list[bytes]] = {
        name: [] for name in (b"host", b"content-length", b"transfer-encoding", b"expect")
    }
    for line in lines:
        field = _field(line)
        if field is None or not _is_text(field[2]):
            _refuse_field(line)
        name = field[1].lower()
        if name in found:
            found[name].append(field[2])
    is_old = request[2] == b"0"
    _check_host(found[b"host"], is_needed=not is_old)
    is_chunked = _is_chunked(found[b"transfer-encoding"], found[b"content-length"], is_old=is_old)
    body_bytes = _length(found[b"content-length"])
    expects = _expects(found[b"expect"])
    return Head(
        body_bytes=body_bytes,
        is_chunked=is_chunked,
        # RFC 9110 section 10.1.1: without a body, or in 1.0, the expectation is ignored.
        expects_continue=expects and not is_old and (is_chunked or body_bytes > 0),
        is_for_head=request[1] == b"HEAD",
    )


def _is_text(value: bytes) -> bool:
    """Say whether a value is UTF-8: Sanic makes lone surrogates of other bytes (25.12.1)."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_field(line: bytes) -> NoReturn:
    name = _name(line)
    if name is None:
        raise malformed("a header line does not begin with a name and a colon")
    shown = name[1][:MAX_NAME].decode()
    raise malformed(f"the value of {shown} holds a control character, or is not UTF-8")


def _check_host(hosts: list[bytes], *, is_needed: bool) -> None:
    if len(hosts) > 1 or (is_needed and not hosts):
        raise malformed("exactly one host header is needed")
    if hosts and not _host(hosts[0].rstrip(b"\t ")):
        raise malformed("the host header must be a name or an address, and a port at most")


def _is_chunked(codings: list[bytes], lengths: list[bytes], *, is_old: bool) -> bool:
    if not codings:
        return False
    if lengths:
        raise malformed("content-length together with transfer-encoding")
    if is_old:
        raise malformed("HTTP/1.0 has no transfer-encoding")
    if codings != [b"chunked"]:
        raise malformed("the only transfer-encoding taken is chunked, once and written so")
    return True


def _length(lengths: list[bytes]) -> int:
    if not lengths:
        return 0
    digits = lengths[0].rstrip(b"\t ")
    if len(lengths) > 1 or not _digits(digits):
        raise malformed("content-length must be one number of decimal digits")
    return int(digits) if len(digits) <= MAX_LENGTH_DIGITS else BEYOND_ANY_LIMIT


def _expects(expectations: list[bytes]) -> bool:
    if not expectations:
        return False
    if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
        raise invalid_request("the only expectation met is 100-continue", status=417)
    return True
