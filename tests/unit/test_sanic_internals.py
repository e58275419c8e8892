"""What app.strict_http leans on inside Sanic, so that a release that moves it is noticed here."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import sanic
from sanic.http.constants import Stage
from sanic.http.http1 import HTTP_CONTINUE, Http
from sanic.http.stream import Stream
from sanic.mixins.startup import StartupMixin
from sanic.server.protocols.base_protocol import SanicProtocol
from sanic.server.protocols.http_protocol import HttpProtocol, HttpProtocolMixin

from app.strict_http import StrictHttp, StrictProtocol

METHODS = [
    (Http.__init__, ["self", "protocol"]),
    (Http.init_for_request, ["self"]),
    (Http.http1, ["self"]),
    (Http.http1_request_header, ["self"]),
    (Http.read, ["self"]),
    (Http.error_response, ["self", "exception"]),
    (HttpProtocol._setup_connection, ["self", "args", "kwargs"]),
    (HttpProtocol.connection_task, ["self"]),
    (HttpProtocol.check_timeouts, ["self"]),
    (HttpProtocol.data_received, ["self", "data"]),
    (HttpProtocol.connection_made, ["self", "transport"]),
    (HttpProtocol.send, ["self", "data"]),
    (SanicProtocol.receive_more, ["self"]),
]
COROUTINES = [
    Http.http1,
    Http.http1_request_header,
    Http.read,
    Http.error_response,
    HttpProtocol.connection_task,
    HttpProtocol.send,
    SanicProtocol.receive_more,
]
LEANED_ON = {
    "_receive_more",
    "_send",
    "expecting_continue",
    "head_only",
    "keep_alive",
    "protocol",
    "recv_buffer",
    "request_body",
    "request_bytes",
    "request_bytes_left",
    "stage",
    "upgrade_websocket",
}


def test_release() -> None:
    """Another minor release: read its http1.py and http_protocol.py again, then change this."""
    assert sanic.__version__.startswith("25.12.")


@pytest.mark.parametrize(
    ("method", "parameters"), METHODS, ids=[method.__qualname__ for method, _ in METHODS]
)
def test_methods(method: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(method).parameters) == parameters
    assert inspect.iscoroutinefunction(method) == (method in COROUTINES)


def test_attributes() -> None:
    assert set(Http.__slots__) >= LEANED_ON
    assert not LEANED_ON & set(StrictHttp.__slots__)
    assert {"_http", "recv_buffer"} <= set(HttpProtocol.__slots__)
    assert {"_can_write", "_task", "_time", "transport"} <= set(SanicProtocol.__slots__)
    assert HttpProtocol.HTTP_CLASS is Http
    assert issubclass(Http, Stream)
    assert isinstance(Http.HEADER_MAX_SIZE, int)
    assert HTTP_CONTINUE.startswith(b"HTTP/1.1 100 ")
    assert {"IDLE", "REQUEST", "HANDLER"} <= set(Stage.__members__)
    assert "protocol" in inspect.signature(StartupMixin.prepare).parameters


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (HttpProtocolMixin, "self._http = self.HTTP_CLASS(self"),
        (HttpProtocolMixin, "self.request_timeout = self.app.config.REQUEST_TIMEOUT"),
        (HttpProtocolMixin, "self.request_max_size = self.app.config.REQUEST_MAX_SIZE"),
        (HttpProtocol, "await self._http.http1()"),
        (SanicProtocol, "self._task.cancel()"),
        (SanicProtocol, "await self._data_received.wait()"),
        (Http, "self._receive_more = protocol.receive_more"),
        (Http, "while self.keep_alive and self.stage is Stage.IDLE:"),
        (Http, "await self.http1_request_header()"),
        (Http, "if self.request_body:"),
        (Http, "if self.stage is not Stage.HANDLER:\n            self.keep_alive = False"),
        (Http, "pos -= 2  # One CRLF stays in buffer"),
        (Http, "del buf[: pos + 4]"),
        # The lane may answer once this has been sent, and not before.
        (Http, "await self._send(ret)\n        self.stage = Stage.IDLE if end_stream"),
        (HttpProtocol, "self._http = None\n            self._task = None"),
        (HttpProtocol, "self._task = self.loop.create_task(self.connection_task())"),
        (HttpProtocol, "duration = current_time() - self._time"),
        (SanicProtocol, "self._can_write.clear()"),
    ],
)
def test_steps(owner: type, step: str) -> None:
    """Steps inside Sanic's methods that ours stand on."""
    assert step in inspect.getsource(owner)


def test_ours_stand_where_sanic_looks() -> None:
    assert StrictProtocol.HTTP_CLASS is StrictHttp
    for name in ("http1", "http1_request_header", "read"):
        assert getattr(StrictHttp, name) is not getattr(Http, name)
