"""Requests that no strict reader takes, each with what would run behind it if one were taken.

The first table is every case that Sanic 25.12.1 by itself takes or answers oddly; the others are
generated around it.
"""

import itertools
from collections.abc import Iterator

import msgspec

from tests.e2e.exchange import COUNT, question, request
from tests.server import KEY

TCHAR = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
IN_QUERY = TCHAR.translate(None, b"#%^`|") + b"(),/:;=?@"
MAX_BODY_BYTES = 200_000
FIVE = "\N{ARABIC-INDIC DIGIT FIVE}".encode()

POST = f"POST {COUNT} HTTP/1.1".encode()
HOST = b"Host: 127.0.0.1"
CHUNKED = b"Transfer-Encoding: chunked"


def body() -> bytes:
    """Compose a question that nobody has asked before."""
    return msgspec.json.encode(question())


def behind() -> bytes:
    """Compose the request that must never run."""
    return request(body())


def head(*fields: bytes, line: bytes = POST, hosts: tuple[bytes, ...] = (HOST,)) -> bytes:
    """Write a head with a valid key and the given fields, exactly as they are."""
    key = f"Authorization: Bearer {KEY}".encode()
    return b"\r\n".join((line, *hosts, key, b"Content-Type: application/json", *fields, b"", b""))


def sized(*fields: bytes, line: bytes = POST, hosts: tuple[bytes, ...] = (HOST,)) -> bytes:
    """Write a request whose body is as long as it says."""
    content = body()
    return head(*fields, b"Content-Length: %d" % len(content), line=line, hosts=hosts) + content


def chunks(content: bytes, size: int = 40) -> bytes:
    """Write a body in chunks."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def chunked(coded: bytes, *fields: bytes) -> bytes:
    return head(CHUNKED, *fields) + coded


def target(path: bytes) -> bytes:
    return sized(line=b"POST %b HTTP/1.1" % path)


def measured() -> dict[str, bytes]:
    """Every case of the measured tables that is refused as malformed."""
    five, text = b"Content-Length: 5", b"5\r\nhello\r\n0\r\n\r\n"
    count = COUNT.encode()
    fields = {
        "length-space-before-colon": b"Content-Length : 5",
        "coding-vt": b"Transfer-Encoding: \x0bchunked",
        "coding-space-before-colon": b"Transfer-Encoding : chunked",
        "length-arabic-digit": b"Content-Length: " + FIVE,
        "length-and-coding": five + b"\r\n" + CHUNKED,
        "coding-and-length": CHUNKED + b"\r\n" + five,
        "two-equal-lengths": five + b"\r\n" + five,
        "two-lengths": five + b"\r\nContent-Length: 6",
        "length-list": b"Content-Length: 5, 5",
        "length-plus": b"Content-Length: +5",
        "length-minus": b"Content-Length: -5",
        "length-underscore": b"Content-Length: 5_0",
        "length-hex": b"Content-Length: 0x5",
        "length-empty": b"Content-Length:",
        "coding-other-case": b"Transfer-Encoding: Chunked",
        "coding-list": b"Transfer-Encoding: gzip, chunked",
        "coding-identity": b"Transfer-Encoding: identity",
        "coding-unknown": b"Transfer-Encoding: xchunked",
        "coding-twice": CHUNKED + b"\r\n" + CHUNKED,
        "value-cr": b"X-A: a\rb",
        "value-lf": b"X-A: a\nb: c",
        "value-nul": b"X-A: a\0b",
        "value-latin-1": b"X-A: \xe9",
        "obs-fold": b"X-A: a\r\n b: c",
        "obs-fold-tab": b"X-A: a\r\n\tb",
        "empty-name": b": a",
        "no-colon": b"X-A",
        "many-headers": b"\r\n".join(b"x%d: 1" % number for number in range(900)),
    }
    lines = {
        "http-2": b"PRI * HTTP/2.0",
        "http-9.9": POST.replace(b"1.1", b"9.9"),
        "http-1.2": POST.replace(b"1.1", b"1.2"),
        "http-lower": POST.replace(b"HTTP", b"http"),
        "leading-line-end": b"\r\n" + POST,
        "leading-space": b" " + POST,
        "two-spaces": POST.replace(b" ", b"  ", 1),
        "space-at-the-end": POST + b" ",
        "method-lf": b"X\n" + POST,
        "absolute-form": POST.replace(count, b"http://a" + count),
        "authority-form": b"CONNECT a:80 HTTP/1.1",
        "asterisk-form": b"OPTIONS * HTTP/1.1",
        "target-control": POST.replace(count, count + b"\x01"),
        "target-tab": POST.replace(count, count + b"\ta"),
        "target-not-ascii": POST.replace(count, count + b"?\xc3\xa9"),
        "target-fragment": POST.replace(count, count + b"#x"),
        "target-half-escape": POST.replace(count, count + b"%2"),
    }
    hosts: dict[str, tuple[bytes, ...]] = {
        "no-host": (),
        "two-hosts": (HOST, HOST),
        "empty-host": (b"Host:",),
        "host-that-is-none": (b"Host: a b/?x#",),
        "host-list": (b"Host: a, b",),
        "host-with-user": (b"Host: a@b",),
    }
    coded = {
        "chunk-0x": b"0x5\r\nhello\r\n0\r\n\r\n",
        "chunk-space": b" 5\r\nhello\r\n0\r\n\r\n",
        "chunk-arabic-digit": FIVE + b"\r\nhello\r\n0\r\n\r\n",
        "chunk-no-line-end": b"5\r\nhello0\r\n\r\n",
        "chunk-other-line-end": b"5\r\nhelloXX0\r\n\r\n",
        "chunk-extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
        "chunk-extension-lf": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        "trailer": b"5\r\nhello\r\n0\r\nX-A: a\r\n\r\n",
        "trailer-smuggling": b"5\r\nhello\r\n0\r\n" + behind(),
        "chunk-of-many-digits": b"0" * 17 + b"5\r\nhello\r\n0\r\n\r\n",
    }
    return {
        **{name: head(field) + text for name, field in fields.items()},
        **{name: sized(line=line) for name, line in lines.items()},
        **{name: sized(hosts=host) for name, host in hosts.items()},
        **{name: chunked(text) for name, text in coded.items()},
        "bare-lf": sized().replace(b"\r\n", b"\n"),
        "coding-in-1.0": head(CHUNKED, line=POST.replace(b"1.1", b"1.0")) + text,
    }


def codings() -> Iterator[bytes]:
    """Ways to hide a transfer-encoding from one of two readers."""
    odd = [b"\0", b"\x01", b"\t", b"\n", b"\x0b", b"\x0c", b"\r", b"\x1f", b" ", b'"', b"'", b","]
    odd += [b";", b"\x7f", b"\x85", b"\xa0", b"\xff", "\u00a0".encode(), "\u3000".encode()]
    content = chunks(body())
    for byte in odd:
        if byte not in (b"\t", b" "):  # before a value they are what the grammar allows
            yield head(b"Transfer-Encoding:%bchunked" % byte) + content
        yield head(b"Transfer-Encoding: chunked%b" % byte) + content
        yield head(b"Transfer-Encoding: chu%bnked" % byte) + content
        for name in (b"Transfer-Encoding%b: chunked", b"%bTransfer-Encoding: chunked"):
            if byte != b"'":  # a character of names: another header, which is not ours to judge
                yield head(name % byte, b"Content-Length: 5") + content
    names = (b"Transfer-Encoding", b"transfer-encoding", b"TRANSFER-ENCODING")
    values = (b"CHUNKED", b"chunked, chunked", b"chunked, identity", b"x, chunked", b"cow", b"")
    for name, value in itertools.product(names, values):
        yield head(b"%b: %b" % (name, value)) + content
        yield head(CHUNKED, b"%b: %b" % (name, value)) + content


def lengths() -> Iterator[bytes]:
    """Lengths that some reader takes for another number, or for none."""
    marks = [b"+", b"-", b"_", b".", b",", b";", b"'", b'"', b"\0", b"\x0b", b"\x0c", b"\r", b"\n"]
    marks += [b"x", b"e", b"\x7f", b"\x85", b"\xa0", "\u00a0".encode(), FIVE, b" 1"]
    content = body()
    number = b"%d" % len(content)
    for mark in marks:
        for value in (mark + number, number + mark, number[:1] + mark + number[1:], mark):
            if value not in (b"x", b" 1") and not value.startswith(b" 1"):
                yield head(b"Content-Length: " + value) + content
    for first, second in itertools.product((number, b"0", b"7"), repeat=2):
        yield head(b"Content-Length: " + first, b"content-length: " + second) + content
        yield head(b"Content-Length: %b, %b" % (first, second)) + content
        yield head(b"Content-Length: " + first, CHUNKED, b"Content-Length: " + second) + content


def names() -> Iterator[bytes]:
    """A byte in a header's name that no name may hold."""
    for number in range(256):
        byte = bytes([number])
        if byte not in TCHAR + b":":
            yield sized(b"x%by: 1" % byte)


def values() -> Iterator[bytes]:
    """A byte in a header's value that no value may hold, or that is no text."""
    for number in (*range(9), *range(10, 32), *range(127, 256)):
        yield sized(b"X-A: a%bb" % bytes([number]))


def targets() -> Iterator[bytes]:
    """A byte that a target may not hold; or a target that does not begin with a slash."""
    for number in range(256):
        if (byte := bytes([number])) not in IN_QUERY:
            yield target(f"{COUNT}?a".encode() + byte)
    for path in (b"", b"*", b"v1", b"?a", b"http://a/", b"//a b", b"/%zz", b"/%", b"\\", b"a:80"):
        yield target(path)


def methods() -> Iterator[bytes]:
    """A byte that a method may not hold."""
    for number in range(256):
        if (byte := bytes([number])) not in TCHAR:
            yield sized(line=POST.replace(b"PO", b"PO" + byte, 1))


def line_ends() -> Iterator[bytes]:
    """Another end in the place of each line's own."""
    lines = sized(b"X-A: a").split(b"\r\n")
    for at in range(len(lines) - 1):
        for end in (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\0\r\n", b"\r\n\n"):
            last_one = at == len(lines) - 2
            if not (last_one and end[:2] == b"\r\n"):  # there the head has ended
                yield b"\r\n".join(lines[: at + 1]) + end + b"\r\n".join(lines[at + 1 :])


def codes() -> Iterator[bytes]:
    """A well-formed chunked body, spoilt in each place by each of many bytes, or by one less."""
    valid = b"5\r\nhello\r\n0\r\n\r\n"
    odd = [b" ", b"\t", b"\r", b"\n", b"\0", b"\x0b", b"+", b"-", b"_", b"x", b";", b",", b'"']
    odd += [b"\x7f", b"\x85", b"\xff", FIVE, b"\r\n"]
    for at, mark in itertools.product(range(len(valid)), odd):
        spoilt = valid[:at] + mark + valid[at:]
        if not spoilt.startswith(valid):
            yield chunked(spoilt)
    for at in range(len(valid)):
        if valid[at : at + 1] not in (b"5", b"0"):
            yield chunked(valid[:at] + valid[at + 1 :])
