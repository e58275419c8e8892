"""The server with one more path, on which a worker's loop stands still."""

import time

from sanic.request import Request
from sanic.response import HTTPResponse

from app.factory import create_app

BLOCKED_S = 60.0

app = create_app()


async def block(request: Request) -> HTTPResponse:
    """Call what does not return for a while, as a library that waits for a network does."""
    del request
    time.sleep(BLOCKED_S)  # noqa: ASYNC251 -- the fault itself
    return HTTPResponse()


app.add_route(block, "/block", methods=["POST"], name="block")
