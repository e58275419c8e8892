"""The exact-bytes memo: a body that was read before is not read again.

A repeat costs a digest and two look-ups, no decoding. What the digest covers decides what is
asked; who asks, and whether they may, is judged anew each time.
"""

import hashlib
from collections.abc import Mapping
from typing import Protocol

import msgspec
from blake3 import blake3
from msgspec import Struct

from adapters.base import Deployment
from app.auth import Caller
from app.freshness import ANY
from app.keys import Answer
from app.question import IDENTITY_HEADERS, Question, all_of
from app.routing import Route
from cache.memo import Memo
from cache.tiers import Record, Tiers

_HEADERS = (
    "content-type",
    "content-encoding",
    "anthropic-version",
    "x-litellm-timeout",
    *IDENTITY_HEADERS,
)
"""What a question is judged by, so that what is refused once is refused again."""
ENTRY_BYTES, ROUTE_BYTES = 320, 700
LARGE_BYTES = 8192
"""Of a body: from here on BLAKE3 is the faster."""
_pack = msgspec.msgpack.Encoder().encode


class Digest(Protocol):
    """A digest that is not complete."""

    def copy(self) -> "Digest": ...

    def update(self, more: bytes | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


def begin(head: bytes, body_bytes: int) -> Digest:
    """Begin to digest a request, whose body is to follow: with what is faster for its size."""
    return blake3(head) if body_bytes >= LARGE_BYTES else hashlib.sha256(head)


class Repeat(Struct, frozen=True, gc=False):
    """What exact bytes ask, and where the answer is remembered."""

    key: bytes
    changes: int
    """Of the generations, when the key was composed: after the next it may be another."""
    max_age_s: float
    deployment: Deployment
    route: Route
    model: str
    body_end_user: str

    def answer(self, record: Record) -> Answer:
        """Answer with what is remembered here."""
        return Answer(record, "cache", self.deployment, tier="local")


class Repeats:
    """Learns from the ordinary way's answers, and repeats those that this process still holds."""

    def __init__(self, tiers: Tiers, max_entries: int, max_bytes: int, *, by_caller: bool) -> None:
        self._tiers = tiers
        self._by_caller = by_caller
        self._memo: Memo[Repeat] = Memo(max_entries, max_bytes, _size_bytes)

    def digest(
        self, headers: Mapping[str, str], body: bytes, query: str | None, caller: Caller
    ) -> bytes | None:
        """Digest everything that decides what is asked; None for what is not repeated."""
        head = self.head(headers, query, caller)
        if head is None:
            return None
        begun = begin(head, len(body))
        begun.update(body)
        return begun.digest()

    def head(self, headers: Mapping[str, str], query: str | None, caller: Caller) -> bytes | None:
        """Write down everything that decides what is asked but the body; None as above.

        ``query`` is None on the unified route, where it means nothing.
        """
        if "cache-control" in headers:
            return None
        head = (
            query,
            caller.name if self._by_caller else None,
            all_of(headers, "anthropic-beta"),
            [headers.get(name) for name in _HEADERS],
        )
        try:
            return _pack(head)
        except UnicodeEncodeError:  # lone surrogates: a header that is not ASCII
            return None

    def find(self, digest: bytes, caller: Caller) -> tuple[Repeat, Record] | None:
        """Recall what was asked before, if this caller may ask it. No await, no decode."""
        repeat = self._memo.get(digest)
        if repeat is None or repeat.changes != self._tiers.generations.changes:
            return None
        if not caller.may_count(repeat.route.names):
            return None
        record = self._tiers.get(repeat.key, repeat.max_age_s)
        return None if record is None else (repeat, record)

    def learn(
        self, digest: bytes, question: Question, route: Route, answer: Answer
    ) -> Repeat | None:
        """Remember what these bytes ask, if their answer is remembered under a key of its own.

        Not where another counter than the first has answered: a repeat asks the first again.
        """
        place = answer.place
        if place is None or place.own is not None or answer.source == "stale":
            return None
        if question.freshness != ANY or not route.pools[0].holds(answer.deployment):
            return None
        repeat = Repeat(
            key=place.key,
            changes=place.changes,
            max_age_s=place.max_age_s,
            deployment=answer.deployment,
            route=route,
            model=question.model,
            body_end_user=question.body_end_user,
        )
        self._memo.put(digest, repeat)
        return repeat

    def __len__(self) -> int:
        return len(self._memo)


def _size_bytes(repeat: Repeat) -> int:
    """Reckon what an entry holds by itself: a wildcard makes a route for each model."""
    own_route_bytes = ROUTE_BYTES if "*" in repeat.route.alias else 0
    texts = len(repeat.body_end_user) + len(repeat.model)
    return ENTRY_BYTES + own_route_bytes + 4 * texts
