"""The floors to compare with, none of which counts anything.

``sanic bench.bare:app`` is a bare Sanic: one route that receives the body and answers a constant,
and one that asks the provider with a plain ``httpx.AsyncClient``. ``python -m bench.bare`` is a raw
socket that answers a constant: faster than any server, it shows how fast the load generator is.
"""

import asyncio
import contextlib
import os
import re
import signal
from typing import Any, cast

import httpx
import uvloop
from sanic import HTTPResponse, Request, Sanic

from bench.scenarios import BARE_TOKENS, COUNT_PATH, HTTPX_PATH, PROVIDER_VARIABLE

_BODY = b'{"input_tokens":%d}' % BARE_TOKENS
_FORWARDED = ("content-type", "anthropic-version", "x-api-key")

app = Sanic("bench-bare")


@app.post(COUNT_PATH)
async def constant(_request: Request) -> HTTPResponse:
    """Answer a constant; Sanic has received the whole body by now."""
    return HTTPResponse(_BODY, content_type="application/json")


@app.post(HTTPX_PATH)
async def plain_httpx(request: Request) -> HTTPResponse:
    """Ask the provider and hand its answer on: the shortest proxy there is."""
    headers = {name: request.headers[name] for name in _FORWARDED}
    reply = await request.app.ctx.client.post(COUNT_PATH, content=request.body, headers=headers)
    return HTTPResponse(reply.content, reply.status_code, content_type="application/json")


@app.before_server_start
async def open_client(app: Sanic[Any, Any]) -> None:
    """Open what the second route asks with."""
    # httpx as it comes: with more idle connections than its default of 20 it was a third slower.
    app.ctx.client = httpx.AsyncClient(
        base_url=os.environ.get(PROVIDER_VARIABLE, ""), trust_env=False
    )


@app.after_server_stop
async def close_client(app: Sanic[Any, Any]) -> None:
    """Close it."""
    await app.ctx.client.aclose()


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: keep-alive\r\n"
    b"content-type: application/json\r\n\r\n%b" % (len(_BODY), _BODY)
)


class _Constant(asyncio.Protocol):
    """Answers when as many bytes have come as the request's content-length says."""

    _missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            length = _LENGTH.search(data)
            self._missing = data.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
        self._missing -= len(data)
        if not self._missing:
            self._transport.write(_ANSWER)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    server = await loop.create_server(_Constant, "127.0.0.1", 0)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await end.wait()
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve())
