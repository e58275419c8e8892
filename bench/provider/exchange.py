"""What passes between the server, the simulation and a provider's wire."""

from http import HTTPStatus
from typing import Protocol

from msgspec import Struct

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}


class Request:
    """One received request. ``time`` is in seconds on the monotonic clock.

    ``target`` is the path and query as they were sent; of an absolute-form target, that part.
    """

    __slots__ = ("_headers", "body", "keep_alive", "method", "raw_headers", "target", "time")

    def __init__(
        self,
        method: str,
        target: str,
        raw_headers: list[tuple[bytes, bytes]],
        body: bytes,
        *,
        time: float,
        keep_alive: bool = True,
    ) -> None:
        self.method = method
        self.target = target
        self.raw_headers = raw_headers
        self.body = body
        self.time = time
        self.keep_alive = keep_alive
        self._headers: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target} {len(self.body)} bytes>"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; the values of a repeated header joined by a comma."""
        if self._headers is None:
            headers: dict[str, str] = {}
            for raw_name, raw_value in self.raw_headers:
                name, value = raw_name.lower().decode("latin-1"), raw_value.decode("latin-1")
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
            self._headers = headers
        return self._headers


class Reply(Struct, frozen=True):
    """What a provider answers; ``content-length`` is added on the wire."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)

    def rendered(self, *, keep_alive: bool = True) -> bytes:
        """The bytes of this reply as HTTP/1.1."""
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append(f"content-length: {len(self.body)}")
        if not keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


class Delivery(Struct, frozen=True):
    """How the bytes of one answer go out."""

    data: bytes
    close: bool = False
    delay_s: float = 0.0
    drip_s: float = 0.0
    hang: bool = False
    reset: bool = False

    @property
    def is_immediate(self) -> bool:
        return not (self.delay_s or self.drip_s or self.hang or self.reset)


class Wire(Protocol):
    """One provider's side of the wire: its requests, its judgement, its replies."""

    def claims(self, request: Request) -> bool:
        """Tell whether this provider serves the request's path."""
        ...

    def model(self, request: Request) -> str | None:
        """Name the model the request asks about; None if it names none."""
        ...

    def answer(self, request: Request) -> Reply:
        """Judge the request and answer it: a count or the provider's own error."""
        ...

    def error(self, status: int) -> Reply:
        """Give the provider's usual error of this status."""
        ...
