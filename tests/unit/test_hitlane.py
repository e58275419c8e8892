"""What the lane does when it cannot go on."""

import asyncio
from types import SimpleNamespace
from typing import Any

from sanic.config import Config

from app.hitlane import LaneProtocol

REQUEST = b"POST /v1/messages/count_tokens HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


class Broken:
    """A lane with a fault of its own."""

    def understand(self, raw: bytes) -> None:
        raise RuntimeError(raw)


class Transport:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def test_a_fault_of_the_lane_costs_no_request(caplog: Any) -> None:
    """The ordinary way has the request, whole; the log has the place, and nothing of the text."""

    async def receive() -> bytes:
        ctx = SimpleNamespace(lane=Broken(), max_connections=1, spare_connections=1)
        app: Any = SimpleNamespace(ctx=ctx, config=Config(env_prefix=None))
        app.__dict__.update(request_class=None, error_handler=None, handle_request=None)
        protocol = LaneProtocol(loop=asyncio.get_running_loop(), app=app)
        protocol.connection_made(Transport())
        protocol.data_received(REQUEST)
        received = bytes(protocol.recv_buffer)
        assert protocol._task is not None
        protocol._task.cancel()
        return received

    assert asyncio.run(receive()) == REQUEST
    assert "RuntimeError" in caplog.text
    assert "content-length" not in caplog.text
