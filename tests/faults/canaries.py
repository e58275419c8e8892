"""Canaries: a value of its own for each place that holds a secret, and how to find it again.

canaries.of("aws secret")  →  "cq6e1f…/+\\"\\\\"
canaries.found(data)       →  {"aws secret: base64"}
"""

import base64
import json
from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import quote

AWKWARD = '/+="\\~'
"""What JSON, URLs and base64 each write in another way; a header holds it as it is."""


class Canaries:
    """The values by the name of their slot: a leak tells which one it is."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def of(self, slot: str, before: str = "", after: str = AWKWARD) -> str:
        """Make the value of a slot; looked for is its middle, which no quoting changes."""
        core = f"cq{sha256(slot.encode()).hexdigest()[:22]}"
        self.add(slot, core)
        return f"{before}{core}{after}"

    def add(self, slot: str, *texts: str) -> None:
        """Look for texts that were not made here."""
        self._texts.setdefault(slot, []).extend(texts)

    def found(self, data: bytes) -> dict[str, bytes]:
        """Name every slot whose value stands in the data, in which form, and what is around it."""
        return {
            f"{slot}: {form}": _around(data, written)
            for slot, texts in self._texts.items()
            for text in texts
            for form, written in forms(text)
            if written in data
        }

    def slots(self) -> set[str]:
        return set(self._texts)


def _around(data: bytes, written: bytes) -> bytes:
    at = data.index(written)
    return data[max(at - 60, 0) : at + len(written) + 10]


def forms(text: str) -> Iterator[tuple[str, bytes]]:
    """Write a text in every way in which it may come out; the same bytes once."""
    named: dict[bytes, str] = {}
    for form, written in _spelled(text):
        named.setdefault(written, form)
    for written, form in named.items():
        yield form, written


def _spelled(text: str) -> Iterator[tuple[str, bytes]]:
    data = text.encode()
    yield "raw", data
    yield "first half", data[: len(data) // 2]
    yield "second half", data[len(data) // 2 :]
    yield "upper case", data.upper()
    yield "lower case", data.lower()
    yield "JSON", json.dumps(text)[1:-1].encode()
    yield "JSON", text.replace("/", "\\/").encode()
    yield "JSON", "".join(f"\\u{ord(one):04x}" for one in text).encode()
    yield "URL", quote(text, safe="").encode()
    yield "URL", "".join(f"%{one:02X}" for one in data).encode()
    yield "hex", data.hex().encode()
    yield "hex", data.hex().upper().encode()
    for ahead in range(3):
        yield "base64", _within_base64(data, ahead)
        yield "base64", _within_base64(data, ahead).translate(bytes.maketrans(b"+/", b"-_"))


def _within_base64(data: bytes, ahead: int) -> bytes:
    """Give the part that does not depend on its neighbours, ``ahead`` bytes after a boundary."""
    encoded = base64.b64encode(b"\0" * ahead + data)
    return encoded[(ahead * 8 + 5) // 6 : (ahead + len(data)) * 8 // 6]
