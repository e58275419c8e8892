"""An Anthropic that answers from a script, byte by byte: what no honest provider would say."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from bench.provider.count import count_tokens
from tests.faults.listener import Listener, reset


class End(Enum):
    """How a connection ends: a script without one leaves it open for the next request."""

    FIN = "closed"
    RESET = "reset"
    SILENCE = "left open, until the client closes it"


class Slices(Struct, frozen=True):
    """Bytes of which a few are written each so many seconds."""

    data: bytes
    size: int
    every_s: float


class Endless(Struct, frozen=True):
    """Bytes that are written again and again, as fast as the client takes them."""

    data: bytes


Step = bytes | float | Slices | Endless | End
"""A number is a wait in seconds."""
Script = tuple[Step, ...]


class Received(Struct, frozen=True):
    """One request as it came."""

    head: bytes
    body: bytes

    @property
    def text(self) -> str:
        """What the user says first."""
        content: str = msgspec.json.decode(self.body)["messages"][0]["content"]
        return content


def reply(body: bytes, *fields: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    """Write an answer as it goes over the wire; ``length`` may lie."""
    size = len(body) if length is None else length
    lines = (f"HTTP/1.1 {status}".encode(), b"content-length: %d" % size, *fields, b"", body)
    return b"\r\n".join(lines)


def truly(received: Received) -> Script:
    """Answer as the simulated provider does."""
    counted = count_tokens(msgspec.json.decode(received.body))
    return (reply(b'{"input_tokens":%d}' % counted),)


def text_of(question: Mapping[str, Any]) -> str:
    """What a question's ``Received.text`` will be."""
    text: str = question["messages"][0]["content"]
    return text


class ScriptedProvider(Listener):
    """Follows ``script(request)`` for each request; faults are set while it runs."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.script: Callable[[Received], Script] = truly
        self.greeting: Script = ()
        """What comes before any request has been read."""
        self.requests: list[Received] = []
        self.followed = 0
        """How many scripts have come to their end; the greeting of a connection is one."""

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def always(self, *steps: Step) -> None:
        """Answer every request in the same way."""
        self.script = lambda _: steps

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.greeting
        while True:
            for step in script:
                await _take(step, reader, writer)
                if isinstance(step, End):
                    return
            self.followed += 1
            received = await _read(reader)
            self.requests.append(received)
            script = self.script(received)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return Received(head, await reader.readexactly(int(length or 0)))


async def _take(step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match step:
        case bytes():
            await _write(writer, step)
        case Slices(data, size, every_s):
            for at in range(0, len(data), size):
                await _write(writer, data[at : at + size])
                await asyncio.sleep(every_s)
        case Endless(data):
            while True:
                await _write(writer, data)
        case End.FIN:
            pass
        case End.RESET:
            await asyncio.sleep(0.005)  # what was written before has arrived
            reset(writer)
        case End.SILENCE:
            await reader.read()
        case _:
            await asyncio.sleep(step)


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if writer.is_closing():
        raise ConnectionResetError
    writer.write(data)
    await writer.drain()
