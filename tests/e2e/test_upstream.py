"""Upstream calls as an operator sees them: proxies, certificates, limits, broken providers."""

import asyncio
import itertools
import os
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.base import UpstreamRequest
from app.upstream import (
    MAX_CONNECTIONS,
    MAX_REPLY_BYTES,
    CrowdedUpstreamError,
    UnusableReplyError,
    Upstream,
    UpstreamReply,
    UpstreamUnreachableError,
)
from bench.provider import SimulatedProvider
from tests.certificates import Authority
from tests.server import free_port


def proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


def send(
    url: str, environ: dict[str, str] | None = None, timeout_s: float = 5.0, base: str | None = None
) -> UpstreamReply:
    async def run() -> UpstreamReply:
        upstream = Upstream(proxies() | (environ or {}))
        try:
            headers = (("x-api-key", "sk-ant-x"), ("anthropic-version", "2023-06-01"))
            body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
            request = UpstreamRequest("POST", f"{url}/v1/messages/count_tokens", headers, body)
            return await upstream.send(request, base or url, timeout_s)
        finally:
            await upstream.close()

    return asyncio.run(run())


class _Recorder(BaseHTTPRequestHandler):
    """Answers every POST with a count and every CONNECT by tunnelling nothing."""

    protocol_version = "HTTP/1.1"
    seen: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).seen.append(self.path)
        self._answer()

    def do_CONNECT(self) -> None:
        type(self).seen.append(f"CONNECT {self.path}")
        self.send_error(502)

    def _answer(self) -> None:
        body = b'{"input_tokens":7}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep the test's output quiet."""


@contextmanager
def recorder(context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    handler = type("Handler", (_Recorder,), {"seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    return authority.context("127.0.0.1")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_custom_certificate_authority_is_trusted(
    variable: str, authority: Authority, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(authority.pem)
    with recorder(tls) as (url, _):
        assert send(url, {variable: str(bundle)}).body == b'{"input_tokens":7}'


def test_an_unknown_certificate_authority_is_refused(tls: ssl.SSLContext) -> None:
    with recorder(tls) as (url, seen):
        with pytest.raises(UpstreamUnreachableError) as caught:
            send(url)
        assert not caught.value.timed_out
        assert seen == []


def test_a_certificate_for_another_host_is_refused(authority: Authority, tmp_path: Path) -> None:
    context = authority.context("elsewhere.example")
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(authority.pem)
    with recorder(context) as (url, seen):
        with pytest.raises(UpstreamUnreachableError):
            send(url, {"SSL_CERT_FILE": str(bundle)})
        assert seen == []


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with recorder() as (url, seen):
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("HTTPS_PROXY", url)
        yield seen


def test_http_and_https_go_through_the_proxy(proxied: list[str]) -> None:
    assert send("http://counter.invalid").body == b'{"input_tokens":7}'
    with pytest.raises(UpstreamUnreachableError):
        send("https://counter.invalid")
    assert proxied == [
        "http://counter.invalid/v1/messages/count_tokens",
        "CONNECT counter.invalid:443",
    ]


def test_no_proxy_is_honoured(proxied: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with recorder() as (url, seen):
        assert send(url).status == 200
        assert seen == ["/v1/messages/count_tokens"]
    assert proxied == []


def test_a_refused_connection_is_told_from_a_timeout(provider: SimulatedProvider) -> None:
    with pytest.raises(UpstreamUnreachableError) as refused:
        send(f"http://127.0.0.1:{free_port()}")
    assert not refused.value.timed_out
    provider.behave(hang=True, times=1)
    with pytest.raises(UpstreamUnreachableError) as hung:
        send(provider.url, timeout_s=0.3)
    assert hung.value.timed_out


def test_the_deadline_is_total_and_not_between_bytes(provider: SimulatedProvider) -> None:
    provider.behave(drip_s=0.2, times=1)
    started = time.monotonic()
    with pytest.raises(UpstreamUnreachableError) as caught:
        send(provider.url, timeout_s=0.6)
    assert caught.value.timed_out
    assert time.monotonic() - started < 5


def test_requests_that_hang_keep_no_connection(provider: SimulatedProvider) -> None:
    async def run() -> None:
        upstream = Upstream({})
        request = UpstreamRequest("POST", f"{provider.url}/v1", (), b"{}")

        async def hangs() -> None:
            with pytest.raises((UpstreamUnreachableError, CrowdedUpstreamError)):
                await upstream.send(request, provider.url, 1)

        provider.behave(hang=True)
        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_CONNECTIONS + 10):
                group.create_task(hangs())
        provider.clear()
        assert (await upstream.send(request, provider.url, 5)).status > 0
        await upstream.close()

    asyncio.run(run())


def test_who_finds_no_room_is_told_so_while_there_is_time(provider: SimulatedProvider) -> None:
    """One question has the only connection; another is not kept waiting until its deadline."""
    path = "/v1/messages/count_tokens"
    request = UpstreamRequest("POST", provider.url + path, (("x-api-key", "k"),), b"{}")

    async def run() -> None:
        upstream = Upstream({}, connections=1)
        provider.behave(hang=True, times=1)
        first = asyncio.create_task(upstream.send(request, provider.url, 2))
        await asyncio.sleep(0.1)
        with pytest.raises(CrowdedUpstreamError):
            await upstream.send(request, provider.url, 1)
        with pytest.raises(UpstreamUnreachableError):
            await first
        assert (await upstream.send(request, provider.url, 5)).status > 0
        await upstream.close()

    asyncio.run(run())
    assert provider.calls == 2


def test_a_deadline_that_passed_while_the_loop_stood_still_is_one(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time is left at all: that is a timeout, and no fault of ours."""
    clock = SimpleNamespace(monotonic=itertools.count(0, 100).__next__)
    monkeypatch.setattr("app.upstream.time", clock)
    provider.behave(hang=True, times=1)
    with pytest.raises(UpstreamUnreachableError) as caught:
        send(provider.url, timeout_s=1)
    assert caught.value.timed_out


def test_a_provider_that_hangs_leaves_room_for_another(provider: SimulatedProvider) -> None:
    """As many questions to one address as there are connections: another is asked at once."""
    path = "/v1/messages/count_tokens"

    async def run() -> None:
        upstream = Upstream({}, connections=8, hosts=2)
        with SimulatedProvider() as other:
            other.behave(hang=True)
            hung = UpstreamRequest("POST", other.url + path, (("x-api-key", "k"),), b"{}")
            asked = [asyncio.create_task(upstream.send(hung, other.url, 2)) for _ in range(8)]
            await asyncio.sleep(0.2)
            request = UpstreamRequest("POST", provider.url + path, (("x-api-key", "k"),), b"{}")
            assert (await upstream.send(request, provider.url, 1)).status > 0
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(one) for one in outcomes} == {UpstreamUnreachableError, CrowdedUpstreamError}
        await upstream.close()

    asyncio.run(run())


@pytest.mark.parametrize("behaviour", [{"reset": True}, {"truncate_bytes": 150}])
def test_a_broken_reply_is_no_answer(
    provider: SimulatedProvider, behaviour: dict[str, Any]
) -> None:
    provider.behave(times=1, **behaviour)
    with pytest.raises(UpstreamUnreachableError):
        send(provider.url)


def test_a_reply_larger_than_a_count_is_refused(provider: SimulatedProvider) -> None:
    provider.behave(status=200, body=b" " * (MAX_REPLY_BYTES + 1), times=1)
    with pytest.raises(UnusableReplyError):
        send(provider.url)


def test_a_redirect_is_not_followed(provider: SimulatedProvider) -> None:
    before = provider.calls
    provider.behave(status=307, headers={"location": provider.url}, body=b"", times=1)
    with pytest.raises(UnusableReplyError):
        send(provider.url)
    assert provider.calls == before + 1


def test_a_request_cannot_leave_its_base_url(provider: SimulatedProvider) -> None:
    before = provider.calls
    with pytest.raises(UpstreamUnreachableError):
        send(provider.url, base="https://api.anthropic.com")
    assert provider.calls == before


def test_a_closed_idle_connection_is_replaced_unseen() -> None:
    class Once(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.rfile.readline()
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            self.rfile.read(length)
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n" + b'{"input_tokens":7}'
            )

    async def run(url: str) -> list[int]:
        upstream = Upstream({})
        statuses = []
        for _ in range(50):
            request = UpstreamRequest("POST", f"{url}/v1", (), b"{}")
            statuses.append((await upstream.send(request, url, 5)).status)
            await asyncio.sleep(0.005)
        await upstream.close()
        return statuses

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Once) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert asyncio.run(run(f"http://127.0.0.1:{server.server_address[1]}")) == [200] * 50
        server.shutdown()


def test_what_is_sent_again_is_told(provider: SimulatedProvider) -> None:
    """A kept connection ends with the question that it was given: nobody knows if that was read."""
    path = "/v1/messages/count_tokens"
    request = UpstreamRequest("POST", provider.url + path, (("x-api-key", "k"),), b"{}")
    told: list[str] = []

    async def run() -> None:
        upstream = Upstream({})
        for _ in range(2):
            await upstream.send(request, provider.url, 5, lambda: told.append("again"))
            provider.behave(reset=True, times=1)
        await upstream.close()

    before = provider.calls
    asyncio.run(run())
    assert told == ["again"]
    assert provider.calls == before + 3
    provider.clear()
