"""What these tests say and hear: questions, refusals, events, and HTTP byte by byte."""

import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Self
from uuid import uuid4

import httpx
import msgspec

from bench.provider import SimulatedProvider
from tests.server import KEY, Tallygate

COUNT = "/v1/messages/count_tokens"
NATIVE = f"/anthropic{COUNT}"
MODEL = "claude-3-5-sonnet"
JSON = {"content-type": "application/json"}
BEARER = {"authorization": f"Bearer {KEY}"}
PATIENCE_S = 20.0
FAILURES_STAND_ALONE = {
    "retry_ratio": 0,
    "retries_per_s": 0,
    "breaker_failures": 1_000_000,
    "cooldown_max_s": 0,
}
"""``limits`` under which one call is one call, and one test's failures are no other's concern."""


def question(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    """Compose a valid body that nobody has asked before."""
    return {"model": model, "messages": [{"role": "user", "content": uuid4().hex}], **fields}


def anthropic(model: str, base: str, **params: Any) -> dict[str, Any]:
    """Compose ``litellm_params`` of an Anthropic deployment."""
    key = {"api_key": "sk-ant-api03-upstream"}
    return {"model": f"anthropic/{model}", "api_base": base, **key, **params}


def model_list(**entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Compose ``model_list`` from ``litellm_params`` by name."""
    return [{"model_name": name, "litellm_params": params} for name, params in entries.items()]


def counted(response: httpx.Response) -> int:
    """Check that a response is a count, and return it."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    tokens = response.json()["input_tokens"]
    assert type(tokens) is int
    assert tokens > 0
    return tokens


def refused(response: httpx.Response, status: int, type_: str) -> str:
    """Check that a response is an error in Anthropic's shape, and return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"]["type"] == type_
    assert body["request_id"] == response.headers["request-id"]
    message = body["error"]["message"]
    assert isinstance(message, str)
    assert message
    return message


def asked(provider: SimulatedProvider) -> dict[str, Any]:
    """Return the body of the one request that the provider has received."""
    (request,) = provider.requests
    body: dict[str, Any] = msgspec.json.decode(request.body)
    return body


def until(condition: Callable[[], bool]) -> None:
    """Wait until something has come about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def event(server: Tallygate, request_id: str) -> dict[str, Any]:
    """Wait for the JSON line of one count, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        lines = server.out.read_bytes().split(b"\n")[:-1]
        found = [line for line in lines if request_id.encode() in line]
        if found:
            assert len(found) == 1
            record: dict[str, Any] = msgspec.json.decode(found[0])
            return record
        time.sleep(0.02)
    raise AssertionError(f"no event tells of {request_id}")


def request(
    body: bytes = b"",
    *,
    method: str = "POST",
    target: str = COUNT,
    headers: Mapping[str, str] = JSON,
    length: int | None = None,
) -> bytes:
    """Write a request as it goes over the wire, KEY included; ``length`` may lie."""
    lines = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {KEY}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if "transfer-encoding" not in headers:
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Connection:
    """One TCP connection to a server, in the test's own hands."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more is sent; what comes is still read."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave at once, and let the other side know."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def read(self, *, to_head: bool = False) -> httpx.Response:
        """Read one response; one to HEAD has no body."""
        status_line = self._file.readline()
        assert status_line.startswith(b"HTTP/1.1 "), status_line
        status = int(status_line.split()[1])
        headers = httpx.Headers()
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name] = value.strip()
        length = 0 if to_head or status < 200 else int(headers["content-length"])
        return httpx.Response(status, headers=headers, content=self._file.read(length))

    def read_raw(self) -> bytes:
        """Read one response as it stands on the wire: its head and its body."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            assert line, head
            head += line
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.IGNORECASE)
        assert length
        return head + self._file.read(int(length[1]))

    def ends(self) -> bool:
        """Wait for the server's next byte, and say whether there is none: it has closed."""
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
