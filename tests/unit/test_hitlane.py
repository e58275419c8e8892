"""What the lane does when it cannot go on."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from sanic.config import Config

from app.hitlane import LaneProtocol
from app.known_heads import NOT_OURS, Begun
from app.lane_flight import Unknown
from app.strict_http import StrictHttp

REQUEST = b"POST /v1/messages/count_tokens HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


class BrokenAtFirst:
    """A lane with a fault that shows at once."""

    def answer_again(self, whole: bytes, started_s: float) -> None:
        raise RuntimeError(whole, started_s)


class Broken:
    """A lane with a fault of its own."""

    def answer_again(self, whole: bytes, started_s: float) -> None:
        del whole, started_s

    def understand(self, raw: bytes) -> None:
        raise RuntimeError(raw)


class BrokenAtLast:
    """A lane with a fault that shows when a body is whole."""

    def answer_again(self, whole: bytes, started_s: float) -> None:
        del whole, started_s

    def understand(self, raw: bytes) -> Begun:
        del raw
        return Begun(NOT_OURS, body_bytes=2, echo="", is_plain=True)

    def answer(self, begun: Begun, digest: bytes, pieces: Any, started_s: float) -> None:
        raise RuntimeError(begun, digest, pieces, started_s)


class Transport:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Asks:
    """A lane that remembers nothing."""

    def answer_again(self, whole: bytes, started_s: float) -> None:
        del whole, started_s

    def understand(self, raw: bytes) -> Begun:
        del raw
        return Begun(NOT_OURS, body_bytes=2, echo="", is_plain=True)

    def answer(self, begun: Begun, digest: bytes, pieces: Any, started_s: float) -> Unknown:
        del pieces
        question: Any = SimpleNamespace(end_user="", model="m")
        route: Any = SimpleNamespace(alias="m")
        return Unknown(begun, digest, question, route, None, started_s)


def connected(lane: Any, transport: Any, **ctx: Any) -> LaneProtocol:
    """A connection to a server that has little but this lane."""
    ctx = {"lane": lane, "max_connections": 1, "spare_connections": 1, **ctx}
    app: Any = SimpleNamespace(ctx=SimpleNamespace(**ctx), config=Config(env_prefix=None))
    parts = ("request_class", "error_handler", "handle_request", "dispatch")
    app.__dict__.update(dict.fromkeys(parts))
    protocol = LaneProtocol(loop=asyncio.get_running_loop(), app=app)
    protocol.connection_made(transport)
    protocol._http = StrictHttp(protocol)
    return protocol


@pytest.mark.parametrize("lane", [BrokenAtFirst(), Broken(), BrokenAtLast()])
@pytest.mark.parametrize("cut", [0, -1])
def test_a_fault_of_the_lane_costs_no_request(
    caplog: Any, monkeypatch: pytest.MonkeyPatch, lane: Any, cut: int
) -> None:
    """The ordinary way has the request, whole; the log has the place, and nothing of the text."""
    monkeypatch.setattr("app.log._last_said", {})

    async def receive() -> bytes:
        protocol = connected(lane, Transport())
        for piece in (REQUEST[:cut], REQUEST[cut:]):
            protocol.data_received(piece)
        received = bytes(protocol.recv_buffer)
        assert protocol._task is not None
        protocol._task.cancel()
        return received

    assert asyncio.run(receive()) == REQUEST
    assert "RuntimeError" in caplog.text
    assert "content-length" not in caplog.text


def test_a_fault_behind_an_answer_leaves_no_client_waiting(
    caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without telemetry, say: the connection ends, so that the client may ask again."""
    monkeypatch.setattr("app.log._last_said", {})
    closed: list[bool] = []

    class Closing(Transport):
        def is_closing(self) -> bool:
            return bool(closed)

        def get_write_buffer_size(self) -> int:
            return 0

        def close(self) -> None:
            closed.append(True)

    async def ask() -> None:
        protocol = connected(Asks(), Closing(), worker=SimpleNamespace())
        assert protocol._task is not None
        protocol._task.cancel()  # the framework's own, which needs more of an app
        protocol.data_received(REQUEST)
        assert protocol._flight is not None
        await protocol._flight

    asyncio.run(ask())
    assert closed
    assert "hit lane: AttributeError" in caplog.text
