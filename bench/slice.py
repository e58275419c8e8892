"""What the connections of one slice of load share: the questions, the judgement, the clock."""

import asyncio
import time
from collections.abc import Callable
from typing import Self, cast
from urllib.parse import urlsplit

from msgspec import Struct

from bench.answers import OK, WrongAnswerError, body_of, tokens_of
from bench.histogram import Histogram
from bench.questions import Message, Mix

STALL_S = 10.0
_SHOWN_BYTES = 2000


class Address(Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    """What each request must carry there, besides the usual."""

    @classmethod
    def of(cls, url: str) -> Self:
        """The address in an http or https URL."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls)

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"


class Load(Struct, frozen=True, kw_only=True):
    """One slice of load. With ``seconds`` 0 each connection asks ``times``, all together."""

    address: Address
    message: Message | Mix
    tokens: Callable[[bytes], int]
    """The right answer to a body, from a source other than the server under test."""
    connections: int
    seconds: float
    warm_s: float = 0.2
    times: int = 1
    rate: float = 0
    """Requests per second of an open loop; 0: each connection asks again when it is answered."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request outstanding."""

    _transport: asyncio.Transport

    def __init__(self, slice_: "Slice", number: int) -> None:
        self._slice = slice_
        load = slice_.load
        self._questions = load.message.questions(load.tokens, number, load.connections)
        self._right: int | None = None
        self._nonce = b""
        self._partial = b""
        self.due_ns = 0
        self.left = load.times

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._slice.open.add(self)

    def ask(self, due_ns: int = 0) -> None:
        """Send the next question; its latency counts from ``due_ns``, or from now."""
        data, self._right, self._nonce = next(self._questions)
        self.due_ns = due_ns or time.perf_counter_ns()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        now_ns = time.perf_counter_ns()
        if self._partial or not self._slice.is_known(self._right, data):
            self._partial += data
            if not self._slice.is_right(self._right, self._nonce, self._partial):
                return
            self._partial = b""
        self._slice.answered(self, now_ns)

    def connection_lost(self, _error: Exception | None) -> None:
        if self in self._slice.open:
            self._slice.fail("the server closed a connection on which an answer was due")

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


class Slice:
    """A closed loop: each connection asks the next question when it has been answered."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.is_asking = load.seconds > 0
        self.answers = 0
        self.open: set[Connection] = set()
        self._known: dict[int | None, tuple[int, bytes]] = {}
        self._unchecked: list[tuple[bytes, int]] = []
        self._end = asyncio.get_running_loop().create_future()
        self.measure()

    def answered(self, connection: Connection, now_ns: int) -> None:
        """Count a right answer; ask on."""
        self.answers += 1
        self._record(now_ns - connection.due_ns)
        connection.left -= 1
        if self.is_asking or connection.left > 0:
            connection.ask()
        else:
            self.leave(connection)

    def is_known(self, right: int | None, data: bytes) -> bool:
        """Whether it has the length and the body of a right answer that came before."""
        known = self._known.get(right)
        return (
            known is not None
            and len(data) == known[0]
            and data.startswith(OK)
            and data.endswith(known[1])
        )

    def is_right(self, right: int | None, nonce: bytes, data: bytes) -> bool:
        """Whether the answer is whole and right, as far as can be said now; a wrong one fails."""
        try:
            body = body_of(data)
            if body is None:
                return False
            tokens = tokens_of(body)
        except WrongAnswerError as error:
            self.fail(str(error), data)
            return False
        if right is None:
            # Judged after the slice: the judge would take processor time from the server.
            self._unchecked.append((nonce, tokens))
        elif tokens == right:
            self._known[right] = len(data), data[data.index(b"\r\n\r\n") :]
        else:
            self.fail(f"input_tokens should be {right}", data)
            return False
        return True

    def answer_bytes(self) -> tuple[int, ...]:
        """Sizes of the right answers that were known beforehand, heads included."""
        return tuple(size for size, _ in self._known.values())

    def measure(self) -> Histogram:
        """Record into a new histogram, which is returned, from now on."""
        latency = Histogram()
        self._record = latency.record
        return latency

    def leave(self, connection: Connection) -> None:
        """Close a connection that has been answered."""
        self.open.remove(connection)
        if not self.open and not self._end.done():
            self._end.set_result(None)
        connection.close()

    def fail(self, why: str, answer: bytes = b"") -> None:
        """End the slice with a WrongAnswerError."""
        if not self._end.done():
            shown = answer[:_SHOWN_BYTES].decode(errors="replace")
            self._end.set_exception(WrongAnswerError(f"{why}\n{shown}".strip()))

    async def pass_time(self, seconds: float) -> None:
        """Wait, or less when all is done. Raises WrongAnswerError as soon as an answer is wrong."""
        await asyncio.wait([self._end], timeout=seconds)
        if self._end.done():
            self._end.result()

    async def finish(self) -> None:
        """Wait for what is outstanding. Raises WrongAnswerError when it does not come."""
        self.is_asking = False
        await self.pass_time(STALL_S)
        if self.open:
            raise WrongAnswerError(
                f"{len(self.open)} requests without an answer after {STALL_S:g} s"
            )

    def judge(self) -> None:
        """Raises WrongAnswerError when an answer to a unique question was wrong."""
        message = self.load.message
        if isinstance(message, Mix):
            return
        for nonce, tokens in self._unchecked:
            body = message.with_nonce(nonce)
            if tokens != (expected := self.load.tokens(body)):
                raise WrongAnswerError(
                    f"input_tokens should be {expected}, was {tokens}, for\n{body.decode()}"
                )
