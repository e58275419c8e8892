"""``GET /status/stream``: one snapshot a second, a JSON object on each line, for the page.

It ends by itself after STREAM_S, with the server, and with its reader; who still looks asks again.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
from sanic.request import Request

from app.errors import overloaded
from app.ids import new_request_id
from app.status_reply import Status

NDJSON = "application/x-ndjson"
EVERY_S, STREAM_S = 1.0, 600.0
MAX_STREAMS, RETRY_S = 8, 5
"""In one worker."""


class Streams:
    """The streams of one worker; ``leaving`` is set when it begins to end."""

    def __init__(self, leaving: asyncio.Event) -> None:
        self._leaving = leaving
        self._open = 0

    async def run(self, request: Request, snapshot: Callable[[], Status]) -> None:
        """Answer a request until one of them ends. Raises ProxyError 529 where there are enough."""
        if self._open >= MAX_STREAMS:
            raise overloaded("too many streams of the status are open", RETRY_S)
        self._open += 1
        try:
            await self._send(request, snapshot)
        finally:
            self._open -= 1

    async def _send(self, request: Request, snapshot: Callable[[], Status]) -> None:
        headers = {
            "request-id": new_request_id(),
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # nginx hands each line on as it comes
        }
        response = await request.respond(headers=headers, content_type=NDJSON)
        if response is None:
            return
        until = time.monotonic() + STREAM_S
        while not self._leaving.is_set() and time.monotonic() < until:
            await response.send(msgspec.json.encode(snapshot()) + b"\n")
            try:
                async with asyncio.timeout(EVERY_S):
                    await self._leaving.wait()
            except TimeoutError:
                continue
        await response.eof()
