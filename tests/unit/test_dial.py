"""The way to a provider: its address, its proxy, its name on the request."""

import asyncio
import gc
import ssl
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from uvloop import new_event_loop

from adapters.base import UpstreamRequest
from app.dial import CONNECT_TIMEOUT_S, Dialer, Proxy, Target, Tunnel, proxy_of, way_to
from app.request_head import host_of, request_head
from app.upstream import Upstream, UpstreamReply, UpstreamUnreachableError
from tests.certificates import Authority
from tests.faults.listener import Listener
from tests.faults.scripted_provider import ScriptedProvider, reply

AUTHORITY = Authority()
COUNT = b'{"input_tokens":7}'
OPENED = b"HTTP/1.1 200 Connection established\r\nvia: here\r\n\r\n"
LATE_S = 0.3


def proxy(environ: dict[str, str], url: str = "https://a.example") -> Proxy | None:
    return proxy_of(Target.of(url), environ)


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("http://p:3128", "p:3128"),
        ("http://p", "p:80"),
        ("https://p", "p:443"),
        ("p:3128", "p:3128"),
        ("u:secret@p:3128", "p:3128"),
        ("[::1]:3128", "[::1]:3128"),
        ("http://P.example:3128/", "p.example:3128"),
    ],
)
def test_a_proxy_is_read_with_and_without_its_scheme(said: str, at: str) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        found = proxy({name: said})
        assert found is not None
        assert found.at.authority == at
        assert "secret" not in repr(found)
    assert proxy({"HTTP_PROXY": said}) is None


def test_the_login_of_a_proxy_is_told_unescaped() -> None:
    found = proxy({"HTTPS_PROXY": "http://us%40er:p%3Ass@p"})
    assert found is not None
    assert found.authorization == f"Basic {b64encode(b'us@er:p:ss').decode()}"


@pytest.mark.parametrize(
    "said",
    [
        "http://user:sec/ret@p:80",
        "http://user:sec[ret@p:80",
        "http://user:sec℀ret@p:80",
        "http://user:sec#ret@p:80",
        "http://user:secret@p:99999",
        "socks5://user:secret@p",
        "http://",
    ],
)
def test_a_proxy_that_is_no_url_is_refused_without_its_login(said: str) -> None:
    with pytest.raises(ValueError, match="must begin with http") as caught:
        way_to("http://a.example", {"HTTP_PROXY": said})
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", "https://a.example", True),
        ("A.example", "https://a.EXAMPLE", True),
        (".a.example", "https://a.example", True),
        ("x, ,a.example", "https://b.a.example", True),
        ("a.example", "https://ba.example", False),
        ("a.example:443", "https://a.example", True),
        ("a.example:444", "https://a.example", False),
        ("10.0.0.0/8", "https://10.1.2.3:8443", True),
        ("10.1.2.3:8443", "https://10.1.2.3:8443", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("::1", "https://[::1]", True),
        ("[::1]", "https://[::1]", True),
        ("", "https://a.example", False),
        (".", "https://a.example", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(
    no_proxy: str, url: str, is_direct: bool
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        assert (proxy({"ALL_PROXY": "http://p", name: no_proxy}, url) is None) == is_direct


@pytest.mark.parametrize(
    ("base", "host"),
    [
        ("https://a.example", "a.example"),
        ("https://A.Example:443", "a.example"),
        ("http://a.example:80", "a.example"),
        ("http://a.example:", "a.example"),
        ("http://a.example:443", "a.example:443"),
        ("https://a.example.:8443", "a.example.:8443"),
        ("http://[FD00::1]:80", "[fd00::1]"),
        ("http://[fd00::1]:81", "[fd00::1]:81"),
    ],
)
def test_the_host_that_is_sent_is_the_host_that_is_signed(base: str, host: str) -> None:
    url = f"{base}/model/a%3A0/count-tokens"
    signer = SigV4Auth(Credentials("k", "s"), "bedrock", "us-east-1")
    to_sign = signer.headers_to_sign(AWSRequest("POST", url, {}, b""))
    assert to_sign["host"] == host_of(url) == host
    for whole in (False, True):
        head = request_head("POST", url, (), "", whole=whole)
        asked_for = f"{base.partition(':')[0]}://{host}" if whole else ""
        assert head.startswith(f"POST {asked_for}/model/a%3A0/count-tokens HTTP/1.1\r\n".encode())
        assert head.count(f"\r\nhost: {host}\r\n".encode()) == 1


@pytest.mark.parametrize("text", ["a\r\nb: c", "a\n", "\ra", "a\0", "é", "\x7f", "\u2028"])
def test_a_header_of_more_than_one_line_is_not_sent(text: str) -> None:
    for headers, login in (((("a", text),), ""), (((text, "a"),), ""), ((), text)):
        with pytest.raises(ValueError, match="cannot be sent"):
            request_head("POST", "http://a/", headers, login, whole=True)


@pytest.mark.parametrize("text", ["a b", "a\r\nb: c", "é", '"<>', "a%20b?c=%C3%A9&d"])
def test_an_address_is_one_line_whatever_it_holds(text: str) -> None:
    for url in (f"http://a/{text}", f"http://a/b?{text}"):
        head = request_head("GET", url, (), "", whole=False)
        assert head.count(b"\r\n") == 3
        assert head.partition(b"\r\n")[0].count(b" ") == 2


class ConnectProxy(Listener):
    """Opens the way after having said so in so many pieces, or ends with its answer."""

    def __init__(self, *answer: bytes, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self._answer = answer
        self.heads: list[bytes] = []

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        for piece in self._answer:
            writer.write(piece)
            await asyncio.sleep(0.001)
        if b"".join(self._answer) != OPENED:
            await reader.read()
            return
        port = int(head.split()[1].rpartition(b":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_passed(reader, back), _passed(there, writer))


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


def sent(
    url: str, environ: dict[str, str], timeout_s: float = 5.0, times: int = 1
) -> list[UpstreamReply]:
    async def run() -> list[UpstreamReply]:
        upstream = Upstream(environ)
        request = UpstreamRequest("POST", f"{url}/v1", (), b"{}")
        try:
            return [await upstream.send(request, url, timeout_s) for _ in range(times)]
        finally:
            await upstream.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As operators have them: several, with remarks that are no ASCII."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    path.write_bytes("# Übungs-CA ✓\n".encode() + Authority().pem + b"\n# more\n" + AUTHORITY.pem)
    return path


@pytest.mark.parametrize("login", ["", "user:word@"])
@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_provider_is_asked_through_a_tunnel(
    bundle: Path, login: str, is_tls: bool, size: int
) -> None:
    """The proxy sees where to, and nothing that is said there; one tunnel serves two questions."""
    tls = AUTHORITY.context("127.0.0.1")
    pieces = [OPENED[at : at + size] for at in range(0, len(OPENED), size)]
    with (
        ScriptedProvider(tls) as provider,
        ConnectProxy(*pieces, tls=tls if is_tls else None) as between,
    ):
        provider.always(reply(COUNT))
        scheme = "https" if is_tls else "http"
        environ = {
            "SSL_CERT_FILE": str(bundle),
            "HTTPS_PROXY": f"{scheme}://{login}127.0.0.1:{between.port}",
        }
        assert [one.body for one in sent(provider.url, environ, times=2)] == [COUNT] * 2
        (head,) = between.heads
        assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % provider.port)
        assert (b"proxy-authorization: Basic dXNlcjp3b3Jk\r\n" in head) == bool(login)
        assert b"proxy-authorization" not in provider.requests[0].head


def test_a_tunnel_does_not_vouch_for_who_is_at_its_end(bundle: Path) -> None:
    with ScriptedProvider(AUTHORITY.context("b.example")) as other, ConnectProxy(OPENED) as between:
        environ = {
            "SSL_CERT_FILE": str(bundle),
            "HTTPS_PROXY": f"http://127.0.0.1:{between.port}",
        }
        with pytest.raises(UpstreamUnreachableError):
            sent(other.url, environ)
        assert other.requests == []


REFUSALS = {
    "502": b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno",
    "no HTTP": b"what?\r\n\r\n",
    "no end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 4000,
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
def test_a_proxy_that_opens_no_way_is_told_at_once(answer: bytes) -> None:
    with ConnectProxy(answer) as between:
        with pytest.raises(UpstreamUnreachableError) as caught:
            sent("https://a.example", {"https_proxy": f"http://127.0.0.1:{between.port}"})
        assert not caught.value.timed_out


def test_a_proxy_that_wants_a_login_is_told_from_a_provider() -> None:
    with ConnectProxy(b"HTTP/1.1 407 Login\r\n\r\n") as between:
        (one,) = sent("https://a.example", {"https_proxy": f"http://127.0.0.1:{between.port}"})
    assert one.status == 407


def test_a_proxy_that_closes_at_once_is_no_surprise() -> None:
    """The connection is lost before anybody waits for the proxy's answer."""
    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        tunnel = Tunnel()
        tunnel.connection_lost(None)
        with pytest.raises(ConnectionResetError):
            await tunnel.lead_to(Target.of("https://a.example"), "")
        del tunnel
        gc.collect()

    asyncio.run(run())
    assert complaints == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", OPENED + b"\x16"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_hangs_ends_at_the_deadline(answer: bytes, scheme: str) -> None:
    """Before its answer, in the middle of it, behind it; and in its own handshake."""
    with ConnectProxy(answer) as between:
        environ = {"https_proxy": f"{scheme}://127.0.0.1:{between.port}"}
        began = time.monotonic()
        with pytest.raises(UpstreamUnreachableError) as caught:
            sent("https://a.example", environ, LATE_S)
        assert caught.value.timed_out
        assert time.monotonic() - began < CONNECT_TIMEOUT_S - 1


def test_a_look_up_for_which_there_is_no_thread_is_a_broken_connection() -> None:
    async def run() -> None:
        with patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            await Dialer({}).dial(way_to("http://a.example", {}))

    with pytest.raises(UpstreamUnreachableError) as caught:
        asyncio.run(run())
    assert not caught.value.timed_out
