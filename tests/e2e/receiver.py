"""Somebody to post to: an operator's webhook, or a collector."""

import contextlib
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PATIENCE_S = 15.0


class Receiver:
    """Takes what is posted to it, or answers with the statuses that were asked for first."""

    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        """Of every answer, as what it says."""
        self.says = b""
        self.delay_s = 0.0
        receiver, one_by_one = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sent = {name.lower(): value for name, value in self.headers.items()}
                with one_by_one:
                    receiver.paths.append(self.path)
                    receiver.posts.append((sent, body))
                time.sleep(receiver.delay_s)
                with contextlib.suppress(ConnectionError):  # who has waited long enough
                    self._answer(receiver.says)

            def _answer(self, says: bytes) -> None:
                usual = 200 if says else 204
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else usual)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(says)))
                self.end_headers()
                self.wfile.write(says)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds, PATIENCE_S at most."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
