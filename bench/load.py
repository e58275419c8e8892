"""The load generator: a closed loop of prepared requests over keep-alive connections.

Each connection has one request outstanding and sends the next when the answer is in. Every answer
is checked, and a wrong one fails the run. In a closed loop a latency includes the wait behind the
other connections' requests, and a slow server is asked less often: compare like with like.
"""

import asyncio
import multiprocessing
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count, repeat
from typing import Self, cast
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct

from bench.histogram import Histogram

STALL_S = 10.0
NONCE_BYTES = 16
_OK = b"HTTP/1.1 200 "
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)(?:\r\n|$)", re.IGNORECASE)
_SHOWN_BYTES = 2000


class WrongAnswerError(Exception):
    """The server under test did not answer what it had to: the figures would mean nothing."""


class Address(Struct, frozen=True):
    """Where a server listens."""

    host: str
    port: int
    tls: bool = False

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


class Message(Struct, frozen=True):
    """One HTTP request; with ``nonce_at`` each copy has 16 hex digits of its own there."""

    head: bytes
    body: bytes
    nonce_at: int | None = None

    def with_nonce(self, nonce: bytes) -> bytes:
        """The body of the copy that carries ``nonce``."""
        at = cast("int", self.nonce_at)
        return self.body[:at] + nonce + self.body[at + NONCE_BYTES :]

    def nonces(self) -> Iterator[bytes]:
        """Without end and without a repetition, in other processes too."""
        if self.nonce_at is None:
            return repeat(b"")
        return (b"%016x" % number for number in count(secrets.randbits(62)))


class Load(Struct, frozen=True, kw_only=True):
    """One slice of load. With ``seconds`` 0 each connection asks once, all at the same time."""

    address: Address
    message: Message
    tokens: Callable[[bytes], int]
    """The right answer to a body, from a source other than the server under test."""
    connections: int
    seconds: float
    warm_s: float = 0.2


class Run(Struct):
    """What a slice gave: ``answers`` in all, and the rest of the time after the warm-up."""

    answers: int
    seconds: float
    client_cpu_s: float
    latency: Histogram
    server_cpu_s: float | None = None
    """Processor time of the server's workers for all answers; None if nobody looked."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latency) / self.seconds


class _Reply(Struct):
    input_tokens: int


_reply = msgspec.json.Decoder(_Reply).decode


def _body_of(data: bytes) -> bytes | None:
    """The body of the one answer in ``data``; None while it is incomplete."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return None
    length = _LENGTH.search(head)
    if not head.startswith(_OK) or not length or len(body) > int(length[1]):
        raise WrongAnswerError("not one answer with status 200 and a content-length")
    return body if len(body) == int(length[1]) else None


class _Connection(asyncio.Protocol):
    _transport: asyncio.Transport

    def __init__(self, slice_: "_Slice") -> None:
        self._slice = slice_
        self._nonces = slice_.load.message.nonces()
        self._nonce = b""
        self._sent_ns = 0
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._slice.open.add(self)

    def ask(self) -> None:
        self._nonce = next(self._nonces)
        data = self._slice.request(self._nonce)
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        now_ns = time.perf_counter_ns()
        if self._partial or not self._slice.is_known(data):
            self._partial += data
            if not self._slice.is_right(self._nonce, self._partial):
                return
            self._partial = b""
        self._slice.record(now_ns - self._sent_ns)
        if self._slice.is_asking:
            self.ask()
        else:
            self._slice.leave(self)
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if self in self._slice.open:
            self._slice.fail("the server closed a connection on which an answer was due")

    def abort(self) -> None:
        self._transport.abort()


class _Slice:
    """What the connections of one slice share: the question, the judgement, the clock."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.is_asking = load.seconds > 0
        self.answers = 0
        self.open: set[_Connection] = set()
        self._is_unique = load.message.nonce_at is not None
        self._constant = load.message.head + load.message.body
        self._expected = 0 if self._is_unique else load.tokens(load.message.body)
        self._known_bytes, self._known_end = 0, b""
        self._unchecked: list[tuple[bytes, int]] = []
        self._end = asyncio.get_running_loop().create_future()
        self.measure()

    def request(self, nonce: bytes) -> bytes:
        if self._is_unique:
            return self.load.message.head + self.load.message.with_nonce(nonce)
        return self._constant

    def is_known(self, data: bytes) -> bool:
        """Whether it has the length and the body of the right answer that came before."""
        return (
            len(data) == self._known_bytes
            and data.startswith(_OK)
            and data.endswith(self._known_end)
        )

    def is_right(self, nonce: bytes, data: bytes) -> bool:
        """Whether the answer is whole and right, as far as can be said now; a wrong one fails."""
        try:
            body = _body_of(data)
            if body is None:
                return False
            tokens = _reply(body).input_tokens
            if self._is_unique:
                # Judged after the slice: the judge would take processor time from the server.
                self._unchecked.append((nonce, tokens))
            elif tokens == self._expected:
                self._known_bytes, self._known_end = len(data), b"\r\n\r\n" + body
            else:
                self.fail(f"input_tokens should be {self._expected}", data)
                return False
        except (WrongAnswerError, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.fail(str(error), data)
            return False
        return True

    def measure(self) -> Histogram:
        """Record into a new histogram, which is returned, from now on."""
        latency = Histogram()
        self._record = latency.record
        return latency

    def record(self, latency_ns: int) -> None:
        self.answers += 1
        self._record(latency_ns)

    def leave(self, connection: _Connection) -> None:
        self.open.remove(connection)
        if not self.open and not self._end.done():
            self._end.set_result(None)

    def fail(self, why: str, answer: bytes = b"") -> None:
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
        for nonce, tokens in self._unchecked:
            body = self.load.message.with_nonce(nonce)
            if tokens != (expected := self.load.tokens(body)):
                raise WrongAnswerError(
                    f"input_tokens should be {expected}, was {tokens}, for\n{body.decode()}"
                )


async def generate(load: Load) -> Run:
    """Run one slice in this process. Raises WrongAnswerError and OSError."""
    loop, at = asyncio.get_running_loop(), load.address
    slice_ = _Slice(load)
    try:
        for _ in range(load.connections):
            await loop.create_connection(
                lambda: _Connection(slice_), at.host, at.port, ssl=at.tls or None
            )
        for connection in tuple(slice_.open):
            connection.ask()
        if slice_.is_asking:
            await slice_.pass_time(load.warm_s)
        latency, start_s, start_cpu_s = slice_.measure(), time.perf_counter(), time.process_time()
        if slice_.is_asking:
            await slice_.pass_time(load.seconds)
        else:
            await slice_.finish()
        seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        slice_.measure()
        await slice_.finish()
        slice_.judge()
    finally:
        while slice_.open:
            slice_.open.pop().abort()
    return Run(slice_.answers, seconds, cpu_s, latency)


def run(load: Load, processes: int = 1) -> Run:
    """Run one slice, its connections dealt out over ``processes`` that start together."""
    if processes == 1:
        return uvloop.run(generate(load))
    spawn = multiprocessing.get_context("spawn")
    shares = [len(range(i, load.connections, processes)) for i in range(processes)]
    loads = [msgspec.structs.replace(load, connections=share) for share in shares]
    start = spawn.Barrier(processes)
    with ProcessPoolExecutor(processes, spawn, initializer=start.wait) as pool:
        runs = list(pool.map(run, loads))
    latency = Histogram()
    for one in runs:
        latency.merge(one.latency)
    return Run(
        answers=sum(one.answers for one in runs),
        seconds=max(one.seconds for one in runs),
        client_cpu_s=max(one.client_cpu_s for one in runs),
        latency=latency,
    )
