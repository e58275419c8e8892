"""HTTP/1.1 as the simulated provider speaks it: one object per TCP connection."""

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import cast

import httptools

from bench.provider.exchange import Delivery, Reply, Request

MAX_BODY_BYTES = 64 * 2**20

_CONTINUE = Delivery(b"HTTP/1.1 100 Continue\r\n\r\n")
_MALFORMED = Delivery(
    Reply(400, b'{"error":"malformed HTTP"}').rendered(keep_alive=False), close=True
)
_TOO_LARGE = Delivery(
    Reply(413, b'{"error":"body over 64 MB"}').rendered(keep_alive=False), close=True
)
_LINGER_0_S = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """Reads requests, has each answered as it arrives, and delivers the answers in order.

    - ``answer`` is called once per complete request, pipelined ones included.
    - A delivery that waits holds back later answers of its own connection and of no other.
    - A body over ``MAX_BODY_BYTES`` is read to its end, not kept, and refused with 413.
    """

    def __init__(self, answer: Callable[[Request], Delivery], peers: set["Connection"]) -> None:
        self._answer = answer
        self._peers = peers
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._arrived: list[Request | Delivery] = []
        self._deliveries: deque[Delivery] = deque()
        self._waiting: asyncio.Task[None] | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._ended = True
        self._peers.discard(self)
        if self._waiting is not None:
            self._waiting.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._arrived.append(_MALFORMED)
            self._ended = True
        for arrived in self._arrived:
            self._deliveries.append(
                self._answer(arrived) if isinstance(arrived, Request) else arrived
            )
        self._arrived.clear()
        self._deliver()

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        if len(name) == 6 and name.lower() == b"expect" and value.lower() == b"100-continue":
            self._arrived.append(_CONTINUE)

    def on_body(self, part: bytes) -> None:
        self._body_bytes += len(part)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(part)

    def on_message_complete(self) -> None:
        if self._body_bytes > MAX_BODY_BYTES:
            self._arrived.append(_TOO_LARGE)
            return
        self._arrived.append(
            Request(
                self._parser.get_method().decode(),
                _origin_form(self._target).decode("latin-1"),
                self._headers,
                b"".join(self._body),
                time=time.monotonic(),
                keep_alive=self._parser.should_keep_alive(),
            )
        )

    def _deliver(self) -> None:
        while self._deliveries and self._waiting is None:
            delivery = self._deliveries.popleft()
            if delivery.is_immediate:
                self._transport.write(delivery.data)
                if delivery.close:
                    self._end()
            else:
                self._waiting = asyncio.create_task(self._deliver_later(delivery))

    async def _deliver_later(self, delivery: Delivery) -> None:
        await asyncio.sleep(delivery.delay_s)
        if delivery.hang:
            await asyncio.Event().wait()
        if delivery.reset:
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _LINGER_0_S)
            self._transport.abort()
            return
        if delivery.drip_s:
            for byte in delivery.data:
                self._transport.write(bytes([byte]))
                await asyncio.sleep(delivery.drip_s)
        else:
            self._transport.write(delivery.data)
        if delivery.close:
            self._end()
        self._waiting = None
        self._deliver()

    def _end(self) -> None:
        """Close after what has been written; requests behind it stay unanswered."""
        self._ended = True
        self._deliveries.clear()
        self._transport.close()


def _origin_form(target: bytes) -> bytes:
    """Reduce ``http://host/path?query`` to ``/path?query`` (RFC 9112, section 3.2.2)."""
    if target.startswith(b"/"):
        return target
    return b"/" + target.partition(b"://")[2].partition(b"/")[2]
