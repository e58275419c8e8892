"""Google's token endpoints on loopback (OAuth, STS, IAM), and a proxy that leads to them."""

import contextlib
import select
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

import msgspec

from tests.threaded import Threaded

PROVIDER_TEXT = "what the provider said of the secret"


class TokenEndpoint(Threaded):
    """Grants ``token-1``, ``token-2`` …, each after ``delay_s`` and not while ``gate`` is shut."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.delay_s = 0.0
        self.lifetime_s = 3600
        self.refuses = False
        self.granted = 0
        self.gate = threading.Event()
        self.gate.set()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, reply = endpoint._answer(self.path, body)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        super().__init__(Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}/token"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.gate.set()
        super().__exit__(kind, error, trace)

    def _answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if body.startswith(b"{"):
            self.asked.append((path, {"json": body.decode()}))
        else:
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            self.asked.append((path, form))
        time.sleep(self.delay_s)
        self.gate.wait(20)
        if self.refuses:
            said = {"error": "invalid_grant", "error_description": PROVIDER_TEXT}
            return 400, msgspec.json.encode(said)
        self.granted += 1
        token = f"token-{self.granted}"
        if path.endswith(":generateAccessToken"):
            expires = time.gmtime(time.time() + self.lifetime_s)
            expire_time = time.strftime("%Y-%m-%dT%H:%M:%SZ", expires)
            return 200, msgspec.json.encode({"accessToken": token, "expireTime": expire_time})
        granted = {
            "access_token": token,
            "expires_in": self.lifetime_s,
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }
        return 200, msgspec.json.encode(granted)


class ConnectProxy(Threaded):
    """Leads every CONNECT to one port of this machine, whatever host was asked for."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                proxy.asked.append(self.path)
                with socket.create_connection(("127.0.0.1", port)) as inside:
                    self.send_response(200)
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        _pump(self.connection, inside)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        super().__init__(Handler)


def _pump(one: socket.socket, other: socket.socket) -> None:
    while True:
        for ready in select.select([one, other], [], [])[0]:
            if not (data := ready.recv(65_536)):
                return
            (other if ready is one else one).sendall(data)
