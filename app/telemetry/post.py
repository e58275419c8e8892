"""Posting to an operator's receiver: one parcel, again after a pause while that is of use."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Container, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from app.connections import Connections
from app.exchange import UnusableReplyError, UpstreamReply, UpstreamUnreachableError
from app.request_head import basic_login

PAUSES_S = (0.5, 2.0, 8.0)
"""Before the second, third and fourth attempt; then a parcel is given up."""
MAX_RETRY_AFTER_S = 60
"""A receiver may make a pause longer, but not longer than this."""
LAST_S = 1.0
"""For what is left at the end."""
MAX_REPLY_BYTES = 65_536
_TAKEN = range(200, 300)


class Parcel(Struct, frozen=True):
    """What is sent: the same body each time, headers that may say when."""

    body: bytes
    headers: Callable[[], Mapping[str, str]]


class Post(Struct, frozen=True):
    """One attempt, as it is sent."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        return "<Post>"


class Reply(Struct, frozen=True):
    """What became of one attempt."""

    failure: str = ""
    """What went wrong; empty if it was taken."""
    again: bool = False
    retry_after_s: float = 0.0
    said: bytes = b""
    """The beginning of the receiver's answer, where it took the parcel."""


class Poster:
    """Posts to one address, from one thread; ``stop`` cuts its pauses short.

    By the same connections as questions to providers, on a loop that turns only while it posts.
    """

    def __init__(self, url: str, worth_another: Container[int], stop: threading.Event) -> None:
        """``worth_another`` are statuses after which a parcel is sent again.

        Raises OSError and ValueError for authorities of the operator's that cannot be used.
        """
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
        self._base_url = urlunsplit((parts.scheme, place, "", "", ""))
        self._url = urlunsplit((parts.scheme, place, parts.path or "/", parts.query, ""))
        login = basic_login(parts)
        self._login = {"authorization": login} if login else {}
        self._worth_another = worth_another
        self._stop = stop
        self._runner = asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)
        self._connections = Connections(os.environ, most_idle=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.run(self._connections.close())
        self._runner.close()

    def offer(self, parcel: Parcel, timeout_s: float, pauses_s: tuple[float, ...]) -> Reply:
        """Post until it is taken, or given up."""
        reply = self._post(parcel, timeout_s)
        for pause_s in pauses_s:
            if not reply.again or self._stop.wait(max(pause_s, reply.retry_after_s)):
                break
            reply = self._post(parcel, timeout_s)
        return reply

    def _post(self, parcel: Parcel, timeout_s: float) -> Reply:
        # What is configured comes before what stands in the address.
        headers = tuple((self._login | _lower(parcel.headers())).items())
        post, until = Post("POST", self._url, headers, parcel.body), time.monotonic() + timeout_s
        try:
            reply = self._runner.run(
                self._connections.send(post, self._base_url, until, lambda: None)
            )
        except UpstreamUnreachableError as error:
            return Reply(error.reason, again=True)
        except UnusableReplyError:
            return Reply("no answer that can be read", again=True)
        if reply.status in _TAKEN:
            return Reply(said=reply.body[:MAX_REPLY_BYTES])
        again = reply.status in self._worth_another
        return Reply(f"status {reply.status}", again, _retry_after_s(reply))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _retry_after_s(reply: UpstreamReply) -> float:
    """Read for how many seconds the receiver wants to be left alone; a date is not read."""
    told = reply.headers.get("retry-after", "")
    if not (told.isascii() and told.isdigit()):
        return 0.0
    return min(float(told), MAX_RETRY_AFTER_S)
