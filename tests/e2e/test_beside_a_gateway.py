"""The nginx configuration of docs/beside-a-gateway.md, in a real nginx."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.provider import SimulatedProvider, count_tokens
from tests.server import KEY, ROOT, START_S, Tallygate, free_port

PAGE = (ROOT / "docs/beside-a-gateway.md").read_text()
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Gateway(ThreadingHTTPServer):
    """Stands for the other gateway: says what it was asked, and streams when told to go on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.go_on = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(body)
        if self.path == "/v1/messages":
            self._stream()
        else:
            self._answer()

    def _answer(self) -> None:
        asked = {"gateway": self.path, "authorization": self.headers["authorization"]}
        body = json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(b"event: message_start\n\n")
        if self.server.go_on.wait(START_S):
            self.wfile.write(b"event: message_stop\n\n")

    def log_message(self, *args: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def server(provider: SimulatedProvider, start: Callable[..., Tallygate]) -> Tallygate:
    def entry(name: str, key: str) -> dict[str, Any]:
        params = {"model": f"anthropic/{name}", "api_key": key, "api_base": provider.url}
        return {"model_name": name, "litellm_params": params}

    entries = [entry("claude", "sk-ant-upstream"), entry("keyless", "os.environ/NOT_SET_HERE")]
    return start({"model_list": entries})


def configuration(server: Tallygate, gateway: Gateway, port: int, folder: Path) -> str:
    """Take the page's snippet with the test's ports, in the least that nginx needs around it."""
    (snippet,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for written, used in (
        ("server 127.0.0.1:4000;", f"server 127.0.0.1:{server.port};"),
        ("server 127.0.0.1:3000;", f"server 127.0.0.1:{gateway.server_port};"),
        ("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{port};"),
    ):
        assert snippet.count(written) == 1
        snippet = snippet.replace(written, used)
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in TEMPORARY)
    # Started by root, nginx would change to a user who may not write here.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"{user} pid {folder}/pid; events {{}} http {{ access_log off; {temporary}\n{snippet} }}"


@pytest.fixture(scope="module")
def address(
    server: Tallygate, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve the one address of both."""
    if not shutil.which("nginx"):
        pytest.skip("nginx is not on PATH")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    (folder / "nginx.conf").write_text(configuration(server, gateway, port, folder))
    options = ["-p", str(folder), "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
    with subprocess.Popen(["nginx", *options], start_new_session=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url)
            yield url
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, "nginx ended"
        try:
            httpx.get(f"{url}/")
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("nginx did not start")


def question(text: str, model: str = "claude") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def count(base: str, body: dict[str, Any], query: str = "", **headers: str) -> httpx.Response:
    url = f"{base}/v1/messages/count_tokens{query}"
    return httpx.post(url, json=body, headers={**AUTHORIZED, **headers}, timeout=30)


def test_counts_reach_tallygate_as_claude_code_sends_them(
    address: str, gateway: Gateway, provider: SimulatedProvider
) -> None:
    provider.clear()
    gateway.bodies.clear()
    betas = "fine-grained-tool-streaming-2025-05-14,interleaved-thinking-2025-05-14"
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": betas}
    body = question("Hello, how are you?")
    answer = count(address, body, "?beta=true", **headers)
    assert answer.json()["input_tokens"] == count_tokens(body) == 14
    assert answer.headers["x-tallygate-source"] == "live"
    seen = provider.requests[0].headers
    assert seen["anthropic-version"] == "2023-06-01"
    assert set(betas.split(",")) < set(seen["anthropic-beta"].split(","))
    again = count(address, body, **headers)
    assert again.headers["cache-status"] == "tallygate; hit"
    assert provider.calls == 1
    assert gateway.bodies == []


def test_twenty_megabytes_pass(address: str, provider: SimulatedProvider) -> None:
    provider.clear()
    body = question("many words " * (20 * 2**20 // 11))
    answer = count(address, body)
    assert answer.json() == {"input_tokens": count_tokens(body)}
    assert len(provider.requests[0].body) > 20_000_000


@pytest.mark.parametrize(
    "headers", [{"x-api-key": KEY}, {"x-litellm-api-key": KEY}, AUTHORIZED], ids=", ".join
)
def test_every_kind_of_key_passes(address: str, headers: dict[str, str]) -> None:
    url, body = f"{address}/v1/messages/count_tokens", question("Hello, how are you?")
    assert httpx.post(url, json=body, headers=headers).json() == {"input_tokens": 14}
    wrong = dict.fromkeys(headers, "Bearer sk-wrong")
    refused = httpx.post(url, json=body, headers=wrong)
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"


def test_a_caller_behind_nginx_is_not_on_this_machine(address: str, server: Tallygate) -> None:
    body = question("Hello", model="keyless")
    assert "NOT_SET_HERE" in count(server.url, body).json()["error"]["message"]
    behind = count(address, body)
    assert behind.status_code == 502
    assert "NOT_SET_HERE" not in behind.text


def test_claude_codes_telemetry_is_taken(address: str) -> None:
    reply = httpx.post(f"{address}/api/event_logging/batch", json={"events": []})
    assert reply.json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/messages/count_tokens/more"),
        ("POST", "/v1/responses/input_tokens?a=b"),
    ],
)
def test_the_rest_reaches_the_gateway(address: str, method: str, path: str) -> None:
    body: dict[str, str] | None = {} if method == "POST" else None
    reply = httpx.request(method, f"{address}{path}", json=body, headers=AUTHORIZED)
    assert reply.json() == {"gateway": path, "authorization": f"Bearer {KEY}"}


def test_messages_stream_through_the_gateway(address: str, gateway: Gateway) -> None:
    body = {**question("Hello"), "stream": True}
    with httpx.stream("POST", f"{address}/v1/messages", json=body, timeout=START_S / 3) as reply:
        pieces = reply.iter_bytes()
        assert next(pieces) == b"event: message_start\n\n"
        gateway.go_on.set()
        assert b"".join(pieces) == b"event: message_stop\n\n"
    assert json.loads(gateway.bodies[-1]) == body


def test_the_page_takes_what_tallygate_takes() -> None:
    assert "client_max_body_size 32m;" in PAGE
    (written,) = re.findall(r"^export ANTHROPIC_BASE_URL=(\S+)", PAGE, re.MULTILINE)
    (listened,) = re.findall(r"listen (\S+);", PAGE)
    assert written == f"http://{listened}"
