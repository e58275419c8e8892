"""Posting to an operator's receiver: one parcel, again after a pause while that is of use."""

import threading
from collections.abc import Callable, Container, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from msgspec import Struct
from pyreqwest.client import SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.response import SyncResponse

PAUSES_S = (0.5, 2.0, 8.0)
"""Before the second, third and fourth attempt; then a parcel is given up."""
MAX_RETRY_AFTER_S = 60
"""A receiver may make a pause longer, but not longer than this."""
LAST_S = 1.0
"""For what is left at the end."""
MAX_REPLY_BYTES = 65_536
USER_AGENT = "tallygate/0.1"
_TAKEN = range(200, 300)


class Parcel(Struct, frozen=True):
    """What is sent: the same body each time, headers that may say when."""

    body: bytes
    headers: Callable[[], Mapping[str, str]]


class Reply(Struct, frozen=True):
    """What became of one attempt."""

    failure: str = ""
    """What went wrong; empty if it was taken."""
    again: bool = False
    retry_after_s: float = 0.0
    said: bytes = b""
    """The beginning of the receiver's answer, where it took the parcel."""


class Poster:
    """Posts to one address, from one thread; ``stop`` cuts its pauses short."""

    def __init__(
        self,
        url: str,
        worth_another: Container[int],
        authorities: bytes | None,
        stop: threading.Event,
    ) -> None:
        """``worth_another`` are statuses after which a parcel is sent again.

        ``authorities`` are the operator's own, as PEM.
        """
        builder = SyncClientBuilder().follow_redirects(False).user_agent(USER_AGENT)  # noqa: FBT003
        if authorities is not None:
            builder = builder.add_root_certificate_pem(authorities)
        self._client = builder.build()
        self._url = url
        self._worth_another = worth_another
        self._stop = stop

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.__exit__(kind, error, traceback)

    def offer(self, parcel: Parcel, timeout_s: float, pauses_s: tuple[float, ...]) -> Reply:
        """Post until it is taken, or given up."""
        reply = self._post(parcel, timeout_s)
        for pause_s in pauses_s:
            if not reply.again or self._stop.wait(max(pause_s, reply.retry_after_s)):
                break
            reply = self._post(parcel, timeout_s)
        return reply

    def _post(self, parcel: Parcel, timeout_s: float) -> Reply:
        request = self._client.post(self._url).headers(parcel.headers()).body_bytes(parcel.body)
        request = request.timeout(timedelta(seconds=timeout_s))
        try:
            with request.build_streamed() as response:
                if response.status in _TAKEN:
                    return Reply(said=_said(response))
                return Reply(
                    f"status {response.status}",
                    response.status in self._worth_another,
                    _retry_after_s(response),
                )
        except (PyreqwestError, TimeoutError) as error:
            return Reply(type(error).__name__, again=True)


def _said(response: SyncResponse) -> bytes:
    """Read the beginning of an answer; one that breaks off was taken nevertheless."""
    said = bytearray()
    try:
        while len(said) < MAX_REPLY_BYTES and (piece := response.body_reader.read_chunk()):
            said += piece
    except (PyreqwestError, TimeoutError):
        return b""
    return bytes(said[:MAX_REPLY_BYTES])


def _retry_after_s(response: SyncResponse) -> float:
    """Read for how many seconds the receiver wants to be left alone; a date is not read."""
    told = response.get_header("retry-after") or ""
    if not (told.isascii() and told.isdigit()):
        return 0.0
    return min(float(told), MAX_RETRY_AFTER_S)
