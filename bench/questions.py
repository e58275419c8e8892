"""Prepared requests: what each connection sends, one after the other, and the right answers."""

import secrets
from collections.abc import Callable, Iterator
from itertools import chain, count, cycle, islice, repeat
from typing import cast

from msgspec import Struct

NONCE_BYTES = 16
BLANK_BYTES = 62
_BLANKS = bytes.maketrans(b"01", b" \t")

Tokens = Callable[[bytes], int]
"""The right answer to a body, from a source other than the server under test."""
Question = tuple[bytes, int | None, bytes]
"""The bytes to send; the right answer, or None and the nonce by which it is found later."""


class Message(Struct, frozen=True):
    """One HTTP request; with ``nonce_at`` each copy has 16 hex digits of its own there."""

    head: bytes
    body: bytes
    nonce_at: int | None = None
    is_blank: bool = False
    """The nonce is BLANK_BYTES of white space that mean nothing: each copy asks the same."""

    @property
    def is_unique(self) -> bool:
        """Whether no two copies ask the same."""
        return self.nonce_at is not None and not self.is_blank

    def with_nonce(self, nonce: bytes) -> bytes:
        """The body of the copy that carries ``nonce``."""
        at = cast("int", self.nonce_at)
        return self.body[:at] + nonce + self.body[at + len(nonce) :]

    def nonces(self) -> Iterator[bytes]:
        """Without end and without a repetition, in other processes too."""
        if self.nonce_at is None:
            return repeat(b"")
        numbers = count(secrets.randbits(61))
        if self.is_blank:
            return (f"{one:0{BLANK_BYTES}b}".encode().translate(_BLANKS) for one in numbers)
        return (b"%016x" % number for number in numbers)

    def questions(self, tokens: Tokens, _number: int, _of: int) -> Iterator[Question]:
        """What one of several connections asks, without end."""
        if self.nonce_at is None:
            return repeat((self.head + self.body, tokens(self.body), b""))
        right = None if self.is_unique else tokens(self.body)
        return ((self.head + self.with_nonce(one), right, one) for one in self.nonces())


class Mix(Struct, frozen=True):
    """Many questions of many callers, in a fixed order."""

    heads: tuple[bytes, ...]
    """One for each caller, without ``content-length`` and what follows."""
    bodies: tuple[bytes, ...]
    tokens: tuple[int, ...]
    """The right answer to each body."""
    order: tuple[tuple[int, int], ...]
    """Which caller asks, and what."""

    is_unique = False

    def tail(self, body: int) -> bytes:
        """The end of a request, from the value of ``content-length`` on."""
        return b"%d\r\n\r\n%b" % (len(self.bodies[body]), self.bodies[body])

    def questions(self, _tokens: Tokens, number: int, of: int) -> Iterator[Question]:
        """What one of several connections asks, without end: each begins elsewhere."""
        start = number * len(self.order) // of
        tails = [self.tail(body) for body in range(len(self.bodies))]
        turned = chain(islice(self.order, start, None), islice(self.order, start))
        return (
            (self.heads[caller] + tails[body], self.tokens[body], b"")
            for caller, body in cycle(turned)
        )

    def once(self) -> "Mix":
        """All bodies once, the callers taking turns."""
        order = tuple((body % len(self.heads), body) for body in range(len(self.bodies)))
        return Mix(self.heads, self.bodies, self.tokens, order)
